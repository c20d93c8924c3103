"""EC2 on this machine: moto keeps the books, and every instance that it says is running is a host."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from harness.hosts import GATEWAY, NETWORK, Hosts
from harness.laptops import make_node
from harness.processes import start

REGION = "us-west-2"
CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
_SUBNET = f"{NETWORK}.128/26"
_FIRST = 118
"""The number of the host with the subnet's first address."""


@dataclass
class Cloud:
    """`endpoint` is moto's address, which every host reaches; `subnet` is the one whose instances become hosts."""

    endpoint: str
    hosts: Hosts
    subnet: str = ""
    image: str = ""
    problems: list[BaseException] = field(default_factory=list)

    def client(self) -> Any:
        return boto3.client("ec2", region_name=REGION, endpoint_url=self.endpoint, **CREDENTIALS)

    def instances(self) -> dict[str, dict[str, Any]]:
        """What runs: an instance's id to what EC2 says of it."""
        reservations = self.client().describe_instances()["Reservations"]
        found = [instance for each in reservations for instance in each["Instances"]]
        return {each["InstanceId"]: each for each in found if each["State"]["Name"] == "running"}

    def host_of(self, instance: dict[str, Any]) -> int:
        """The number of the host that is this instance."""
        return int(instance["PrivateIpAddress"].rpartition(".")[2]) - 10


@contextmanager
def standing(folder: Path, hosts: Hosts) -> Iterator[Cloud]:
    """A cloud on the bridge of `hosts`; logs go to `folder`. Its instances end with it."""
    with socket.socket() as opened:
        opened.bind((GATEWAY, 0))
        port = opened.getsockname()[1]
    words = [str(Path(sys.executable).with_name("moto_server")), "-H", GATEWAY, "-p", str(port)]
    with start(words, folder, name="moto", env={"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}) as server:
        server.until(lambda: _answers(port), 120)
        cloud = Cloud(f"http://{GATEWAY}:{port}", hosts)
        client = cloud.client()
        network = client.create_vpc(CidrBlock=f"{NETWORK}.0/24")["Vpc"]["VpcId"]
        made = client.create_subnet(VpcId=network, CidrBlock=_SUBNET, AvailabilityZone=f"{REGION}a")
        cloud.subnet = made["Subnet"]["SubnetId"]
        cloud.image = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        ended = threading.Event()
        booting = threading.Thread(target=_boot_and_end, args=(cloud, ended))
        booting.start()
        try:
            yield cloud
        finally:
            ended.set()
            booting.join()
    assert not cloud.problems, cloud.problems


def _boot_and_end(cloud: Cloud, ended: threading.Event) -> None:
    client = cloud.client()
    running: dict[str, int] = {}
    while not ended.wait(1):
        try:
            wanted = cloud.instances()
            for name in [name for name in running if name not in wanted]:
                cloud.hosts.remove(running.pop(name))
            for name, instance in wanted.items():
                number = cloud.host_of(instance)
                if name not in running and number >= _FIRST:
                    keys = client.describe_key_pairs(KeyNames=[instance["KeyName"]], IncludePublicKey=True)
                    host = cloud.hosts.add(number, authorized=keys["KeyPairs"][0]["PublicKey"].strip() + "\n")
                    make_node(host)
                    running[name] = number
        except BaseException as error:  # shown by the test that waits for the instance in vain, or at the end
            cloud.problems.append(error)
            return


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex((GATEWAY, port)) == 0
