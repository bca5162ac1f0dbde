"""The reward model that policies are trained against, and the judge that none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from basereward_mini import human_ratings, smollm2

from basereward import train
from basereward.config import Component, load_run
from basereward.plugins import manager

NAMES = ("reward", "judge")


def trained(name: str, output: Path, *, seed: int | None = None) -> Path:
    """Return the directory of a model, which is trained as `NAME.toml` says unless it is there.

    With a seed other than the file's it is another model, beside that of the file.
    """
    config = load_run(Path(__file__).with_name(f"{name}.toml"))
    place = output / name
    if seed is not None and seed != config.seed:
        config, place = replace(config, seed=seed), output / f"{name}-seed-{seed}"
    directory = place / "model"
    if (directory / "reward_config.json").is_file():
        return directory
    ratings = str(human_ratings.find())
    layer = int(str(config.head.options["layer"]))
    backbone = {**config.backbone.options, "model": str(smollm2.directory(layer))}
    data = replace(
        config.data,
        train=tuple(
            replace(source, options={**source.options, "path": ratings}) for source in config.data.train
        ),
        eval=tuple(
            Component(source.name, {**source.options, "path": ratings}) for source in config.data.eval
        ),
    )
    config = replace(config, output=str(place), backbone=Component(config.backbone.name, backbone), data=data)
    return Path(train(config, overwrite=True, plugins=manager()).model_dir)
