"""Any image-text-to-text model of transformers as a backbone.

Shapes: B rows, L tokens a row, D width of the hidden states.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import PIL.Image
import torch
from torch import Tensor, nn

from basereward.backbones.base import Backbone, Limit
from basereward.backbones.chat_template import Chat
from basereward.backbones.lm_head import LanguageHead
from basereward.backbones.transformers_model import Decoder, load_model, load_tokenizer, save_model
from basereward.comparison import Comparison
from basereward.errors import ConfigError, ModelError
from basereward.forest import IGNORED, Forest, Tree
from basereward.media import Image
from basereward_hf_vlm.architectures import SHARING, TEMPLATES
from basereward_hf_vlm.processing import Processor


class HfVlm(Backbone):
    """An image-text-to-text model of transformers without its language-model head.

    Args:
        model: A directory with model, tokenizer and processor, or a hub id.
        dtype: Type of the weights.
        max_tokens: The longest that prompt (images included) and response may be together; None for no limit.
        on_long: Whether a longer response is refused or, counted, cut at its end.
        attention: `forest` lets responses share their prompt where the architecture is known to allow it;
            `dense` does so with a mask, as its reference; `plain` gives each response a row of its own.
    """

    def __init__(
        self,
        *,
        model: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        max_tokens: int | None = None,
        on_long: Literal["refuse", "truncate"] = "refuse",
        attention: Literal["forest", "dense", "plain"] = "forest",
    ) -> None:
        super().__init__()
        self.model: Any = load_model(model, dtype=dtype)
        config = self.model.config
        kind = config.model_type
        if not hasattr(self.model, "get_image_features"):
            raise ConfigError(f"{model} is a {kind!r} model, which reads no images; try causal-lm")
        self.tokenizer = load_tokenizer(model)
        self.processor = Processor(model, kind, self.tokenizer)
        template = self.processor.template or self.tokenizer.chat_template or TEMPLATES.get(kind)
        if template is None:
            raise ConfigError(f"{model} has no chat template; save one as chat_template.jinja beside it")
        self.tokenizer.chat_template = template
        self.image_token = _image_token(config)
        self.chat = Chat(self.tokenizer, {Image: self.processor.mark})
        if self.image_token not in self.control_ids():
            raise ModelError(
                f"the tokenizer of {model} takes its token for images ({self.image_token}) for text"
            )
        self._begin = _beginning(self.tokenizer)
        self.limit = Limit(max_tokens, on_long)
        shares = kind in SHARING and attention != "plain"
        self.decoder = Decoder(self.model, self.model.get_decoder(), attention if shares else "plain")
        self.shares = shares and self.decoder.shares
        self.dim = config.get_text_config().hidden_size
        self.pad = self.tokenizer.pad_token_id
        self.template_digest = self.chat.digest
        self._source = model
        self._blank, _ = self.processor([Image(PIL.Image.new("RGB", (32, 32)))])
        for parameter in self._unread():
            parameter.requires_grad_(False)

    def encode(self, comparison: Comparison) -> Tree:
        """Turn a comparison into tokens and tensors of images."""
        media, texts = self.processor(comparison.images)
        prompt, responses = self.chat.encode(comparison.prompt, comparison.responses, texts)
        if prompt[: len(self._begin)] != self._begin:
            prompt = self._begin + prompt
        fitted, num_cut = self.limit.fit(prompt, responses)
        self.num_truncated += num_cut
        return replace(Tree.of_text(prompt, fitted), media=media, patches=prompt.count(self.image_token))

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]."""
        is_padding = forest.branch == IGNORED
        ids = forest.input_ids.masked_fill(is_padding, self.pad)
        arguments = self.decoder.arguments(forest)
        if self.shares:
            arguments["position_ids"] = forest.positions[0]
        arguments |= self._token_types(ids, forest)
        dtype = self.model.get_input_embeddings().weight.dtype
        if forest.media:
            arguments |= {"input_ids": ids, **self.processor.arguments(forest.media, dtype)}
        elif self.always_runs_vision:
            embedded = self.model.get_input_embeddings()(ids)
            arguments["inputs_embeds"] = embedded + 0.0 * self._of_nothing().to(embedded.dtype)
        else:
            arguments["input_ids"] = ids
        return self.decoder.hidden(lambda: self.model(**arguments))

    def parts(self) -> Mapping[str, nn.Module]:
        """Return what sees, what projects into the decoder's width, and the decoder."""
        decoder = self.decoder.decoder
        seeing: list[nn.Module] = []
        others: list[nn.Module] = [nn.ParameterList(self.model.parameters(recurse=False))]
        for name, module in self.model.named_children():
            if module is not decoder:
                (seeing if "vision" in name or "visual" in name else others).append(module)
        return {
            "vision": nn.ModuleList(seeing),
            "projector": nn.ModuleList(others),
            "language": decoder,
        }

    def language_head(self) -> LanguageHead:
        """Return the head that the language model was loaded without."""
        return self.decoder.language_head(self._source)

    def fingerprint(self) -> str:
        """Return a digest of tokenizer, template and settings."""
        return self.decoder.fingerprint(self.chat, self.limit, images=self.processor.settings())

    def truncate(self, num_layers: int) -> None:
        """Keep the first decoder layers only."""
        self.decoder.truncate(num_layers)

    def save(self, directory: Path) -> None:
        """Write model, tokenizer and processor in the hub's layout."""
        save_model(self.model, directory)
        self.processor.save(directory)

    def _token_types(self, ids: Tensor, forest: Forest) -> dict[str, Tensor]:
        """Return what tells the model, where it asks, which tokens are of which kind."""
        asked = inspect.signature(self.model.forward).parameters
        if self.model.config.model_type == "paligemma":
            return {"token_type_ids": (forest.branch != 0).long()}  # 0 in the prefix
        names = [name for name in ("mm_token_type_ids", "token_type_ids") if name in asked]
        return {name: (ids == self.image_token).long() for name in names[:1]}

    def _of_nothing(self) -> Tensor:
        """Return the sum of what a black image becomes, which all that sees has part in."""
        weight = self.model.get_input_embeddings().weight
        media = {name: value.to(weight.device) for name, value in self._blank.items()}
        found = self.model.get_image_features(
            **self.processor.arguments(media, weight.dtype), return_dict=True
        )
        features = found.pooler_output
        listed: list[Tensor] = list(features) if isinstance(features, list | tuple) else [features]
        return torch.stack([one.sum() for one in listed]).sum()

    def _unread(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that see but have no part in what is seen, such as a tower's own head.

        Processes that train together would wait for their gradients. Found by the graph of a forward pass
        over a black image, since architectures read towers at different layers.
        """
        with torch.enable_grad():
            waiting = [self._of_nothing().grad_fn]
        reached, known = set(), set()
        while waiting:
            node = waiting.pop()
            if node is None or node in known:
                continue
            known.add(node)
            if hasattr(node, "variable"):
                reached.add(id(node.variable))
            waiting += [below for below, _ in node.next_functions]
        for name, part in self.parts().items():
            if name != "language":
                yield from (parameter for parameter in part.parameters() if id(parameter) not in reached)


def _beginning(tokenizer: Any) -> list[int]:
    """Return the token that a tokenizer puts before a text by itself, which templates then leave out."""
    begin = tokenizer.bos_token_id
    return [begin] if begin is not None and tokenizer("a")["input_ids"][:1] == [begin] else []


def _image_token(config: Any) -> int:
    for name in ("image_token_id", "image_token_index"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    raise ConfigError(f"a {config.model_type!r} model doesn't say which token stands for images")
