"""A stand-in for the Hugging Face hub, which tests have no network to."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError


class Hub:
    """Stands in for the hub: `owner/name` is a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: list[str] = []
        """The patterns of files that the last download left out."""
        self.revision: str | None = None
        """The revision that was downloaded last."""

    @classmethod
    def put_in_place(cls, root: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
        """Return one that huggingface_hub's calls go to."""
        hub = cls(root)
        monkeypatch.setattr("huggingface_hub.HfApi", lambda **options: hub)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", hub.hf_hub_download)
        monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
        return hub

    def whoami(self) -> dict[str, str]:
        return {"name": "someone"}

    def create_repo(self, repo_id: str, **options: Any) -> None:
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        (self.root / repo_id / ".gitattributes").touch()

    def list_repo_files(self, repo_id: str) -> list[str]:
        place = self.root / repo_id
        return [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]

    def hf_hub_download(self, repo_id: str, name: str, **options: Any) -> str:
        if not (self.root / repo_id).is_dir():
            raise LocalEntryNotFoundError("cannot find the requested files in the disk cache")
        if not (self.root / repo_id / name).is_file():
            raise EntryNotFoundError("404")
        return str(self.root / repo_id / name)

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        self.left_out = options.get("ignore_patterns") or []
        self.revision = options.get("revision")
        return str(self.root / repo_id)

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: Path,
        ignore_patterns: list[str] | None,
        delete_patterns: list[str] | None,
        commit_message: str,
    ) -> SimpleNamespace:
        for name in delete_patterns or ():
            (self.root / repo_id / name).unlink()
        ignored = shutil.ignore_patterns(*(ignore_patterns or ()))
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True, ignore=ignored)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")
