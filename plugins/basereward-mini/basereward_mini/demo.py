"""The demo: real images, a small model of the large ones' shape, and what it has learned, measured."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from basereward import train
from basereward.comparison import Comparison
from basereward.config import Component, load_run
from basereward.evaluation import Evaluation, Interval, evaluate, save_report
from basereward.scoring.reward_model import RewardModel
from basereward_mini import assets, smollm2
from basereward_mini.alignment import save_aligned
from basereward_mini.openmoji import OpenMojiCaptions

RUN_FILE = "demo.toml"
NUM_SHOWN = 2


def run(output: Path) -> dict[str, Any]:
    """Train, evaluate, score, and leave models, plots and `report.json` in `output`; return the report."""
    console = Console()
    start = time.perf_counter()
    console.rule("training on images and their names")
    with as_file(files("basereward_mini") / RUN_FILE) as path:
        config = replace(load_run(path), output=str(output))
    # The first of two stages: the projector alone, which `demo.toml` can't say of itself.
    options = dict(config.backbone.options)
    console.print("reading the decoder's weights")
    smollm2.directory(int(options["num_layers"]))  # converted on the first run only, which is no training
    train_start = time.perf_counter()
    cache = assets.cache_directory() / "mini-vlm"
    aligned = save_aligned(output / "aligned", cache=cache, **options)
    align_seconds = time.perf_counter() - train_start
    backbone = Component("mini-vlm", {**options, "model": str(aligned)})
    config = replace(config, backbone=backbone, cache=str(cache))
    trained = train(config, overwrite=True)
    train_seconds = align_seconds + trained.train_seconds
    console.print(
        f"read images and aligned the projector in {align_seconds:.0f} s, "
        f"trained {trained.num_steps} steps in {trained.train_seconds:.0f} s"
    )

    console.rule("evaluating on images and names that were not trained on")
    model = RewardModel.load(trained.model_dir)
    # Each reads images, whose convolutions are too small to keep several cores at work.
    model.num_workers = torch.get_num_threads()
    unseen = list(OpenMojiCaptions(split="test"))
    held_out = _evaluate(model, unseen)
    control = _evaluate(model, [comparison.without_images() for comparison in unseen])
    same_group = _evaluate(model, list(OpenMojiCaptions(split="test", wrong="same-group")))
    facts = {"model": str(trained.model_dir), "data": "openmoji-captions, split test", **model.computed}
    save_report(held_out, output / "held-out", facts)
    report = {
        "held_out": held_out.accuracy.to_dict(),
        "control": control.accuracy.to_dict(),
        "same_group": same_group.accuracy.to_dict(),
        "longer_caption": held_out.metrics.longer_baseline.to_dict(),
        "top1": held_out.metrics.top1.to_dict(),
        "train_seconds": round(train_seconds, 1),
        "total_seconds": round(time.perf_counter() - start, 1),
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(
        _table(
            {
                "true name or another image's": held_out.accuracy,
                "the same, of the same emoji group": same_group.accuracy,
                "control: the image taken out": control.accuracy,
                "baseline: the longer caption": held_out.metrics.longer_baseline,
            }
        )
    )

    console.rule("scoring images that were not trained on")
    for number, comparison in enumerate(unseen[:NUM_SHOWN], start=1):
        path = output / f"unseen-{number}.png"
        comparison.images[0].open().save(path)
        console.print(_command(trained.model_dir, path, comparison), soft_wrap=True, highlight=False)
        console.print(_scores(comparison, model.score([comparison])[0]))
    console.print(
        f"model: {trained.model_dir}   report: {output / 'report.json'}   plots: {output / 'held-out'}"
    )
    console.print(f"training {report['train_seconds']} s, everything {report['total_seconds']} s")
    return report


def _evaluate(model: RewardModel, comparisons: Sequence[Comparison]) -> Evaluation:
    return evaluate(model, comparisons, batch_size=32, progress=True)


def _table(rows: dict[str, Interval]) -> Table:
    table = Table("unseen images, unseen names", "pair accuracy", "95 % interval", "pairs")
    for name, found in rows.items():
        table.add_row(
            name, f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}", str(found.num_pairs)
        )
    return table


def _command(model_dir: Path, image: Path, comparison: Comparison) -> str:
    prompt = comparison.prompt[0].text
    responses = " ".join(f'--response "{response}"' for response in comparison.responses[:3])
    return f'basereward score {model_dir} --image {image} --prompt "{prompt}" {responses} ...'


def _scores(comparison: Comparison, rewards: Sequence[float]) -> Table:
    table = Table("reward", "caption", "")
    assert comparison.ranks is not None
    ordered = sorted(zip(rewards, comparison.responses, comparison.ranks, strict=True), reverse=True)
    for reward, response, rank in ordered:
        table.add_row(f"{reward:+.2f}", response, "its name" if rank == 0 else "")
    return table
