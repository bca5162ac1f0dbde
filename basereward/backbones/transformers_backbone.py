"""The base of backbones that run a decoder of transformers, and the decoder's attention modes for forests."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from basereward.backbones.base import Backbone, TokenLimit
from basereward.backbones.chat_template import Chat
from basereward.backbones.experts import autocast_experts
from basereward.backbones.feature_cache import key_of
from basereward.backbones.image_places import places_of
from basereward.backbones.last_layer import LastLayerRows, can_skip_rows
from basereward.backbones.layer_divisions import Division, layer_divisions
from basereward.backbones.lm_head import LanguageHead, language_head
from basereward.backbones.quantization import Quantization
from basereward.backbones.template_source import DATE, check_date, template_text
from basereward.backbones.transformers_model import load_model, load_tokenizer, save_model
from basereward.errors import ConfigError
from basereward.forest import attention
from basereward.forest.forest import Forest, Tree
from basereward.forest.layout import ForestLayout


class TransformersBackbone(Backbone):
    """A model of transformers without its language-model head.

    A subclass gives `encode`, `forward`, `check_model` and `parts_of`.

    Args:
        model: A directory with a transformers model and tokenizer, or a hub id.
        dtype: Type of the weights.
        quantize: `4bit` keeps the linear layers of the language model in 4 bits (bitsandbytes), for training
            with adapters in little memory; None for none. Models are saved with plain weights.
        max_tokens: The longest that prompt (images included) and response may be together; None for no limit.
        on_long: Whether a longer response is refused or, counted, cut at its end.
        attention: `forest` computes visible pairs of tokens only; `dense` is its reference.
        chat_template: The name of the chat template, where the tokenizer has several.
        template_date: The day, as YYYY-MM-DD, that is written into a chat template that asks for the date.
            A saved model has template and day in its files.

    Attributes:
        source: The directory or hub id that the model was loaded from.
        unquantized: Names of the modules whose linear layers `quantize` leaves as they are.
        read_on_cpu: Names of media that say how many and which, and stay on the CPU.
    """

    limit: TokenLimit
    unsaved_options = ("quantize", "chat_template", "template_date")
    unquantized: ClassVar[tuple[str, ...]] = ()
    read_on_cpu: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        *,
        model: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantize: Quantization | None = None,
        max_tokens: int | None = None,
        on_long: Literal["refuse", "truncate"] = "refuse",
        attention: Literal["forest", "dense"] = "forest",
        chat_template: str = "default",
        template_date: str = DATE,
    ) -> None:
        super().__init__()
        check_date(template_date)
        loaded = load_model(model, dtype=dtype, quantize=quantize, skipped=self.unquantized)
        self._take_model(loaded, model, attention, quantize)
        self.tokenizer = load_tokenizer(model)
        self.pad = self.tokenizer.pad_token_id
        self.limit = TokenLimit(max_tokens, on_long)
        self.use_template(self.template_of(chat_template, template_date))

    @classmethod
    def of_model(cls, model: Any, *, quantize: Quantization | None = None) -> Self:
        """Return a backbone of a bare model alone, such as one on the meta device, to count and truncate it.

        It has no tokenizer, so it can't encode. A subclass with weights beside the model's refuses.

        Raises:
            ConfigError: When the class reads models of another kind.
        """
        backbone = cls.__new__(cls)
        Backbone.__init__(backbone)
        backbone._take_model(model, "the model", "forest", quantize)
        backbone.source = ""
        return backbone

    def _take_model(self, model: Any, source: str, mode: str, quantize: Quantization | None) -> None:
        self.check_model(model, source)
        autocast_experts(model)
        self.model: Any = model
        self.source = source
        self.quantize = quantize
        self.decoder = ForestDecoder(
            model,
            self.decoder_of(model),
            mode if self.hands_on_positions(model) else "plain",
            vision_attention=self.vision_attention(),
        )
        self.shares = self.decoder.shares
        self.dim = model.config.get_text_config().hidden_size

    @classmethod
    @abstractmethod
    def check_model(cls, model: Any, source: str) -> None:
        """Raise a ConfigError that names `source` where a model is of a kind that the class can't read."""

    @staticmethod
    def decoder_of(model: Any) -> Any:
        """Return the decoder, the module with `layers` and the final `norm`; by default the model itself."""
        return model

    @staticmethod
    def hands_on_positions(model: Any) -> bool:
        """Tell whether a model hands positions and attention arguments to its decoder unchanged.

        Responses share their prompt only where it does.
        """
        return True

    @staticmethod
    def vision_attention() -> str:
        """Return the name with transformers of the vision tower's attention, if there is a tower."""
        return "sdpa"

    @staticmethod
    @abstractmethod
    def parts_of(model: Any) -> Mapping[str, nn.Module]:
        """Return the parts of a model; see `parts`."""

    def template_of(self, name: str, date: str) -> str:
        """Return the text of the chat template, once model and tokenizer are loaded."""
        return template_text(self.tokenizer.chat_template, name, date)

    def use_template(self, text: str) -> None:
        """Take a text for the chat template, which is saved with the model."""
        self.tokenizer.chat_template = text
        self.chat = self.make_chat()
        self.chat.probe(self.source)
        self.template_digest = self.chat.digest

    def make_chat(self) -> Chat:
        """Return the chat template, once the tokenizer has its text."""
        return Chat(self.tokenizer)

    def settings(self) -> Mapping[str, Any]:
        """Return what decides hidden states besides weights, tokenizer, template and limit, for JSON."""
        return {}

    @property
    def packs(self) -> bool:
        """Whether trees may lie in one row: the dense mask's cost is quadratic in a row's length."""
        return self.decoder.mode == "forest"

    def blocks_to_compile(self) -> list[nn.Module]:
        """Return the decoder's layers but the last, whose hooks, by which it skips rows, no compiler sees."""
        return list(self.decoder.decoder.layers[:-1]) if self.decoder.mode == "forest" else []

    def layer_divisions(self, num_ranks: int) -> Mapping[nn.Module, Division]:
        """Return how so many processes divide the decoder's layers, by transformers' own plan.

        Raises:
            ConfigError: When there is no plan, or the layers can't be divided by it.
        """
        return layer_divisions(self.decoder.decoder, num_ranks)

    def image_tokens(self) -> Sequence[int]:
        """Return the tokens that features replace, in the order of the features; by default none."""
        return ()

    def pack(self, trees: Sequence[Tree], *, shared: bool = True, row_tokens: float | None = None) -> Forest:
        """Pack trees into a forest on the CPU, with the places of its images' features as `image_places`."""
        forest = super().pack(trees, shared=shared, row_tokens=row_tokens)
        tokens = self.image_tokens()
        if not tokens or not forest.media:
            return forest
        media = {**forest.media, "image_places": places_of(forest.input_ids, tokens)}
        return replace(forest, media=media, read_on_cpu=self.read_on_cpu)

    @property
    def uses_all_weights(self) -> bool:
        """Whether any batch uses every weight: not where the final norm is left out, and not for certain
        where the decoder is of another form.
        """
        return self.shares and not self.decoder.reads_middle

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the parts that can be frozen or given a learning rate: `vision`, `projector`, `language`."""
        return self.parts_of(self.model)

    def quantized_weights(self) -> set[Tensor]:
        """Return the weights that are kept in 4 bits: frozen linear layers of the language model."""
        if self.quantize is None:
            return set()
        linear = (item for item in self.parts()["language"].modules() if isinstance(item, nn.Linear))
        return {item.weight for item in linear if not item.weight.requires_grad}

    def cut(self, prompt: list[int], responses: list[list[int]]) -> list[list[int]]:
        """Return responses that fit the limit, and count those that were cut.

        Raises:
            TooLongError: When one is too long and may not be cut.
        """
        fitted, num_cut = self.limit.fit(prompt, responses, self.chat.end_ids)
        self.num_truncated += num_cut
        return fitted

    def language_head(self) -> LanguageHead:
        """Return the language-model head, which the model was loaded without.

        Raises:
            ConfigError: When a middle layer is read, or the model has no files; see `of_model`.
            ModelError: When it isn't among the model's files.
        """
        if not self.source:
            raise ConfigError(
                "the cost of models that write text (all paradigms but scalar) can't be planned; "
                "plan the run with the paradigm scalar"
            )
        if self.decoder.reads_middle:
            raise ConfigError(
                "head.layer reads a middle layer, and text is written from the last; leave out head.layer"
            )
        return language_head(self.source, self.model)

    def control_ids(self) -> list[int]:
        """Return the tokens that are no text, such as the ends of turns and image tokens."""
        tokens = self.tokenizer.added_tokens_decoder
        return sorted(number for number, token in tokens.items() if token.special)

    def turn_opening(self) -> str:
        """Return the beginning of an answer that the chat template writes itself; empty for most."""
        return self.chat.opening

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, control tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def fingerprint(self) -> str:
        """Return a digest of tokenizer, template and settings; empty for a tokenizer written in Python."""
        if not self.chat.fingerprint:
            return ""
        return key_of(
            "encoding",
            self.chat.fingerprint,
            vars(self.limit),
            self.model.config.to_json_string(),
            self.decoder.mode,
            self.decoder.reads_middle,
            sorted(self.settings().items()),
        )

    def truncate(self, num_layers: int) -> None:
        """Keep the first decoder layers only, and give the last one's output without the final norm."""
        self.decoder.truncate(num_layers)

    def save(self, directory: Path) -> None:
        """Write model and tokenizer in the hub's layout."""
        save_model(self.model, directory)
        self.tokenizer.save_pretrained(directory)


class ForestDecoder:
    """Runs a transformers decoder on forests: with forest attention, with a dense mask, or on plain rows.

    Args:
        model: The model that the decoder is in.
        decoder: Its decoder.
        mode: As `use` takes it; `plain` where the decoder can't follow the forest's rule.
        vision_attention: The name with transformers of the vision tower's attention.

    Attributes:
        shares: Whether responses may share their prompt.
        reads_middle: Whether the output of the last layer is read before the final norm.
    """

    def __init__(self, model: Any, decoder: Any, mode: str, *, vision_attention: str = "sdpa") -> None:
        self.model = model
        self.vision_attention = vision_attention
        self.decoder = decoder
        self.shares = mode != "plain" and follows_forest(decoder)
        self.reads_middle = False
        self._last_layer = LastLayerRows()
        self.use(mode if self.shares else "plain")

    def use(self, mode: str) -> None:
        """Attend by `forest`, by `dense` (its reference), or `plain`, which takes one response to a row."""
        self.mode = mode
        name = attention.register() if mode == "forest" else "sdpa"
        has_vision = "text_config" in self.model.config.sub_configs
        self.model.set_attn_implementation(
            {"text_config": name, "vision_config": self.vision_attention} if has_vision else name
        )

    def arguments(self, forest: Forest) -> dict[str, Any]:
        """Return the arguments of a forward pass by which the decoder attends within a forest."""
        if self.mode == "forest":
            last = self.decoder.layers[-1]
            if forest.reads == "ends" and can_skip_rows(last):
                self._last_layer.install(last, getattr(self.decoder, "norm", None))
            return {"attention_mask": None, "layout": ForestLayout(forest), "use_cache": False}
        if self.mode == "dense":
            return {"attention_mask": forest.visible(), "use_cache": False}
        return {"attention_mask": (forest.branch >= 0).long(), "use_cache": False}

    def truncate(self, num_layers: int) -> None:
        """Keep the first layers only; the final norm stays, unused, so that the files stay loadable."""
        total = len(self.decoder.layers)
        if not 1 <= num_layers <= total:
            raise ConfigError(f"head.layer is {num_layers}; the backbone has layers 1 to {total}")
        self.decoder.layers = self.decoder.layers[:num_layers]
        self.decoder.config.num_hidden_layers = num_layers
        if layer_types := _layer_types(self.decoder.config):
            self.decoder.config.layer_types = layer_types[:num_layers]
        self.reads_middle = True

    def hidden(self, run: Callable[[], Any]) -> Tensor:
        """Run the model and return the hidden states [B, L, D] that the head reads."""
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


def follows_forest(decoder: Any) -> bool:
    """Tell whether a decoder is known to follow the forest's rule: rotary positions, full attention.

    Others (sliding windows, ALiBi, linear attention, capped logits, dropped weights) get one row a response,
    always right.
    """
    # By getattr, since each of these is in the configurations of some architectures only.
    config = decoder.config
    layer_types = _layer_types(config)
    is_full = (
        set(layer_types) == {"full_attention"}
        if layer_types
        else getattr(config, "sliding_window", None) is None
    )
    is_rotary = getattr(config, "rope_parameters", None) is not None
    is_capped = bool(getattr(config, "attn_logit_softcapping", None))
    is_dropping = bool(getattr(config, "attention_dropout", None))
    return (
        is_full
        and is_rotary
        and not is_capped
        and not is_dropping
        and bool(getattr(decoder, "_supports_attention_backend", False))
    )


def _layer_types(config: Any) -> list[str] | None:
    return getattr(config, "layer_types", None)  # only architectures with several kinds of layers have it
