"""Downloads of repositories from the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
"""The id of a repository on the hub, perhaps with a revision."""


def is_hub_id(name: str) -> bool:
    """Tell whether a name is a repository's: of its form, and no path here, nor below a directory here.

    `runs/mine` is a path where there is a directory `runs`, so that a slip of the pen asks no hub.
    """
    owner, _, rest = name.partition("/")
    return bool(HUB_ID.fullmatch(name) and rest and not Path(name).exists() and not Path(owner).is_dir())


def fetch_hint(name: str | Path) -> str:
    """Return what to type where a directory is needed and the name is a repository's; empty for a path."""
    name = str(name)
    if Path(name).exists() or not HUB_ID.fullmatch(name):
        return ""
    repository, _, revision = name.partition("@")
    owner, _, title = repository.partition("/")
    command = f"hf download {repository} --local-dir {title}{revision and f' --revision {revision}'}"
    if Path(owner).is_dir():
        return f"; it is read as a path, as there is a directory {owner}; from the hub: {command}"
    return f"; fetch it first: {command}"


UNREAD = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.onnx*", "*.gguf")
"""Files of a transformers model that nothing here reads: pickles, and the weights of other tools."""


def snapshot(
    name: str,
    kind: Literal["model", "dataset"],
    *,
    revision: str | None = None,
    needs: str | None = None,
    leave_out: Sequence[str] = (),
) -> Path:
    """Return the directory of a repository's files, downloaded unless they are in the hub's cache.

    Args:
        name: `owner/name` or `owner/name@revision`.
        kind: The kind of the repository.
        revision: A branch, tag or commit; None for that of the name, or the newest.
        needs: A file that is looked for before all others are downloaded.
        leave_out: Patterns of files that aren't downloaded.

    Raises:
        FileNotFoundError: When it has not the file that is needed.
        OSError: When it can't be downloaded.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    repository, _, named = name.partition("@")
    revision = revision or named or None
    try:
        if needs is not None:
            hf_hub_download(repository, needs, repo_type=kind, revision=revision)
        return Path(
            snapshot_download(repository, repo_type=kind, revision=revision, ignore_patterns=list(leave_out))
        )
    except LocalEntryNotFoundError as error:  # without a network; it is an EntryNotFoundError too
        raise OSError(_line(error)) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{name} has no {needs}") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise OSError(_line(error)) from error


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
