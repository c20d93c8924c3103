"""Every file in cluster/ is a cluster that could start: Ray takes it, and nothing in it is open or left to chance."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import raycls
from raycls.cluster.files.check import check, dashboard_host
from raycls.cluster.files.read import MARKET, ClusterFile
from raycls.cluster.files.up import plan_lines

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster"
FILES = sorted(FOLDER.glob("*.yaml"))
KUBERNETES = sorted((FOLDER / "kuberay").glob("*.yaml"))
INSTALLED = [file for file in FILES if file.stem != "local-autoscaling"]
"""The files whose nodes are bare machines."""
CLOUDS = ("aws", "azure", "gcp")


@pytest.fixture(scope="module")
def checked() -> dict[str, ClusterFile]:
    """Every file, through Ray's own check and raycls's."""
    return {file.stem: check(file) for file in FILES}


def test_the_promised_files_are_there(checked: dict[str, ClusterFile]) -> None:
    assert set(checked) == {*CLOUDS, "onprem", "local-autoscaling"}
    assert [file.name for file in KUBERNETES] == ["raycluster.yaml", "rayjob.yaml"]


@pytest.mark.parametrize("file", [*FILES, *KUBERNETES], ids=lambda file: file.stem)
def test_header_says_what_before_command_and_open(file: Path) -> None:
    lines = file.read_text().splitlines()
    header = lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))]
    words = [line[2:].split(":")[0] for line in header if line[2:3] != " "]
    assert words[:4] == ["What", "Before", "Command", "Open"]
    assert any(f"cluster/{file.relative_to(FOLDER)}" in line for line in header)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("file", INSTALLED, ids=lambda file: file.stem)
def test_what_all_share_is_the_same_in_each(file: Path) -> None:
    keys = ("file_mounts", "rsync_exclude", "head_start_ray_commands")
    reference, values = (yaml.safe_load(each.read_text()) for each in (FOLDER / "onprem.yaml", file))
    assert {key: values[key] for key in keys} == {key: reference[key] for key in keys}
    starts = list(reference["worker_start_ray_commands"])
    if file.stem in CLOUDS:  # whose spot machines have a notice
        starts.append(f"RAY_AUTH_MODE=token python -m raycls.cluster.notices {file.stem} $RAY_HEAD_IP:6379")
    assert values["worker_start_ray_commands"] == starts
    assert values["setup_commands"][0] == "bash ~/raycls/cluster/setup.sh"
    for local in values["file_mounts"].values():
        assert local == "~/.ray/auth_token" or (ROOT / local).exists()


def test_ray_adds_no_install_of_its_own(checked: dict[str, ClusterFile]) -> None:
    """Ray's defaults install a development wheel. What a node runs is what the file says."""
    for name in CLOUDS:
        text = json.dumps(checked[name].resolved)
        for word in ("ray-wheels", "3.0.0.dev0", ".whl", "conda", "boto3"):
            assert word not in text, (name, word)
    defaults = subprocess.run(
        [sys.executable, "-c", "import ray.autoscaler as a; print(a.__path__[0])"], capture_output=True, text=True
    ).stdout.strip()
    assert "3.0.0.dev0" in Path(defaults, "aws", "defaults.yaml").read_text()  # so the test above can fail


def test_versions_stand_in_the_lock_alone() -> None:
    """Only the image and the Kubernetes files name a version of Ray, and it is that of the lock."""
    lock = (ROOT / "requirements.lock").read_text()
    ray = re.search(r"^ray==(\S+)", lock, re.M)
    assert ray is not None
    constraints = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"]
    assert f"ray=={ray[1]}" in constraints
    for file in [*FILES, FOLDER / "setup.sh", FOLDER / "mount.sh"]:
        assert not re.search(r"\b(ray|torch)==", file.read_text()), file
    assert f"FROM rayproject/ray:{ray[1]}-py311\n" in (FOLDER / "kuberay" / "Dockerfile").read_text()
    for file in KUBERNETES:
        assert f'rayVersion: "{ray[1]}"' in file.read_text()
    commands = [line for line in (FOLDER / "setup.sh").read_text().splitlines() if not line.startswith("#")]
    for line in [line for line in commands if " install " in line]:
        assert "requirements.lock" in line or "--no-deps ." in line or '"uv==' in line


def test_the_version_of_raycls_is_that_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert raycls.__version__ == version
    texts = [(FOLDER / "kuberay" / "Dockerfile").read_text(), *(file.read_text() for file in KUBERNETES)]
    tags = [tag for text in texts for tag in re.findall(r"/raycls:(\S+)", text)]
    assert tags == [version] * 8
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changes, re.M)[0] == version


def test_packages_of_a_cloud_are_pinned_once_and_installed_by_the_uv_that_is_there() -> None:
    """setup.sh leaves a uv where it finds one, and installs its own below ~/.local otherwise."""
    assert 'export PATH="$HOME/.local/bin:$PATH"' in (FOLDER / "setup.sh").read_text()
    for name in ("azure", "gcp"):
        text = (FOLDER / f"{name}.yaml").read_text()
        (command,) = yaml.safe_load(text)["head_setup_commands"]
        assert command.startswith("PATH=~/.local/bin:$PATH uv pip install --quiet --python ~/raycls/.venv -c ")
        for pin in re.findall(r"\S+==\S+", command):
            assert text.count(pin.partition("==")[0] + "==") == 1, pin


def test_spot_machines_of_google_leave_nothing_behind_and_have_disks_they_take(checked: dict[str, ClusterFile]) -> None:
    values = checked["gcp"].values
    for kind in values["available_node_types"].values():
        (disk,) = kind["node_config"]["disks"]
        zone = values["provider"]["availability_zone"]
        assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"
        assert disk["autoDelete"] is True
        scheduling = kind["node_config"].get("scheduling")
        if kind["labels"][MARKET] == "spot":
            assert scheduling["provisioningModel"] == "SPOT"
            assert scheduling["instanceTerminationAction"] == "DELETE"
        else:
            assert scheduling is None


def test_clouds_have_an_on_demand_head_and_spot_workers_from_zero(checked: dict[str, ClusterFile]) -> None:
    for name in CLOUDS:
        head, *workers = checked[name].nodes
        assert (head.spot, head.labels[MARKET], head.resources) == (False, "on-demand", {"CPU": 0})
        assert [(node.name, node.min_count, node.spot, node.labels[MARKET]) for node in workers] == [
            ("gpu", 0, True, "spot"),
            ("decode", 0, True, "spot"),
        ]
        assert workers[0].resources["GPU"] == 1
        assert "GPU" not in workers[1].resources


def test_dashboards_listen_to_their_own_machine(checked: dict[str, ClusterFile]) -> None:
    assert {dashboard_host(file) for file in checked.values()} == {"127.0.0.1"}


def test_the_plan_of_aws(checked: dict[str, ClusterFile]) -> None:
    assert plan_lines(checked["aws"]) == [
        "cluster  raycls-aws (aws, us-west-2)",
        "head     1 x m7i.xlarge, on-demand",
        "gpu      0 to 4 x g6.4xlarge, 16 CPU, 1 GPU each, spot",
        "decode   0 to 4 x c7i.4xlarge, 16 CPU each, spot",
        "at most  9 nodes, 8 of them spot, 4 GPUs; 1 of them always",
        "idle     a worker that had no work for 5 minutes is given back",
        "token    asked for by every port of Ray; goes to every node",
        "open     SSH to the world, by key; Ray's ports between the nodes; the dashboard on the head's loopback "
        "(ray dashboard)",
    ]


def test_nodes_of_aws_are_what_its_service_takes(checked: dict[str, ClusterFile]) -> None:
    """botocore's own description of RunInstances: names and kinds of everything in node_config."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    assert shape is not None
    for kind in checked["aws"].values["available_node_types"].values():
        request = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        assert not ParamValidator().validate(request, shape).has_errors()
        wrong = ParamValidator().validate({**request, "InstanceTyp": "m7i.large"}, shape)
        assert wrong.has_errors()


def schemas() -> Path | None:
    """The folder with KubeRay's CustomResourceDefinitions: `KUBERAY_CRDS`, or shared/data/ beside the repository."""
    named = os.environ.get("KUBERAY_CRDS")
    beside = [Path(named)] if named else [up / "shared" / "data" / "kuberay-crds" for up in ROOT.parents]
    return next((folder for folder in beside if (folder / "ray.io_rayclusters.yaml").is_file()), None)


def strict(schema: Any) -> Any:
    """The schema, refusing fields that it does not describe, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: strict(value) for key, value in schema.items()}
    closed = isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        inner["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        inner.pop("type", None)
    return inner


def check_kubernetes(manifest: dict[str, Any], folder: Path) -> None:
    definition = yaml.safe_load((folder / f"ray.io_{manifest['kind'].lower()}s.yaml").read_text())
    version = next(
        each for each in definition["spec"]["versions"] if f"ray.io/{each['name']}" == manifest["apiVersion"]
    )
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    jsonschema.Draft7Validator(schema).validate(manifest)


@pytest.fixture(scope="module")
def definitions() -> Path:
    found = schemas()
    if found is None:
        pytest.skip("KUBERAY_CRDS names no folder with ray.io_rayclusters.yaml and ray.io_rayjobs.yaml of KubeRay")
    return found


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda file: file.stem)
def test_kubernetes_files_are_what_kuberay_takes(file: Path, definitions: Path) -> None:
    check_kubernetes(yaml.safe_load(file.read_text()), definitions)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("enableInTreeAutoscaling:", "enableInTreeAutoscalin:"),
        ("maxReplicas: 4", "maxReplicas: four"),
        ("mode: token", "mode: tokens"),
        ("mountPath: /dev/shm", "mountPaht: /dev/shm"),
    ],
)
def test_a_wrong_kubernetes_file_is_refused(before: str, after: str, definitions: Path) -> None:
    text = (FOLDER / "kuberay" / "raycluster.yaml").read_text()
    assert before in text
    with pytest.raises(jsonschema.ValidationError):
        check_kubernetes(yaml.safe_load(text.replace(before, after)), definitions)


def test_kubernetes_clusters_have_a_token_and_no_outside_address() -> None:
    job, cluster = (
        yaml.safe_load((FOLDER / "kuberay" / name).read_text()) for name in ("rayjob.yaml", "raycluster.yaml")
    )
    for spec in (job["spec"]["rayClusterSpec"], cluster["spec"]):
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert [group["labels"][MARKET] for group in spec["workerGroupSpecs"]] == ["spot", "spot"]
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    assert [group["minReplicas"] for group in cluster["spec"]["workerGroupSpecs"]] == [0, 0]
    # Kueue: a suspended job in a queue, whose size it can count
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "raycls"}
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "enableInTreeAutoscaling" not in job["spec"]["rayClusterSpec"]
