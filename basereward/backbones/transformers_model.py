"""Loading and running transformers models strictly: no random tensor, no remote code, no pickle."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from basereward.backbones import quantization
from basereward.backbones.base import Limit
from basereward.backbones.chat_template import Chat
from basereward.backbones.feature_cache import key_of
from basereward.backbones.last_layer import LastLayer, can_prune
from basereward.backbones.lm_head import LanguageHead, language_head
from basereward.errors import ConfigError, ModelError
from basereward.forest import attention
from basereward.forest.forest import Forest
from basereward.forest.layout import ForestLayout

HEADS = ("lm_head.", "score.", "v_head.", "rm_head.")
IGNORABLE = (*HEADS, *(f"language_model.{name}" for name in HEADS))
"""Tensors that a checkpoint may hold and a backbone has no use for: heads."""


def source_arguments(model: str) -> dict[str, Any]:
    """Return the arguments under which transformers reads a directory or a hub id.

    Raises:
        ConfigError: When `model` looks like a directory that is not there.
    """
    directory = Path(model)
    if not directory.is_dir() and (
        directory.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1
    ):
        raise ConfigError(f"model {model!r} is no directory and no hub id of the form owner/name")
    return {
        "pretrained_model_name_or_path": model,
        "trust_remote_code": False,
        "local_files_only": directory.is_dir(),
    }


def load_model(
    model: str,
    *,
    dtype: str,
    quantize: quantization.Quantization | None = None,
    skipped: Collection[str] = (),
) -> Any:
    """Load the bare model (no language-model head) and refuse any tensor that is not in the checkpoint.

    Args:
        model: A directory or a hub id.
        dtype: Type of the weights.
        quantize: What linear layers are quantized to.
        skipped: Names of modules in which none is.

    Raises:
        ConfigError: When the model can't be quantized.
        ModelError: Naming the tensors that are missing, misshapen or not expected.
    """
    from transformers import AutoModel

    arguments = quantization.loading_arguments(getattr(torch, dtype), skipped) if quantize else {}
    try:
        loaded, report = AutoModel.from_pretrained(
            **source_arguments(model),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **arguments,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"can't load {model}: {str(error).splitlines()[0]}") from error
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "misshapen": sorted(
            str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"]
        ),
        "unexpected": sorted(key for key in report["unexpected_keys"] if not key.startswith(IGNORABLE)),
    }
    for kind, names in wrong.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(f"{model} has {kind} tensors: {', '.join(names[:3])}{more}")
    # transformers hands models out in eval mode; the trainer decides, and the cache only costs memory here.
    loaded.config.use_cache = False
    quantization.settle(loaded)
    return loaded.train()


def save_model(model: Any, directory: Path) -> None:
    """Write a model in the hub's layout, quantized weights as what they stand for."""
    with quantization.expanded(model):
        model.save_pretrained(directory, max_shard_size="5GB")


def load_tokenizer(model: str) -> Any:
    """Load the tokenizer, with a padding token so that ids can fill rows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(**source_arguments(model))
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {model} has no end-of-sequence token; set eos_token in its files")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def follows_forest(decoder: Any) -> bool:
    """Tell whether a decoder is known to follow the forest's rule: rotary positions, full attention.

    Others (sliding windows, ALiBi, linear attention, capped logits) get one row a response, always right.
    """
    config: Any = decoder.config
    kinds = getattr(config, "layer_types", None)
    full = set(kinds) == {"full_attention"} if kinds else getattr(config, "sliding_window", None) is None
    rotary = getattr(config, "rope_parameters", None) is not None
    capped = bool(getattr(config, "attn_logit_softcapping", None))
    return full and rotary and not capped and bool(getattr(decoder, "_supports_attention_backend", False))


class Decoder:
    """Runs a transformers decoder on forests: forest attention, a dense mask, or plain rows."""

    def __init__(self, model: Any, decoder: Any, mode: str) -> None:
        self.model = model
        self.decoder = decoder
        self.shares = follows_forest(decoder)
        self.reads_middle = False
        self.last_layer = LastLayer()
        self.use(mode if self.shares else "plain")

    @property
    def packs(self) -> bool:
        """Whether trees may lie in one row: the dense mask's cost goes with the square of a row."""
        return self.mode == "forest"

    def use(self, mode: str) -> None:
        """Attend by `forest`, by `dense` (its reference), or `plain`, which takes one response to a row."""
        self.mode = mode
        name = attention.register() if mode == "forest" else "sdpa"
        has_vision = "text_config" in getattr(self.model.config, "sub_configs", {})
        self.model.set_attn_implementation(
            {"text_config": name, "vision_config": "sdpa"} if has_vision else name
        )

    def arguments(self, forest: Forest) -> dict[str, Any]:
        """Return what tells the decoder which tokens see each other."""
        if self.mode == "forest":
            last = self.decoder.layers[-1]
            if forest.reads == "ends" and can_prune(last):
                self.last_layer.follow(last, getattr(self.decoder, "norm", None))
            return {"attention_mask": None, "layout": ForestLayout(forest), "use_cache": False}
        if self.mode == "dense":
            return {"attention_mask": forest.visible(), "use_cache": False}
        return {"attention_mask": (forest.branch >= 0).long(), "use_cache": False}

    def fingerprint(self, chat: Chat, limit: Limit, **more: Any) -> str:
        """Return a digest of all besides weights that decides hidden states; see `Backbone.fingerprint`.

        Args:
            chat: Makes ids of texts.
            limit: Cuts them.
            more: What else there is, as JSON has it.
        """
        if not chat.fingerprint:
            return ""
        config = self.model.config.to_json_string()
        return key_of(
            "encoding",
            chat.fingerprint,
            vars(limit),
            config,
            self.mode,
            self.reads_middle,
            sorted(more.items()),
        )

    def language_head(self, source: str) -> LanguageHead:
        """Return the language-model head of what was loaded from a directory or a hub id."""
        if self.reads_middle:
            raise ConfigError(
                "head.layer reads a middle layer, and text is written from the last; leave out head.layer"
            )
        return language_head(source, self.model)

    def truncate(self, num_layers: int) -> None:
        """Keep the first layers only; the final norm stays, unused, so that the files stay loadable."""
        total = len(self.decoder.layers)
        if not 1 <= num_layers <= total:
            raise ConfigError(f"head.layer is {num_layers}; the backbone has layers 1 to {total}")
        self.decoder.layers = self.decoder.layers[:num_layers]
        self.decoder.config.num_hidden_layers = num_layers
        if getattr(self.decoder.config, "layer_types", None):
            self.decoder.config.layer_types = self.decoder.config.layer_types[:num_layers]
        self.reads_middle = True

    def hidden(self, run: Callable[[], Any]) -> Tensor:
        """Run the model and return the hidden states that the head reads."""
        if not self.reads_middle:
            last: Tensor = run().last_hidden_state
            return last
        outputs: list[Tensor] = []
        hook = self.decoder.layers[-1].register_forward_hook(
            lambda module, inputs, output: outputs.append(output[0] if isinstance(output, tuple) else output)
        )
        try:
            run()
        finally:
            hook.remove()
        return outputs[0]
