"""Low-rank adapters in a backbone, by PEFT: trained alone, and merged into its weights in saved models."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from basereward.backbones.quantization import plain_weight
from basereward.config.conversion import did_you_mean
from basereward.config.run import LoraConfig, TrainConfig
from basereward.errors import ConfigError
from basereward.storage.atomic import replace_directory

NAME = "default"
"""What PEFT calls the adapter; the files don't say it."""


class Adapters:
    """The adapters of a backbone, or none.

    Args:
        backbone: Gets the adapters; all else in it is frozen, but for `lora.whole_parts`.
        config: Says which, in `lora`; without it nothing is done here or later.
        base_model: Where the backbone's weights came from, for those who read the adapters alone.

    Raises:
        ConfigError: When PEFT isn't installed, when there is no such part or layer, or when a part that gets
            adapters is frozen.
    """

    def __init__(self, backbone: Any, config: TrainConfig, base_model: str) -> None:
        self._root: Any = None
        if config.lora is None:
            return
        peft_config = _peft_config(config.lora, base_model)
        from peft import inject_adapter_in_model

        layers = _layers(backbone.parts(), config.lora, config.freeze)
        whole = {id(item) for name in config.lora.whole_parts for item in backbone.parts()[name].parameters()}
        for parameter in backbone.parameters():
            if id(parameter) not in whole:
                parameter.requires_grad_(False)
        trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        self._root, names = _root_and_names(backbone, layers)
        peft_config.target_modules = names
        inject_adapter_in_model(peft_config, self._root, adapter_name=NAME)
        for parameter in trained:  # PEFT has frozen whatever isn't its own
            parameter.requires_grad_(True)
        # It has made a set of them, in whose order no two files would agree.
        self._root.peft_config[NAME].target_modules = sorted(names)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Put plain layers, whose weights hold the adapters too, in the places of those with adapters.

        Names of tensors are then those of a model without adapters. After it everything is as it was, bit for
        bit. What it adds up it adds up in fp32, whatever the type of the weights, as all trained weights are.
        """
        swapped: list[tuple[nn.Module, str, nn.Module]] = []
        try:
            if self._root is not None:
                for owner, name, layer in _adapted(self._root):
                    setattr(owner, name, _merged_layer(layer))
                    swapped.append((owner, name, layer))
            yield
        finally:
            for owner, name, layer in reversed(swapped):
                setattr(owner, name, layer)

    def save(self, directory: Path) -> None:
        """Write the adapters in PEFT's own format, at once; an older one there is replaced.

        `PeftModel.from_pretrained` puts them on the bare model that the run started from; the head isn't part
        of it.
        """
        if self._root is None:
            return
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self._root, adapter_name=NAME, save_embedding_layers=False)
        tensors: dict[str, Tensor] = {
            f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in found.items()
        }
        with replace_directory(directory) as place:
            self._root.peft_config[NAME].save_pretrained(place)
            save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})


def _peft_config(lora: LoraConfig, base_model: str) -> Any:
    try:
        from peft import LoraConfig as PeftConfig
    except ImportError as error:
        raise ConfigError(f"[train.lora] needs PEFT ({error}); pip install 'basereward[train]'") from error
    return PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        base_model_name_or_path=base_model,
    )


def _layers(parts: Mapping[str, nn.Module], lora: LoraConfig, frozen: Collection[str]) -> list[nn.Module]:
    """Return the linear layers that get an adapter."""
    for key, names in (("parts", lora.parts), ("whole_parts", lora.whole_parts)):
        for name in names:
            if name not in parts:
                hint = did_you_mean(name, parts) or ";"
                raise ConfigError(
                    f"train.lora.{key}: the backbone has no part {name!r}{hint} parts: {', '.join(parts)}"
                )
            if name in frozen:
                raise ConfigError(f"train.lora.{key}: part {name!r} is in train.freeze, too; take one out")
    for name in lora.whole_parts:
        if name in lora.parts:
            raise ConfigError(f"train.lora.whole_parts: part {name!r} gets adapters; take it out of one list")
    linear = {
        f"{part}.{name}": module
        for part in lora.parts
        for name, module in parts[part].named_modules()
        if isinstance(module, nn.Linear)
    }
    if lora.targets == "all-linear":
        if not linear:
            raise ConfigError(f"train.lora: part {', '.join(lora.parts)} has no linear layer")
        return list(linear.values())
    for target in lora.targets:
        if not any(_ends_in(name, target) for name in linear):
            ends = dict.fromkeys(name.rpartition(".")[2] for name in linear)
            hint = did_you_mean(target, ends) or ";"
            raise ConfigError(
                f"train.lora.targets: no linear layer of {', '.join(lora.parts)} is called {target!r}{hint} "
                f"names: {', '.join(ends)}"
            )
    return [
        module for name, module in linear.items() if any(_ends_in(name, target) for target in lora.targets)
    ]


def _ends_in(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _root_and_names(backbone: nn.Module, layers: list[nn.Module]) -> tuple[nn.Module, list[str]]:
    """Return transformers' own model if it holds all the layers, else the backbone; and their names in it."""
    from transformers import PreTrainedModel

    models = [module for module in backbone.modules() if isinstance(module, PreTrainedModel)]
    wanted = {id(layer) for layer in layers}
    for root in (*models, backbone):
        names = [name for name, module in root.named_modules() if id(module) in wanted]
        if len(names) == len(wanted):
            break
    return root, names


def _adapted(root: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Return the layers with adapters, each with the module that holds it and its name there."""
    from peft.tuners.lora import LoraLayer

    return [
        (owner, name, child)
        for owner in root.modules()
        for name, child in owner.named_children()
        if isinstance(child, LoraLayer)
    ]


@torch.no_grad()
def _merged_layer(layer: Any) -> nn.Linear:
    """Return a plain layer, on the CPU, with the adapters in its weights."""
    from peft.tuners.lora import Linear

    base = layer.get_base_layer()
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(plain_weight(base), requires_grad=False)
    # PEFT merges into what the layer holds; given a copy to merge into, there is nothing to take out again.
    layer.base_layer = plain
    try:
        Linear.merge(layer)
    finally:
        layer.base_layer = base
        layer.merged_adapters.clear()
    plain.weight = nn.Parameter(plain.weight.cpu(), requires_grad=False)
    plain.bias = base.bias
    return plain
