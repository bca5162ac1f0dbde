"""Names of the hub's repositories, and paths that look like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from basereward import RewardModel
from basereward.errors import ModelError
from basereward.storage import hub


def test_a_name_below_a_directory_here_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.is_hub_id("owner/name")
    assert hub.is_hub_id("owner/name@main")
    Path("owner").mkdir()
    assert not hub.is_hub_id("owner/name")
    assert not any(map(hub.is_hub_id, ("name", "./owner/name", "/owner/name", "a/b/c")))


def test_a_slip_in_a_path_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", pytest.fail)
    with pytest.raises(ModelError) as error:
        RewardModel.from_pretrained("runs/mien")
    assert str(error.value) == (
        "runs/mien is no model directory: it has no reward_config.json; it is read as a path, as there is a "
        "directory runs; from the hub: hf download runs/mien --local-dir mien"
    )


def test_a_hint_says_what_fetches_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.fetch_hint("owner/name") == "; fetch it first: hf download owner/name --local-dir name"
    assert hub.fetch_hint("owner/name@v2").endswith("hf download owner/name --local-dir name --revision v2")
    assert hub.fetch_hint("name") == hub.fetch_hint(tmp_path / "name") == ""
    Path("owner").mkdir()
    assert "it is read as a path, as there is a directory owner" in hub.fetch_hint("owner/name")
    Path("owner/name").mkdir()
    assert hub.fetch_hint("owner/name") == ""
