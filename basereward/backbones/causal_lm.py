"""Any decoder-only language model of transformers as a backbone for text: Llama, Qwen2, Qwen3 and others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from basereward.backbones.base import Backbone, Limit
from basereward.backbones.chat_template import Chat
from basereward.backbones.lm_head import LanguageHead
from basereward.backbones.quantization import Quantization
from basereward.backbones.transformers_model import Decoder, load_model, load_tokenizer, save_model
from basereward.comparison import Comparison
from basereward.errors import ConfigError
from basereward.forest.forest import Forest, Tree


class CausalLM(Backbone):
    """A decoder-only language model without its language-model head.

    Args:
        model: A directory with a transformers model and tokenizer, or a hub id.
        dtype: Type of the weights.
        quantize: `4bit` keeps the linear layers of the language model in 4 bits (bitsandbytes), for training
            with adapters in little memory; None for none. Models are saved with plain weights.
        max_tokens: The longest that prompt and response may be together; None for no limit.
        on_long: Whether a longer response is refused or, counted, cut at its end.
        attention: `forest` computes visible pairs of tokens only; `dense` is its reference.
    """

    unsaved_options = ("quantize",)

    limit: Limit

    def __init__(
        self,
        *,
        model: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantize: Quantization | None = None,
        max_tokens: int | None = None,
        on_long: Literal["refuse", "truncate"] = "refuse",
        attention: Literal["forest", "dense"] = "forest",
    ) -> None:
        super().__init__()
        self.model: Any = load_model(model, dtype=dtype, quantize=quantize)
        if not hasattr(self.model, "layers"):
            raise ConfigError(f"{model} is a {type(self.model).__name__}, no decoder-only language model")
        self.tokenizer = load_tokenizer(model)
        self.chat = Chat(self.tokenizer)
        self.limit = Limit(max_tokens, on_long)
        self.decoder = Decoder(self.model, self.model, attention)
        self.dim = self.model.config.hidden_size
        self.pad = self.tokenizer.pad_token_id
        self.shares = self.decoder.shares
        self.template_digest = self.chat.digest
        self._source = model

    def encode(self, comparison: Comparison) -> Tree:
        """Turn a comparison of texts into tokens."""
        prompt, responses = self.chat.encode(comparison.prompt, comparison.responses)
        fitted, num_cut = self.limit.fit(prompt, responses)
        self.num_truncated += num_cut
        return Tree.of_text(prompt, fitted)

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]."""
        arguments = self.decoder.arguments(forest)
        return self.decoder.hidden(
            lambda: self.model(input_ids=forest.input_ids, position_ids=forest.positions[0], **arguments)
        )

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the language model, the only part."""
        return {"language": self.model}

    def language_head(self) -> LanguageHead:
        """Return the head that the language model was loaded without."""
        return self.decoder.language_head(self._source)

    def fingerprint(self) -> str:
        """Return a digest of tokenizer, template and settings."""
        return self.decoder.fingerprint(self.chat, self.limit)

    def truncate(self, num_layers: int) -> None:
        """Keep the first layers only."""
        self.decoder.truncate(num_layers)

    def save(self, directory: Path) -> None:
        """Write model and tokenizer in the hub's layout."""
        save_model(self.model, directory)
        self.tokenizer.save_pretrained(directory)
