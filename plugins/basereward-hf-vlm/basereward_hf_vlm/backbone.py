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

from basereward.backbones.chat_template import Chat
from basereward.backbones.template_source import DATE, template_text
from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.backbones.transformers_model import save_model
from basereward.comparison import Comparison
from basereward.errors import ConfigError, ModelError
from basereward.forest import IGNORED, Forest, Tree
from basereward.media import Image
from basereward_hf_vlm.architectures import SHARING, TEMPLATES
from basereward_hf_vlm.processing import Processor


class HfVlm(TransformersBackbone):
    """An image-text-to-text model of transformers without its language-model head.

    Args:
        model: A directory with model, tokenizer and processor, or a hub id.
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
        chat_template: str = "default",
        template_date: str = DATE,
    ) -> None:
        super().__init__(
            model=model,
            dtype=dtype,
            max_tokens=max_tokens,
            on_long=on_long,
            attention="dense" if attention == "dense" else "forest",
            chat_template=chat_template,
            template_date=template_date,
        )
        if attention == "plain":
            self.decoder.use("plain")
            self.shares = False
        self.image_token = _image_token(self.model.config)
        if self.image_token not in self.control_ids():
            raise ModelError(
                f"the tokenizer of {model} takes its token for images ({self.image_token}) for text"
            )
        self._begin = _bos_ids(self.tokenizer)
        self._blank, _ = self.processor([Image(PIL.Image.new("RGB", (32, 32)))])
        for parameter in self._unused_parameters():
            parameter.requires_grad_(False)

    @classmethod
    def check_model(cls, model: Any, source: str) -> None:
        """Refuse models that read no images."""
        if not hasattr(model, "get_image_features"):
            raise ConfigError(
                f"{source} is a {model.config.model_type!r} model, which reads no images; try causal-lm"
            )

    @staticmethod
    def decoder_of(model: Any) -> Any:
        """Return the decoder."""
        return model.get_decoder()

    @staticmethod
    def hands_on_positions(model: Any) -> bool:
        """Tell whether the architecture is tested to hand positions and attention arguments on."""
        return model.config.model_type in SHARING

    @staticmethod
    def parts_of(model: Any) -> Mapping[str, nn.Module]:
        """Return the vision tower, the modules that project into the decoder's width, and the decoder."""
        decoder = model.get_decoder()
        vision: list[nn.Module] = []
        others: list[nn.Module] = [nn.ParameterList(model.parameters(recurse=False))]
        for name, module in model.named_children():
            if module is not decoder:
                (vision if "vision" in name or "visual" in name else others).append(module)
        return {
            "vision": nn.ModuleList(vision),
            "projector": nn.ModuleList(others),
            "language": decoder,
        }

    def template_of(self, name: str, date: str) -> str:
        """Return the chat template of the processor or the tokenizer, or ours for architectures without."""
        kind = self.model.config.model_type
        self.processor = Processor(self.source, kind, self.tokenizer)
        template = self.processor.template or self.tokenizer.chat_template or TEMPLATES.get(kind)
        if template is None:
            raise ConfigError(
                f"{self.source} has no chat template; save one as chat_template.jinja beside it"
            )
        return template_text(template, name, date)

    def make_chat(self) -> Chat:
        """Return the chat template, which writes marks of its own for images."""
        return Chat(self.tokenizer, {Image: self.processor.mark})

    def encode(self, comparison: Comparison) -> Tree:
        """Turn a comparison into tokens and tensors of images."""
        media, texts = self.processor(comparison.images)
        prompt, responses, leads = self.chat.encoding(comparison.prompt, comparison.responses, texts)
        if prompt[: len(self._begin)] != self._begin:
            prompt = self._begin + prompt
        tree = Tree.of_text(prompt, self.cut(prompt, responses), leads)
        return replace(tree, media=media, patches=prompt.count(self.image_token))

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
            arguments["inputs_embeds"] = embedded + 0.0 * self._sum_of_blank_features().to(embedded.dtype)
        else:
            arguments["input_ids"] = ids
        return self.decoder.hidden(lambda: self.model(**arguments))

    def settings(self) -> Mapping[str, Any]:
        """Return those of the processor."""
        return {"images": self.processor.settings()}

    def save(self, directory: Path) -> None:
        """Write model, tokenizer and processor in the hub's layout."""
        save_model(self.model, directory)
        self.processor.save(directory)

    def _token_types(self, ids: Tensor, forest: Forest) -> dict[str, Tensor]:
        """Return the types of tokens, text or image, for models whose forward pass takes them."""
        parameters = inspect.signature(self.model.forward).parameters
        if self.model.config.model_type == "paligemma":
            return {"token_type_ids": (forest.branch != 0).long()}  # 0 in the prefix
        names = [name for name in ("mm_token_type_ids", "token_type_ids") if name in parameters]
        return {name: (ids == self.image_token).long() for name in names[:1]}

    def _sum_of_blank_features(self) -> Tensor:
        """Return the sum of the features of a black image, which depends on all of vision and projector."""
        weight = self.model.get_input_embeddings().weight
        media = {name: value.to(weight.device) for name, value in self._blank.items()}
        output = self.model.get_image_features(
            **self.processor.arguments(media, weight.dtype), return_dict=True
        )
        features = output.pooler_output
        listed: list[Tensor] = list(features) if isinstance(features, list | tuple) else [features]
        return torch.stack([one.sum() for one in listed]).sum()

    def _unused_parameters(self) -> Iterator[nn.Parameter]:
        """Yield parameters of vision and projector that no feature depends on, such as a tower's own head.

        Processes that train together would wait for their gradients. They are those outside the autograd
        graph of a black image, since architectures read towers at different layers.
        """
        with torch.enable_grad():
            waiting = [self._sum_of_blank_features().grad_fn]
        reached, visited = set(), set()
        while waiting:
            node = waiting.pop()
            if node is None or node in visited:
                continue
            visited.add(node)
            if hasattr(node, "variable"):
                reached.add(id(node.variable))
            waiting += [below for below, _ in node.next_functions]
        for name, part in self.parts().items():
            if name != "language":
                yield from (parameter for parameter in part.parameters() if id(parameter) not in reached)


def _bos_ids(tokenizer: Any) -> list[int]:
    """Return the token that a tokenizer itself puts before each text, which templates then leave out."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []


def _image_token(config: Any) -> int:
    for name in ("image_token_id", "image_token_index"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    raise ConfigError(f"a {config.model_type!r} model doesn't say which token stands for images")
