"""Models by directory or hub name: `from_pretrained`, `save_pretrained` and `push_to_hub`."""

from __future__ import annotations

import abc
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from basereward.errors import ConfigError, ModelError
from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.model_card import model_card
from basereward.storage import model_directory
from basereward.storage.atomic import file_digest, write_text
from basereward.storage.hub import is_hub_id, snapshot
from basereward.storage.reading import read_json


class Pretrained(abc.ABC):
    """The calls of transformers and huggingface_hub, of what is saved as a directory."""

    @classmethod
    @abc.abstractmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "auto",
        precision: str | None = None,
        plugins: PluginManager | None = None,
        verify: bool = True,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Load a directory, strictly."""

    @abc.abstractmethod
    def save(self, directory: str | Path, **record: Any) -> None:
        """Write the directory, with facts to add to its record."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        precision: str | None = None,
        plugins: PluginManager | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Load a directory, or a repository of the hub, as strictly as `load`.

        Args:
            name: A directory; or `owner/name` or `owner/name@revision` of the hub, where there is none.
            revision: A branch, tag or commit of the hub's.
            device: As of `load`.
            precision: As of `load`.
            plugins: As of `load`.
            backbone_options: As of `load`.

        Raises:
            ModelError: When there is no such model, or naming the file or tensor that is at fault.
        """
        return cls.load(
            directory_of(name, revision),
            device=device,
            precision=precision,
            plugins=plugins,
            backbone_options=backbone_options,
        )

    def save_pretrained(self, directory: str | Path, *, license: str | None = None, **record: Any) -> None:
        """Write the directory, as `save` does, with a model card.

        Args:
            directory: Where to.
            license: The model's licence in the card, as the hub writes it: `apache-2.0`.
            record: Facts to add to the directory's record.
        """
        self.save(directory, **({"license": license} if license else {}), **record)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a reward model",
    ) -> str:
        """Upload the directory to the hub with a model card, and return the commit's address.

        Of an older model there, files that the new one lacks are removed, and its card is replaced unless
        somebody has edited it.

        Args:
            repo_id: `owner/name`; made if there is no such repository.
            license: The model's licence in the card, as the hub writes it: `apache-2.0`.
            private: Whether a new repository is private; None for the owner's default.
            token: The hub's token; None for that of `hf auth login`.
            commit_message: Describes the commit.

        Raises:
            ConfigError: When the repository holds files that BaseReward has not written, and that would keep
                the model from loading.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="basereward-") as place:
            directory = Path(place, "model")
            self.save_pretrained(directory, license=license)
            _write_card(directory, repo_id)
            new = model_directory.names_of(directory)
            present = set(api.list_repo_files(repo_id))
            older, has_edited_card = _older_files(api, repo_id, present)
            foreign = sorted(name for name in present - older - new if not model_directory.is_harmless(name))
            if foreign:
                raise ConfigError(
                    f"{repo_id} has files that BaseReward has not written ({', '.join(foreign[:3])}), with "
                    "which the model would not load; name another repository, or delete them"
                )
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=directory,
                commit_message=commit_message,
                ignore_patterns=[model_directory.CARD_FILE] if has_edited_card else None,
                delete_patterns=sorted(older - new) or None,
            )
        return str(commit.commit_url)


def directory_of(name: str | Path, revision: str | None = None) -> Path:
    """Return the directory of a model: a path, or where there is none, the download of a hub's repository.

    Raises:
        ModelError: When it can't be downloaded, or is no model of BaseReward.
    """
    path = Path(name)
    if not isinstance(name, str) or not is_hub_id(name):
        return path
    try:
        return snapshot(name, "model", revision=revision, needs=model_directory.CONFIG_FILE)
    except FileNotFoundError as error:
        raise ModelError(
            f"{name} is no model of BaseReward: it has no {model_directory.CONFIG_FILE}; make one of it by "
            f'RewardModel.build(BACKBONE, model="{name}"), or import its reward head by basereward import'
        ) from error
    except OSError as error:
        raise ModelError(f"{name} is no directory, and can't be downloaded from the hub: {error}") from error


def _write_card(directory: Path, repo_id: str) -> None:
    """Write the card again with the model's name on the hub, and its digest."""
    path = directory / model_directory.CONFIG_FILE
    config = read_json(path)
    write_text(directory / model_directory.CARD_FILE, model_card(config, name=repo_id))
    model_directory.write_facts(path, {**config, "card": file_digest(directory / model_directory.CARD_FILE)})


def _older_files(api: Any, repo_id: str, present: set[str]) -> tuple[set[str], bool]:
    """Return the files of the model that the repository has, and whether somebody has edited its card."""
    has_card = model_directory.CARD_FILE in present
    if model_directory.CONFIG_FILE not in present:
        return set(), has_card
    config = read_json(Path(api.hf_hub_download(repo_id, model_directory.CONFIG_FILE)))
    files = config.get("files") if isinstance(config, dict) else None
    older = {model_directory.CONFIG_FILE, *(files if isinstance(files, dict) else ())}
    if not has_card:
        return older, False
    card = file_digest(Path(api.hf_hub_download(repo_id, model_directory.CARD_FILE)))
    return older, card != config.get("card")
