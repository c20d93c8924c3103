"""What nodes are asked, and what their answers mean. One that sees nothing for real is in tests/e2e/test_submit.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raycls.errors import LaunchError
from raycls.launch import node_checks
from raycls.launch.node_checks import Mark, is_preemptible, marked
from raycls.run.folder import RunFolder
from raycls.run.versions import installed


def test_a_node_sees_the_file_another_one_or_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with marked(folder) as mark:
        found = node_checks._look(mark, str(tmp_path))
        assert (found["unseen"], found["no_data"], found["versions"]) == ("", False, installed())
        other = Mark(str(tmp_path / "elsewhere"), mark.name, mark.digest)
        assert node_checks._look(other, str(tmp_path / "gone"))["unseen"] == "nothing there"
        assert node_checks._look(other, str(tmp_path / "gone"))["no_data"]
        assert node_checks._look(Mark(mark.folder, mark.name, "0" * 64), "")["unseen"] == "another file"
        assert node_checks._look(None, "")["unseen"] == ""
    assert folder.store.list() == []


def answer(host: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "address": "10.0.0.1", "unseen": "", "no_data": False, "secrets": [], "versions": {}, **more}


def test_blind_nodes_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    fine = answer("one")
    node_checks._refuse_blind([fine], folder, "")
    with pytest.raises(LaunchError, match=r"nothing there on two \(10\.0\.0\.1\)") as caught:
        node_checks._refuse_blind([fine, answer("two", unseen="nothing there")], folder, "")
    assert caught.value.where == str(tmp_path)
    with pytest.raises(LaunchError, match="the data is not on every node"):
        node_checks._refuse_blind([answer("two", no_data=True), fine], folder, "/data")
    with pytest.raises(LaunchError, match="not in the environment: A_KEY"):
        node_checks._refuse_blind([answer("two", secrets=["A_KEY"]), fine], folder, "")


SPOT: dict[str, Any] = {"Labels": {"ray.io/market-type": "spot"}, "Resources": {"CPU": 2.0}}
MARKED: dict[str, Any] = {"Labels": {}, "Resources": {node_checks.PREEMPTIBLE: 1.0}}
LASTING: dict[str, Any] = {"Labels": {"ray.io/market-type": "on-demand"}, "Resources": {"CPU": 2.0}}


@pytest.mark.parametrize(
    ("node", "preemptible"),
    [
        (SPOT, True),
        (MARKED, True),
        ({**SPOT, **MARKED}, True),
        (LASTING, False),
        ({"Labels": {"ray.io/node-id": "spot"}, "Resources": {}}, False),
        ({"Labels": {}, "Resources": {node_checks.PREEMPTIBLE: 0.0}}, False),
        ({"Resources": {}}, False),
    ],
)
def test_what_is_preemptible(node: dict[str, Any], preemptible: bool) -> None:
    assert is_preemptible(node) is preemptible


@pytest.mark.parametrize("marked", [SPOT, MARKED])
@pytest.mark.parametrize(
    ("driver", "preemptible", "warned"), [("a", "a", True), ("b", "a", False), ("a", "", False), ("a", "ab", False)]
)
def test_a_driver_on_a_preemptible_node_is_told(
    driver: str, preemptible: str, warned: bool, marked: dict[str, Any]
) -> None:
    alive = [{"NodeID": name, **(marked if name in preemptible else LASTING)} for name in "ab"]
    said: list[str] = []
    node_checks._warn_of_preemption(alive, driver, said.append)
    assert bool(said) is warned
