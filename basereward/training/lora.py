"""LoRA: low-rank adapters in a backbone, by PEFT, which saved models have merged into their weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from basereward.backbones.hub_kernels import prepare_peft
from basereward.backbones.quantization import plain_weight
from basereward.config.conversion import did_you_mean
from basereward.config.run import LoraConfig, TrainConfig
from basereward.errors import ConfigError
from basereward.extras import install_command
from basereward.protocols import Backbone
from basereward.storage.atomic import file_names, replace_directory

ADAPTER_FILES = {"adapter_config.json", "adapter_model.safetensors"}
"""All that a directory of adapters holds."""

NAME = "default"
"""PEFT's name of the adapter; it is not in the files."""


class Adapters:
    """The LoRA adapters of a backbone, or none.

    Args:
        backbone: Adapters are added to it; everything else in it is frozen, except for `lora.whole_parts`.
        config: `lora` describes the adapters; without it there are none, and all methods do nothing.
        base_model: The model of the backbone's weights, for readers of the adapter's files.

    Raises:
        ConfigError: When PEFT isn't installed, when there is no such part or layer, or when a part with
            adapters is frozen.
    """

    def __init__(self, backbone: Backbone, config: TrainConfig, base_model: str) -> None:
        self._root: Any = None
        if config.lora is None:
            return
        peft_config = _peft_config(config.lora, base_model)
        from peft import inject_adapter_in_model

        layers = _layers(backbone.parts(), config.lora, config.freeze)
        parts = backbone.parts()
        fully_trained = {id(item) for name in config.lora.whole_parts for item in parts[name].parameters()}
        for parameter in backbone.parameters():
            if id(parameter) not in fully_trained:
                parameter.requires_grad_(False)
        trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        self._root, names = _root_and_names(backbone, layers)
        peft_config.target_modules = names
        inject_adapter_in_model(peft_config, self._root, adapter_name=NAME)
        for parameter in trained:  # PEFT has frozen all parameters but its own
            parameter.requires_grad_(True)
        # PEFT has made a set of the names, whose order would differ from file to file.
        self._root.peft_config[NAME].target_modules = sorted(names)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Replace the layers with adapters by plain layers that have the adapters merged into their weights.

        Tensor names are then those of a model without adapters. Afterwards everything is as it was, bit for
        bit. The weights are merged in fp32, whatever their type.
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
        """Write the adapters in PEFT's format, atomically; older ones in the directory are replaced.

        `PeftModel.from_pretrained` adds them to the base model that the run started from; the head is not
        among them.
        """
        if self._root is None:
            return
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(self._root, adapter_name=NAME, save_embedding_layers=False)
        tensors: dict[str, Tensor] = {
            f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in state.items()
        }
        with replace_directory(directory, foreign_files=_foreign_files) as place:
            self._root.peft_config[NAME].save_pretrained(place)
            save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})


def _foreign_files(directory: Path) -> set[str]:
    names = file_names(directory)
    return set() if names == ADAPTER_FILES else names - ADAPTER_FILES or names


def _peft_config(lora: LoraConfig, base_model: str) -> Any:
    prepare_peft()
    try:
        from peft import LoraConfig as PeftConfig
    except ImportError as error:
        raise ConfigError(f"[train.lora] needs PEFT ({error}); {install_command('train')}") from error
    return PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        base_model_name_or_path=base_model,
    )


def _layers(parts: Mapping[str, nn.Module], lora: LoraConfig, frozen: Collection[str]) -> list[nn.Module]:
    """Return the linear layers to add adapters to."""
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
    """Return the transformers model that contains all the layers, or else the backbone, and their names."""
    from transformers import PreTrainedModel

    models = [module for module in backbone.modules() if isinstance(module, PreTrainedModel)]
    layer_ids = {id(layer) for layer in layers}
    for root in (*models, backbone):
        names = [name for name, module in root.named_modules() if id(module) in layer_ids]
        if len(names) == len(layer_ids):
            break
    return root, names


def _adapted(root: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Return the layers with adapters, each with its parent module and its name there."""
    from peft.tuners.lora import LoraLayer

    return [
        (owner, name, child)
        for owner in root.modules()
        for name, child in owner.named_children()
        if isinstance(child, LoraLayer)
    ]


@torch.no_grad()
def _merged_layer(layer: Any) -> nn.Linear:
    """Return a plain layer, on the CPU, with the adapters merged into its weights."""
    from peft.tuners.lora import Linear

    base = layer.get_base_layer()
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(plain_weight(base), requires_grad=False)
    # PEFT merges in place; with a copy of the weights to merge into, nothing has to be unmerged.
    layer.base_layer = plain
    try:
        Linear.merge(layer)
    finally:
        layer.base_layer = base
        layer.merged_adapters.clear()
    plain.weight = nn.Parameter(plain.weight.cpu(), requires_grad=False)
    plain.bias = base.bias
    return plain
