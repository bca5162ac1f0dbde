"""Any decoder-only language model of transformers as a backbone for text: Llama, Qwen2, Qwen3 and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.comparison import Comparison
from basereward.errors import ConfigError
from basereward.forest.forest import Forest, Tree


class CausalLM(TransformersBackbone):
    """A decoder-only language model without its language-model head.

    Args:
        max_tokens: The longest that prompt and response may be together; None for no limit.
    """

    @classmethod
    def check_model(cls, model: Any, source: str) -> None:
        """Refuse models that are no decoder of a known form."""
        if not hasattr(model, "layers"):
            raise ConfigError(f"{source} is a {type(model).__name__}, no decoder-only language model")

    @staticmethod
    def parts_of(model: Any) -> Mapping[str, nn.Module]:
        """Return the language model, the only part."""
        return {"language": model}

    def encode(self, comparison: Comparison) -> Tree:
        """Turn a comparison of texts into tokens."""
        prompt, responses, leads = self.chat.encoding(comparison.prompt, comparison.responses)
        return Tree.of_text(prompt, self.cut(prompt, responses), leads)

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]."""
        arguments = self.decoder.arguments(forest)
        return self.decoder.hidden(
            lambda: self.model(input_ids=forest.input_ids, position_ids=forest.positions[0], **arguments)
        )
