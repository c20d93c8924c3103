"""What a config names, looked up before any data is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycls.config.load import load_text
from raycls.errors import RayclsError
from raycls.session.data.names import check_names


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("augment.train=['nowhere:thing']", "nowhere:thing"),
        ("augment.eval=['nowhere:thing']", "nowhere:thing"),
        ("augment.batch=['nowhere:thing']", "nowhere:thing"),
        ("task.name='nowhere:thing'", "nowhere:thing"),
    ],
)
def test_each_name_is_looked_up(option: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_names(load_text("", "c.yaml").run)
    with pytest.raises(RayclsError, match=name):
        check_names(load_text("", "c.yaml", [option]).run)
