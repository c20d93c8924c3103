"""cluster/aws.yaml against moto's EC2, whose instances are hosts: spot workers come, are replaced, and go.

It tests the file and the launcher, not AWS: there is no lack of capacity, no security group at work, no spot notice.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ec2
from harness import hosts as namespaces
from harness.ec2 import Cloud
from harness.hosts import Host
from harness.laptops import ENVIRONMENT, REPOSITORY, make_laptop, write_token

pytestmark = [pytest.mark.hosts, pytest.mark.nightly, pytest.mark.ray, pytest.mark.timeout(2400)]

ASK = """
import sys, ray
from ray.autoscaler.sdk import request_resources
ray.init("auto", logging_level="ERROR", log_to_driver=False)
request_resources(bundles=[{"CPU": 8, "GPU": 1}] * int(sys.argv[1]))
"""

MARKETS = """
import json, ray
ray.init("auto", logging_level="ERROR", log_to_driver=False)
markets = [node["Labels"].get("ray.io/market-type") for node in ray.nodes() if node["Alive"]]
print(json.dumps(sorted(markets)))
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    if missing := namespaces.missing():
        pytest.skip(missing)
    with namespaces.standing(1) as hosts, ec2.standing(tmp_path, hosts) as made:
        yield made


def filled_in(cloud: Cloud) -> str:
    """The file with an image, and with what makes it speak to moto instead of Amazon."""
    text = (REPOSITORY / "cluster" / "aws.yaml").read_text()
    keys = json.dumps({**ec2.CREDENTIALS, "endpoint_url": cloud.endpoint})
    provider = f"  type: aws\n  aws_credentials: {keys}\n  use_internal_ips: true\n"
    changes = {
        "  type: aws\n": provider,
        "ami-FILL_IN": cloud.image,
        "fs-FILL_IN": "fs-1234",  # /mnt/shared is there already, so nothing is mounted
        "    node_config:\n": f"    node_config:\n      SubnetIds: [{cloud.subnet}]\n",
        "ssh_user: ubuntu": "ssh_user: root",
        "idle_timeout_minutes: 5": "idle_timeout_minutes: 0.2",
        "--disable-usage-stats": "--object-store-memory=200000000",
    }
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return text


def until(happened: Callable[[], bool], seconds: float, what: str, cloud: Cloud) -> float:
    began = time.monotonic()
    while not happened():
        assert not cloud.problems, cloud.problems
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}; {kinds(cloud)}"
        time.sleep(2)
    return time.monotonic() - began


def kinds(cloud: Cloud) -> list[tuple[str, str]]:
    """Machine and market of each running instance."""
    running = cloud.instances().values()
    return sorted((each["InstanceType"], each.get("InstanceLifecycle", "on-demand")) for each in running)


HEAD = ("m7i.xlarge", "on-demand")
GPU = ("g6.4xlarge", "spot")


def on_head(cloud: Cloud, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    (number,) = (cloud.host_of(each) for each in cloud.instances().values() if each["InstanceType"] == HEAD[0])
    (cloud.hosts[number].state / "home" / "script.py").write_text(text)
    return cloud.hosts[number].shell(f"RAY_AUTH_MODE=token python script.py {' '.join(words)}", seconds=300)


def markets(cloud: Cloud) -> list[str | None]:
    return json.loads(on_head(cloud, MARKETS).stdout.splitlines()[-1])


def test_spot_workers_come_are_replaced_and_go(cloud: Cloud) -> None:
    laptop: Host = make_laptop(cloud.hosts, 1)
    write_token(laptop)
    (laptop.state / "home" / "aws.yaml").write_text(filled_in(cloud))

    def command(*words: str) -> str:
        return laptop.run(*words, env=ENVIRONMENT, folder=str(REPOSITORY), seconds=900).stdout

    began = time.monotonic()
    said = command("raycls", "cluster", "up", "/root/aws.yaml", "--yes")
    print(f"up after {time.monotonic() - began:.0f} s")
    assert "at most  9 nodes, 8 of them spot, 4 GPUs; 1 of them always" in said
    assert kinds(cloud) == [HEAD]  # no worker without work

    on_head(cloud, ASK, "2")
    waited = until(lambda: kinds(cloud) == [GPU, GPU, HEAD], 300, "two spot instances", cloud)
    print(f"two spot instances after {waited:.0f} s")
    waited = until(lambda: markets(cloud) == ["on-demand", "spot", "spot"], 600, "two spot nodes", cloud)
    print(f"and two nodes of Ray {waited:.0f} s later")

    gone = next(name for name, each in cloud.instances().items() if each["InstanceType"] == GPU[0])
    cloud.client().terminate_instances(InstanceIds=[gone])
    replaced = [GPU, GPU, HEAD]
    waited = until(lambda: kinds(cloud) == replaced and gone not in cloud.instances(), 300, "a replacement", cloud)
    print(f"replaced after {waited:.0f} s")

    on_head(cloud, ASK, "0")
    waited = until(lambda: kinds(cloud) == [HEAD], 600, "no worker any more", cloud)
    print(f"the head alone again after {waited:.0f} s")

    command("raycls", "cluster", "down", "/root/aws.yaml", "--yes")
    until(lambda: not cloud.instances(), 120, "no instance any more", cloud)
