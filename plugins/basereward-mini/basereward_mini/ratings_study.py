"""A text reward model on real human ratings, held against how well the raters agree with each other."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from basereward import train
from basereward.config import Component, RunConfig, load_run
from basereward.evaluation import evaluate, save_report
from basereward.scoring.reward_model import RewardModel
from basereward_mini import human_ratings, smollm2
from basereward_mini.human_ratings import GAPS, HumanRatings

RUN_FILE = "human-ratings.toml"


def run_config(output: Path, sdist: Path) -> RunConfig:
    """Return the training's run, with the places that no file can know: of the decoder and of the texts."""
    with as_file(files("basereward_mini") / RUN_FILE) as run_file:
        config = load_run(run_file)
    model = str(smollm2.directory(config.head.options["layer"]))  # converted into a cache
    data = tuple(
        replace(source, options={**source.options, "path": str(sdist)}) for source in config.data.train
    )
    return replace(
        config,
        output=str(output),
        backbone=Component(config.backbone.name, {**config.backbone.options, "model": model}),
        data=replace(config.data, train=data),
    )


def run(output: Path, path: str | None = None) -> dict[str, Any]:
    """Train, evaluate, print and write `report.json`; return the report."""
    console = Console()
    sdist = human_ratings.find(path)
    config = run_config(output, sdist)
    trained = train(config, overwrite=True)
    unseen = HumanRatings(str(sdist), split="test")
    evaluation = evaluate(RewardModel.load(trained.model_dir), list(unseen), gaps=GAPS, progress=True)
    save_report(evaluation, output / "held-out", {"model": str(trained.model_dir)})
    ceiling = human_ratings.human_ceiling(unseen.texts)
    report = {
        "by_gap": {str(gap): found.to_dict() for gap, found in evaluation.metrics.by_gap.items()},
        "human_ceiling": {str(gap): value for gap, value in ceiling.items()},
        "train_seconds": round(trained.train_seconds, 1),
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    table = Table(
        "gap of the mean ratings", "pair accuracy", "95 % interval", "pairs", "one rater v. the others"
    )
    for gap, found in evaluation.metrics.by_gap.items():
        interval = f"{found.low:.3f} to {found.high:.3f}"
        table.add_row(
            f">= {gap}", f"{found.value:.3f}", interval, str(found.num_pairs), f"{ceiling[gap]:.3f}"
        )
    console.print(table)
    return report
