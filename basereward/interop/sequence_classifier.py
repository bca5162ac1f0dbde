"""A reward model with a head of several layers as a class of transformers, which needs no remote code.

    from basereward.interop.sequence_classifier import register
    from transformers import AutoModelForSequenceClassification

    register()
    model = AutoModelForSequenceClassification.from_pretrained("checkpoint")

Shapes: B texts, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from basereward.heads import MLP

MODEL_TYPE = "basereward"


class RewardConfig(PreTrainedConfig):  # type: ignore[misc]
    """The config of a backbone, and the options of the head on it.

    Args:
        backbone_config: The backbone's own.
        head: The options of `basereward.heads.MLP`: layers, activation, width.
    """

    model_type = MODEL_TYPE
    sub_configs: ClassVar[dict[str, Any]] = {"backbone_config": AutoConfig}

    def __init__(
        self,
        backbone_config: PreTrainedConfig | Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(backbone_config, Mapping):
            backbone_config = CONFIG_MAPPING[backbone_config["model_type"]](**backbone_config)
        self.backbone_config = backbone_config
        self.head = dict(head or {})
        super().__init__(**options)


class RewardForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """A backbone and a head of any number of layers, whose only logit is the reward."""

    config_class = RewardConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _supports_flash_attn = True
    _keep_in_fp32_modules_strict = ("score",)

    def __init__(self, config: RewardConfig) -> None:
        super().__init__(config)
        self.model = AutoModel.from_config(config.backbone_config)
        backbone_config: Any = config.backbone_config
        width = backbone_config.get_text_config().hidden_size
        self.score = nn.ModuleDict({"layers": MLP(width, **config.head).layers})
        self.activation = MLP(1, num_layers=1, activation=config.head.get("activation", "silu")).activation
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,  # [B, L]
        attention_mask: Tensor | None = None,  # [B, L] 0 on padding, on either side
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Return the logits [B, 1] in fp32, read at each text's last token.

        Without a mask the last token is the last that is not the config's padding token.
        """
        inputs = {"use_cache": False, **inputs}
        inputs.pop("labels", None)
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            attention_mask = input_ids != self.config.pad_token_id
        if attention_mask is None:
            states = hidden[:, -1]  # [B, D]
        else:
            places = torch.arange(hidden.shape[1], device=hidden.device)
            ends = (attention_mask.to(hidden.device).bool() * places).argmax(1)
            states = hidden[torch.arange(len(hidden), device=hidden.device), ends]
        with torch.autocast(hidden.device.type, enabled=False):
            layers: Any = self.score["layers"]
            first, *others = layers
            logits = first(states.float())
            for layer in others:
                logits = layer(self.activation(logits))
        return SequenceClassifierOutput(logits=logits)


def register() -> None:
    """Have transformers' auto classes know the class; to call it again is harmless."""
    AutoConfig.register(MODEL_TYPE, RewardConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(RewardConfig, RewardForSequenceClassification, exist_ok=True)
