"""Processes and records of metrics, as scripts for TRL call them on a trainer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist

from basereward.errors import ConfigError
from basereward.storage.atomic import write_text
from basereward.storage.reading import read_json, understood


class Processes:
    """This process among those that train together, under the names of `accelerate.Accelerator`."""

    @property
    def process_index(self) -> int:
        """The rank of this process."""
        return int(os.environ.get("RANK", "0"))

    @property
    def num_processes(self) -> int:
        """The number of processes."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def is_main_process(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.process_index == 0

    def print(self, *values: object) -> None:
        """Print in the main process alone."""
        if self.is_main_process:
            print(*values)

    def wait_for_everyone(self) -> None:
        """Wait for the other processes, if there are some."""
        if dist.is_initialized():
            dist.barrier()


def print_metrics(split: str, metrics: Mapping[str, float]) -> None:
    """Print the metrics of a split, one a line."""
    width = max(map(len, metrics), default=0)
    lines = [f"  {name:<{width}} = {value:.6g}" for name, value in sorted(metrics.items())]
    print("\n".join([f"***** {split} metrics *****", *lines]))


def write_metrics(directory: Path, split: str, metrics: Mapping[str, float]) -> None:
    """Write metrics to `SPLIT_results.json`, and add them to `all_results.json`."""
    together = directory / "all_results.json"
    of_all = dict(metrics)
    if together.is_file():
        with understood(together, ConfigError):
            of_all = {**read_json(together), **metrics}
    for path, values in ((directory / f"{split}_results.json", dict(metrics)), (together, of_all)):
        write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")
