"""Save a model that no process has room for: each process writes some of the hub's files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from basereward.backbones import written_weights
from basereward.backbones.written_weights import FilePlan, WrittenWeights
from basereward.storage.atomic import file_digest, scratch_directory
from basereward.training.distributed import ProcessGroup
from basereward.training.sharded_tensors import full_tensor


@contextmanager
def written_by_all(model: Any, directory: Path, group: ProcessGroup) -> Iterator[WrittenWeights | None]:
    """Write the weights of a sharded transformers model to files beside a directory, and remove them again.

    Each process holds one file's tensors at a time, and writes and digests that file.

    Args:
        model: The transformers model, resharded; None for none.
        directory: The model directory, on a disk that all ranks see.
        group: The process group.

    Yields:
        The weights, to be moved into the directory; None where its tensors can't be written one by one.
    """
    plan = None
    if model is not None:
        plan = group.on_main(lambda: written_weights.plan_files(model, written_weights.MAX_FILE_BYTES))
    if plan is None:
        yield None
        return
    with ExitStack() as stack:
        place = group.on_main(lambda: stack.enter_context(scratch_directory(directory)))
        yield WrittenWeights(model, place, plan, _write(model, place, plan, group))


@torch.no_grad()
def _write(model: Any, place: Path, plan: FilePlan, group: ProcessGroup) -> dict[str, str]:
    """Write all files, a file a rank at a time, and return their digests."""
    tensors: dict[str, Tensor] = model.state_dict()
    digests: dict[str, str] = {}
    paths = [place / file for file in plan.files]
    for first in range(0, len(paths), group.world_size):
        files = paths[first : first + group.world_size]
        content: dict[str, Tensor] = {}
        for writer, path in enumerate(files):
            for name, source in plan.files[path.name].items():
                tensor = tensors[source]
                whole = full_tensor(tensor) if isinstance(tensor, DTensor) else tensor
                if writer == group.rank:
                    content[name] = whole.detach().cpu().contiguous()
                del whole
        for written in group.on_all(partial(_write_file, files[group.rank : group.rank + 1], content)):
            digests |= written
    return digests


def _write_file(paths: Sequence[Path], content: dict[str, Tensor]) -> dict[str, str]:
    """Write this rank's file, if it has one, and return its digest."""
    for path in paths:
        save_file(content, path, metadata={"format": "pt"})
    return {path.name: file_digest(path) for path in paths}
