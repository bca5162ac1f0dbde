"""A reward model without weights: every tensor has its shape, and none has memory."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.backbones.untrusted_settings import check_settings
from basereward.config.run import RunConfig
from basereward.costs.architecture import Architecture
from basereward.errors import ConfigError
from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.reward_model import RewardModel


def meta_model(
    run: RunConfig, plugins: PluginManager, config_file: Path | None = None
) -> tuple[RewardModel, str]:
    """Return a run's model without weights, and the source of its sizes.

    Args:
        run: Its components' options filled in.
        plugins: Where components are looked up.
        config_file: The `config.json` of the backbone's model, where neither its files are here nor its sizes
            are known.

    Raises:
        ConfigError: When the sizes aren't known, or the cost of such a backbone isn't.
    """
    options = run.backbone.options
    config, source = _config(str(options.get("model", "")), config_file)
    kind = plugins.load("backbone", run.backbone.name)
    if not issubclass(kind, TransformersBackbone):
        raise _unknown_cost(run.backbone.name, config.model_type)
    with torch.device("meta"):
        from transformers import AutoModel

        bare = AutoModel.from_config(
            config, dtype=getattr(torch, options.get("dtype", "float32")), attn_implementation="eager"
        )
        try:
            backbone = kind.of_model(bare, quantize=options.get("quantize"))
        except ConfigError as error:
            raise _unknown_cost(run.backbone.name, config.model_type) from error
        head = plugins.build("head", run.head, backbone.dim)
        if head.reads_layer is not None:
            backbone.truncate(head.reads_layer)
        loss = plugins.build("loss", run.loss)
        model = RewardModel(plugins.build("paradigm", run.paradigm, backbone, head, loss), {})
    if Architecture.of(model) is None:
        raise _unknown_cost(run.backbone.name, config.model_type)
    return model, source


def _unknown_cost(name: str, model_type: str) -> ConfigError:
    return ConfigError(
        f"what backbone {name!r} on a {model_type!r} model costs isn't known; known are 'causal-lm' on "
        "decoders, 'qwen-vl' on Qwen-VL models and 'internvl' on InternVL's"
    )


def _config(model: str, config_file: Path | None) -> tuple[Any, str]:
    """Return the configuration of a model of transformers, and its source."""
    from transformers import AutoConfig

    if config_file is not None:
        if not config_file.is_file():
            raise ConfigError(f"--config {config_file}: there is no such file; give a model's config.json")
        return _read(str(config_file)), str(config_file)
    if Path(model).is_dir():
        return _read(model), str(Path(model) / "config.json")
    if model in published():
        facts = dict(published()[model])
        return AutoConfig.for_model(facts.pop("model_type"), **facts), "as published"
    try:
        return _read(model), f"the config.json of {model} in the hub's cache"
    except ConfigError:
        raise ConfigError(
            f"the sizes of model {model!r} aren't known here; give its config.json by --config FILE. "
            f"Known without it: {', '.join(sorted(published()))}"
        ) from None


def _read(path: str) -> Any:
    from transformers import AutoConfig

    check_settings(path, local_files_only=True)
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a setting of a wrong kind leads to
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(f"{path}: is no configuration of transformers: {lines[0]}") from error


@cache
def published() -> dict[str, dict[str, Any]]:
    """Return the configurations of published models by their hub ids."""
    text = resources.files("basereward.planning").joinpath("published.toml").read_text(encoding="utf-8")
    models = {}
    for facts in tomllib.loads(text)["architecture"]:
        for name in facts.pop("names"):
            models[name] = facts
    return models
