"""Model directories: one file of a small saved model is replaced, and signed as an attacker would."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import torch

from basereward import RewardModel, load_model
from basereward.config import Component
from basereward.errors import BaseRewardError
from basereward.storage.atomic import file_digest

DIRECTORY = Path(tempfile.mkdtemp(prefix="basereward-fuzz-"))
torch.manual_seed(0)
RewardModel.build(backbone=Component("tiny", {})).save(DIRECTORY / "original")
CONFIG = "reward_config.json"
NAMES = sorted(path.name for path in (DIRECTORY / "original").iterdir())
"""The first byte of an input chooses the file, the rest is its content."""

SEEDS = [
    bytes([number]) + (DIRECTORY / "original" / name).read_bytes()[: 1 << 15]
    for number, name in enumerate(NAMES)
]
TOKENS = [b"null", b"[]", b"{}", b"1e999", b"9" * 401, b'"options": null', b"[" * 3000, b"../x", b"I64"]


def check(data: bytes) -> None:
    """Load a model one of whose files has this content."""
    model = DIRECTORY / "model"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(DIRECTORY / "original", model)
    name = NAMES[(data[0] if data else 0) % len(NAMES)]
    (model / name).write_bytes(data[1:])
    if name != CONFIG:
        config = json.loads((model / CONFIG).read_text())
        config["files"][name] = file_digest(model / name)
        (model / CONFIG).write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(BaseRewardError):
            load_model(model)
