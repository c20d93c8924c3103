"""cluster/onprem.yaml on three hosts, as a user does it: `raycls cluster up`, closed to strangers, the doctor and a run
by `raycls submit`, the bits of one process, `raycls cluster down`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import hosts as namespaces
from harness.hosts import Host, Hosts
from harness.jobs import weights
from harness.laptops import ENVIRONMENT, REPOSITORY, TOKEN, make_laptop, make_node, write_token
from harness.processes import raycls

pytestmark = [pytest.mark.hosts, pytest.mark.nightly, pytest.mark.ray, pytest.mark.timeout(1800)]

LAPTOP = 4

ASK = """
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {sys.argv[2]}"} if sys.argv[2] else {})
try:
    print(urllib.request.urlopen(request, timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print(type(error.reason).__name__)
"""

JOIN = """
import ray
try:
    ray.init("10.77.0.11:6379", logging_level="ERROR", log_to_driver=False)
except BaseException as error:
    print("refused", type(error).__name__)
else:
    print("joined")
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if missing := namespaces.missing():
        pytest.skip(missing)
    with namespaces.standing(LAPTOP) as made:
        for number in (1, 2, 3):
            make_node(made[number])
        yield made


def filled_in(hosts: Hosts) -> str:
    """The file with the addresses, the user and, because all hosts share this machine's memory, small stores."""
    text = (REPOSITORY / "cluster" / "onprem.yaml").read_text()
    changes = {f"192.0.2.{9 + number}": hosts[number].address for number in (1, 2, 3)}
    changes |= {"ssh_user: ubuntu": "ssh_user: root", "--disable-usage-stats": "--object-store-memory=200000000"}
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return text


def on(host: Host, *words: str, seconds: float = 420, check: bool = True) -> subprocess.CompletedProcess[str]:
    return host.run(*words, env=ENVIRONMENT, folder=str(REPOSITORY), seconds=seconds, check=check)


def ask(host: Host, url: str, token: str = "") -> str:
    return on(host, "python", "-c", ASK, url, token).stdout.strip()


def until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(2)


def test_a_cluster_of_three_hosts_trains_to_the_bits_of_one_process(hosts: Hosts, tmp_path: Path) -> None:
    laptop, head = make_laptop(hosts, LAPTOP), hosts[1]
    file = "/root/onprem.yaml"
    (laptop.state / "home" / "onprem.yaml").write_text(filled_in(hosts))

    refused = on(laptop, "raycls", "cluster", "up", file, "--yes", check=False)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, "raycls: there is no token for the cluster")
    write_token(laptop, 0o644)
    refused = on(laptop, "raycls", "cluster", "up", file, "--yes", check=False)
    assert refused.returncode == 2
    assert "chmod 600 ~/.ray/auth_token" in refused.stderr
    assert not head.processes()  # nothing was started

    write_token(laptop)
    began = time.monotonic()
    started = on(laptop, "raycls", "cluster", "up", file, "--yes")
    assert "at most  3 nodes" in started.stdout
    until(lambda: "3 local.cluster.node" in head.shell("RAY_AUTH_MODE=token ray status").stdout, 420, "three nodes")
    print(f"up after {time.monotonic() - began:.0f} s")
    for number in (1, 2, 3):
        assert hosts[number].run("stat", "-c", "%a", "/root/.ray/auth_token").stdout == "600\n"
        installed = hosts[number].run("cat", "/root/uv.log").stdout
        assert "-r requirements.lock" in installed

    closed_to_strangers(head, laptop)
    with subprocess.Popen(
        laptop.words("ray", "dashboard", file, env={**ENVIRONMENT, "RAY_AUTH_MODE": "token"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ):
        try:
            until(lambda: ask(laptop, "http://127.0.0.1:8265/api/version") == "401", 120, "the tunnel")
            assert ask(laptop, "http://127.0.0.1:8265/api/version", TOKEN) == "200"
            project = laptop.state / "home" / "work" / "configs"
            project.mkdir(parents=True)
            (project / "digits.yaml").write_text((REPOSITORY / "configs" / "digits.yaml").read_text())
            examine(hosts, laptop)
            train_on_two_hosts(hosts, laptop)
            # every sample once per epoch, by a job that Ray's own command submits
            words = ["ray", "job", "submit", *DASHBOARD, "--", "raycls", "ledger", "/mnt/shared/runs/digits"]
            plain = in_project(laptop, *words, RAY_AUTH_MODE="token")
            assert plain.returncode == 0, plain.stdout + plain.stderr
        finally:
            laptop.kill("8265:localhost:8265")  # its SSH, with which it ends

    with raycls(tmp_path, "train", str(REPOSITORY / "configs" / "digits.yaml"), "scale.workers=0") as command:
        assert command.wait(420) == 0, command.said()
    assert weights(hosts.shared / "runs" / "digits") == weights(tmp_path / "runs" / "digits")

    on(laptop, "raycls", "cluster", "down", file, "--yes")
    for host in (hosts[number] for number in (1, 2, 3, LAPTOP)):
        until(lambda host=host: not host.processes(), 60, f"{host.name} without processes: {host.processes()}")


def closed_to_strangers(head: Host, laptop: Host) -> None:
    """The dashboard is on the head's loopback and asks for the token there too; so does the cluster itself."""
    assert ask(laptop, f"http://{head.address}:8265/api/version", TOKEN) == "ConnectionRefusedError"
    assert ask(head, "http://127.0.0.1:8265/api/version") == "401"
    assert ask(head, "http://127.0.0.1:8265/api/version", "0" * 64) in ("401", "403")
    assert ask(head, "http://127.0.0.1:8265/api/version", TOKEN) == "200"
    stranger = laptop.run("python", "-c", JOIN, env={**ENVIRONMENT, "RAY_AUTH_MODE": "disabled"}, seconds=200)
    assert stranger.stdout.startswith("refused"), stranger.stdout


OPTIONS = ["configs/digits.yaml", "scale.workers=2", "run.storage=/mnt/shared/runs"]
OPTIONS += ["data.source.path=/mnt/shared/digits-images", "train.ledger=ids"]
DASHBOARD = ["--address", "http://127.0.0.1:8265"]


def in_project(laptop: Host, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return laptop.run(*words, env={**ENVIRONMENT, **variables}, folder="/root/work", seconds=600, check=False)


def examine(hosts: Hosts, laptop: Host) -> None:
    """`raycls doctor` sees three nodes that are well, before anything runs there."""
    done = in_project(laptop, "raycls", "submit", *DASHBOARD, "--", "doctor", "--json", *OPTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "raycls_doctor" in line]
    rows = {row["name"]: row for row in json.loads(line)["raycls_doctor"]["rows"]}
    assert sorted(rows["nodes"]["facts"]["nodes"]) == [hosts[number].address for number in (1, 2, 3)]
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    print(verdicts)
    assert verdicts.pop("data") == "warning"  # nobody knows that the folder where the source will write is shared
    assert verdicts.pop("all-reduce") in ("ok", "warning")  # as fast as this machine happens to be
    assert set(verdicts.values()) == {"ok"}, rows
    assert os.listdir(hosts.shared) == []  # nothing of it is left


def train_on_two_hosts(hosts: Hosts, laptop: Host) -> None:
    """`raycls submit`; while the job runs, two hosts have one training worker each."""
    seen: dict[int, int] = {}
    with subprocess.Popen(
        laptop.words("raycls", "submit", *DASHBOARD, "--", "train", *OPTIONS, env=ENVIRONMENT, folder="/root/work"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as job:
        end = time.monotonic() + 420
        while job.poll() is None and len(seen) < 2:
            assert time.monotonic() < end, f"no two workers: {seen}"
            for number in (1, 2, 3):
                count = sum("RayTrainWorker" in line for line in hosts[number].processes())
                seen |= {number: count} if count else {}
            time.sleep(1)
        said, _ = job.communicate(timeout=600)
        assert job.returncode == 0, said
    print(said)
    assert seen == {2: 1, 3: 1}, said
    assert json.loads((hosts.shared / "runs" / "digits" / "plan.json").read_text())["reduction"] == "exact"
