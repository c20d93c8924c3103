"""A wrong cluster file gives located messages, all of them at once, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycls.cluster.files.check import check, dashboard_host
from raycls.cluster.files.read import read
from raycls.cluster.files.up import plan_lines
from raycls.config.errors import ConfigProblemsError, Problem
from raycls.errors import ConfigError

TEXT = """\
cluster_name: pets
provider:
  type: aws
  region: us-west-2
max_workers: 8
head_node_type: head
available_node_types:
  head:
    resources: {CPU: 0}
    node_config: {InstanceType: m7i.large}
  gpu:
    min_workers: 1
    max_workers: 4
    resources: {CPU: 16, GPU: 2}
    labels: {ray.io/market-type: spot}
    node_config: {InstanceType: g6.12xlarge, InstanceMarketOptions: {MarketType: spot}}
  cpu:
    max_workers: 6
    resources: {CPU: 8}
    node_config: {InstanceType: c7i.2xlarge}
file_mounts:
  ~/.ray/auth_token: ~/.ray/auth_token
setup_commands:
  - pip install -r requirements.lock
head_setup_commands: []
head_start_ray_commands:
  - ray stop
  - RAY_AUTH_MODE=token ray start --head --dashboard-host=127.0.0.1
worker_start_ray_commands:
  - RAY_AUTH_MODE=token ray start --address=$RAY_HEAD_IP:6379
"""

LOCAL = """\
cluster_name: pets
provider:
  type: local
  head_ip: 10.0.0.1
  worker_ips: [10.0.0.2, 10.0.0.3]
auth: {ssh_user: ubuntu}
file_mounts: {~/.ray/auth_token: ~/.ray/auth_token}
setup_commands: []
head_start_ray_commands:
  - RAY_AUTH_MODE=token ray start --head
worker_start_ray_commands:
  - RAY_AUTH_MODE=token ray start --address=$RAY_HEAD_IP:6379
"""


def problems(folder: Path, text: str) -> tuple[Problem, ...]:
    path = folder / "pets.yaml"
    path.write_text(text)
    with pytest.raises(ConfigProblemsError) as caught:
        check(path)
    assert caught.value.exit_code == 2
    assert all(problem.place.file == str(path) for problem in caught.value.problems)
    return caught.value.problems


def test_a_right_file_and_its_plan(tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text(TEXT)
    file = check(tmp_path / "pets.yaml")
    assert plan_lines(file)[1:5] == [
        "head     1 x m7i.large",
        "gpu      1 to 4 x g6.12xlarge, 16 CPU, 2 GPU each, spot",
        "cpu      0 to 6 x c7i.2xlarge, 8 CPU each",
        "at most  9 nodes, 4 of them spot, 8 GPUs; 2 of them always",  # 4 + 6 workers, of which 8 at a time
    ]


def test_a_cluster_that_is_not_told_how_far_it_may_grow(tmp_path: Path) -> None:
    """A run finds out that it grows, and not whether GPUs may come or what is too much: it is said before it starts."""
    (tmp_path / "pets.yaml").write_text(TEXT)
    (warning,) = [line for line in plan_lines(check(tmp_path / "pets.yaml")) if line.startswith("warning")]
    assert "not told how far it may grow" in warning
    assert "head_start_ray_commands with python -m raycls.cluster.growth FILE" in warning
    line = (
        "--dashboard-host=127.0.0.1\n"
        "  - RAY_AUTH_MODE=token python -m raycls.cluster.growth ~/ray_bootstrap_config.yaml"
    )
    (tmp_path / "told.yaml").write_text(TEXT.replace("--dashboard-host=127.0.0.1", line))
    (tmp_path / "own.yaml").write_text(LOCAL)
    for name in ("told", "own"):  # machines of one's own do not grow
        assert not [line for line in plan_lines(check(tmp_path / f"{name}.yaml")) if "warning" in line]


def test_a_right_file_of_machines_and_its_plan(tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text(LOCAL)
    assert plan_lines(check(tmp_path / "pets.yaml"))[:4] == [
        "cluster  pets (local, 10.0.0.1)",
        "head     1 x 10.0.0.1",
        "workers  2 x machines of your own",
        "at most  3 nodes",
    ]


HEAD = "available_node_types.head"
GPU = "available_node_types.gpu"
DASHBOARD = "the dashboard, which runs the jobs that it is sent, would be open to the network without a token"
NO_TOKEN = "Ray would start without token authentication"


@pytest.mark.parametrize(
    ("before", "after", "line", "path", "what", "hint"),
    [
        # typos and wrong kinds, by Ray's schema
        ("max_workers: 8", "max_worker: 8", 5, "max_worker", "no such key", "did you mean max_workers?"),
        (
            "    max_workers: 4",
            "    max_wrokers: 4",
            13,
            f"{GPU}.max_wrokers",
            "no such key",
            "did you mean max_workers?",
        ),
        ("  region:", "  regoin:", 4, "provider.regoin", "no such key", "did you mean region?"),
        ("type: aws", "type: asw", 3, "provider.type", "no such provider", "did you mean aws?"),
        ("cluster_name: pets\n", "", None, "cluster_name", "this key is missing", "give the cluster a name"),
        ("    resources: {CPU: 8}\n", "", 17, "available_node_types.cpu.resources", "this key is missing", "say what"),
        ("  region: us-west-2\n", "", 2, "provider.region", "this key is missing", "the provider aws needs it"),
        ("GPU: 2", "GPU: 0.5", 14, f"{GPU}.resources.GPU", "a value of another kind is wanted here", "an integer"),
        ("GPU: 2", "GPU: -1", 14, f"{GPU}.resources.GPU", "the number is too small", "0 or more"),
        ("max_workers: 8", "max_workers: many", 5, "max_workers", "a value of another kind is wanted here", "'many'"),
        ("max_workers: 8", "max_workers: -8", 5, "max_workers", "the number is too small", "0 or more"),
        # YAML itself
        (
            "cluster_name: pets",
            "cluster_name: pets\ncluster_name: cats",
            2,
            "cluster_name",
            "the key is written twice",
            "",
        ),
        (
            "cluster_name: pets",
            "cluster_name: no",
            1,
            "cluster_name",
            "a value of another kind is wanted here",
            "False",
        ),
        ("  type: aws", "\ttype: aws", 3, "", "not valid YAML: a tab stands where spaces belong", "indent"),
        # numbers
        (
            "min_workers: 1",
            "min_workers: 5",
            12,
            f"{GPU}.min_workers",
            "min_workers is above max_workers",
            "0 to 4",
        ),
        ("min_workers: 1", "min_workers: -1", 12, f"{GPU}.min_workers", "the number is too small", "0 or more"),
        (
            "max_workers: 8",
            "max_workers: 0",
            5,
            "max_workers",
            "the node types want more nodes than there may be",
            "1 or more",
        ),
        (
            "max_workers: 8\n",
            "",
            None,
            "max_workers",
            "this key is missing, and Ray would take a number",
            "say how many",
        ),
        (
            "head_node_type: head",
            "head_node_type: haed",
            6,
            "head_node_type",
            "no such node type",
            "did you mean head?",
        ),
        ("head_node_type: head\n", "", None, "head_node_type", "no such node type", "head, gpu, cpu"),
        # safety
        (
            "  ~/.ray/auth_token: ~/.ray/auth_token",
            "  ~/a: a",
            21,
            "file_mounts",
            "no token: anyone who reaches",
            "add the line",
        ),
        (
            "RAY_AUTH_MODE=token ray start --head",
            "ray start --head",
            28,
            "head_start_ray_commands[1]",
            NO_TOKEN,
            "write RAY",
        ),
        (
            "RAY_AUTH_MODE=token ray start --a",
            "ray start --a",
            30,
            "worker_start_ray_commands[0]",
            NO_TOKEN,
            "write RAY",
        ),
        (
            "RAY_AUTH_MODE=token ray start --a",
            "RAY_AUTH_MODE=disabled ray start --a",
            30,
            "worker_start",
            NO_TOKEN,
            "write",
        ),
        # machines that are taken back
        (
            "    labels: {ray.io/market-type: spot}\n",
            "",
            11,
            GPU,
            "a machine that its owner may take back does not",
            "add labels",
        ),
        (
            "{InstanceType: g6.12xlarge, InstanceMarketOptions: {MarketType: spot}}",
            "{}",
            15,
            GPU,
            "the label says spot",
            "on-d",
        ),
        (
            "{InstanceType: m7i.large}",
            "{InstanceMarketOptions: {MarketType: spot}}",
            10,
            HEAD,
            "the head would be a",
            "use an",
        ),
    ],
)
def test_a_problem_has_its_line_its_path_and_its_remedy(
    tmp_path: Path, before: str, after: str, line: int | None, path: str, what: str, hint: str
) -> None:
    assert TEXT.count(before) >= 1
    text = TEXT.replace(before, after, 1)
    (problem,) = problems(tmp_path, text)
    assert (problem.place.line, problem.path[: len(path)]) == (line, path), str(problem)
    assert problem.what.startswith(what), str(problem)
    assert hint in str(problem)


def test_an_open_dashboard(tmp_path: Path) -> None:
    text = TEXT.replace(
        "RAY_AUTH_MODE=token ray start --head --dashboard-host=127.0.0.1", "ray start --head --dashboard-host=0.0.0.0"
    )
    found = problems(tmp_path, text)
    assert [(each.place.line, each.what) for each in found] == [(28, NO_TOKEN), (28, DASHBOARD)]
    assert "--dashboard-host=127.0.0.1" in str(found[1])


def test_ray_s_own_commands_are_refused_where_the_file_has_none(tmp_path: Path) -> None:
    """They install a development wheel, and start a dashboard for everybody without a token."""
    text = TEXT[: TEXT.index("setup_commands:")]
    found = {each.path: each for each in problems(tmp_path, text)}
    assert found.keys() == {
        "setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
    }
    assert "3.0.0.dev0" in str(found["setup_commands"])


def test_ports_that_a_security_group_opens(tmp_path: Path) -> None:
    rules = """\
  security_group:
    IpPermissions:
      - {FromPort: 22, ToPort: 22, IpProtocol: tcp, IpRanges: [{CidrIp: 0.0.0.0/0}]}
      - {FromPort: 6379, ToPort: 6379, IpProtocol: tcp, IpRanges: [{CidrIp: 0.0.0.0/0}]}
      - {FromPort: 0, ToPort: 65535, IpProtocol: tcp, Ipv6Ranges: [{CidrIpv6: "::/0"}]}
      - {FromPort: 8265, ToPort: 8265, IpProtocol: tcp, IpRanges: [{CidrIp: 10.0.0.0/8}]}
"""
    found = problems(tmp_path, TEXT.replace("  region: us-west-2\n", f"  region: us-west-2\n{rules}"))
    assert [(each.place.line, each.path) for each in found] == [
        (8, "provider.security_group.IpPermissions[1]"),
        (9, "provider.security_group.IpPermissions[2]"),
    ]
    assert "ports 6379 to 6379 from 0.0.0.0/0" in str(found[0])


def test_values_are_what_ray_reads(tmp_path: Path) -> None:
    """`ray up` reads YAML 1.1, where 016 has eight times one and six."""
    (tmp_path / "pets.yaml").write_text(TEXT.replace("CPU: 16", "CPU: 016"))
    file = check(tmp_path / "pets.yaml")
    assert {node.name: node.resources.get("CPU") for node in file.nodes} == {"head": 0, "gpu": 14, "cpu": 8}


@pytest.mark.parametrize(
    ("before", "after", "line", "path", "what"),
    [
        ("  head_ip: 10.0.0.1\n", "", 2, "provider.head_ip", "this key is missing"),
        ("auth: {ssh_user: ubuntu}\n", "", None, "auth.ssh_user", "this key is missing"),
        ("worker_ips:", "workers_ip:", 5, "provider.workers_ip", "no such key"),
        ("10.0.0.3]", "10.0.0.2]", 5, "provider.worker_ips[1]", "the address is written twice"),
        ("10.0.0.3]", "10.0.0.1]", 5, "provider.worker_ips[1]", "the head is no worker too"),
        (
            "cluster_name: pets",
            "max_workers: 3\ncluster_name: pets",
            1,
            "max_workers",
            "more workers than there are machines",
        ),
        ("auth:", "head_node_type: head\nauth:", 6, "head_node_type", "machines of one's own have no node types"),
    ],
)
def test_problems_in_machines_of_one_s_own(
    tmp_path: Path, before: str, after: str, line: int | None, path: str, what: str
) -> None:
    assert before in LOCAL
    found = problems(tmp_path, LOCAL.replace(before, after))
    assert (found[0].place.line, found[0].path, found[0].what) == (line, path, what)


def test_all_problems_come_at_once_in_the_order_of_the_text(tmp_path: Path) -> None:
    text = TEXT.replace("max_workers: 8", "max_worker: 8").replace("GPU: 2", "GPU: 0.5").replace("region:", "Region:")
    found = problems(tmp_path, text)
    assert [(each.place.line, each.path) for each in found] == [(5, "max_worker"), (14, f"{GPU}.resources.GPU")]
    only_ours = TEXT.replace("  ~/.ray/auth_token: ~/.ray/auth_token", "  ~/a: a").replace("RAY_AUTH_MODE=token ", "")
    assert [each.place.line for each in problems(tmp_path, only_ours)] == [21, 28, 30]


def test_a_file_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "cats.yaml").write_text(TEXT)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "pets.yaml")
    assert caught.value.valid == str(tmp_path / "cats.yaml")


def test_a_file_of_kubernetes_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("apiVersion: ray.io/v1\nkind: RayCluster\n")
    with pytest.raises(ConfigError, match="this is a file of Kubernetes") as caught:
        read(tmp_path / "pets.yaml")
    assert caught.value.fix == f"kubectl apply -f {tmp_path / 'pets.yaml'}"


@pytest.mark.parametrize(
    ("words", "host"),
    [
        ("--dashboard-host=127.0.0.1", "127.0.0.1"),
        ("--dashboard-host 0.0.0.0", "0.0.0.0"),
        ("--dashboard-host='::'", "::"),
        ("", "127.0.0.1"),
    ],
)
def test_where_the_dashboard_listens(tmp_path: Path, words: str, host: str) -> None:
    (tmp_path / "pets.yaml").write_text(TEXT.replace("--dashboard-host=127.0.0.1", words))
    assert dashboard_host(read(tmp_path / "pets.yaml")) == host
