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
    assert str(error.value) == "runs/mien is no model directory: it has no reward_config.json"
