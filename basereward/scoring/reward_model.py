"""A reward model: built from components, saved so that it says everything about itself, loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from basereward.backbones.trained_heads import check_no_trained_head, is_model_directory
from basereward.backbones.untrusted_settings import reading
from basereward.backbones.written_weights import WrittenWeights, written_weights
from basereward.comparison import Comparison
from basereward.config.conversion import Component, ComponentLike, component_of
from basereward.errors import ConfigError, DataError, ModelError
from basereward.hardware.precision import HALVES, Precision, device_of, scoring_precision, weights_dtype
from basereward.plugins.plugin_manager import PluginManager, manager
from basereward.prepared import Prepared
from basereward.protocols import Backbone, Head, Loss, Paradigm
from basereward.scoring.component_record import chosen_components, describe, saved_component
from basereward.scoring.model_card import model_card
from basereward.scoring.pretrained import Pretrained
from basereward.scoring.scorer import BatchScorer
from basereward.stats.calibration import Calibration
from basereward.storage import model_directory
from basereward.storage.atomic import replace_directory


class RewardModel(BatchScorer["list[float]"], Pretrained):
    """Scores responses. The trainer, the evaluator and the server all use this class.

    Make one with `build` or `load`.

    Args:
        paradigm: The module that holds backbone, head and loss.
        components: Name, plugin, plugin version and all options of the component of each kind.
        record: Further facts for the model directory, such as digests of the training data.
        forward: Computes the rewards [N] of prepared comparisons; None for the paradigm's `score_of`.
        precision: The precision of matrix products while scoring.

    Attributes:
        layer: The decoder layer that the head reads; None for the last.
    """

    layer: int | None = None

    def __init__(
        self,
        paradigm: Paradigm,
        components: Mapping[str, Any],
        record: Mapping[str, Any] | None = None,
        *,
        forward: Callable[[Sequence[Prepared[Any]]], Tensor] | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.paradigm = paradigm
        self.components = dict(components)
        self.record = dict(record or {})
        self._forward = forward
        self.precision = precision or Precision()

    @classmethod
    def build(
        cls,
        backbone: ComponentLike,
        *,
        head: ComponentLike | None = None,
        loss: ComponentLike | None = None,
        paradigm: ComponentLike | None = None,
        plugins: PluginManager | None = None,
        fresh_head: bool = False,
        **options: Any,
    ) -> RewardModel:
        """Make a model from named components; the defaults are the paper's choices.

        Each component is a name, a table such as {"name": "mlp", "num_layers": 3}, or a `Component`.

        Args:
            backbone: The backbone.
            head: The head, with random weights.
            loss: The loss.
            paradigm: The paradigm.
            plugins: Plugins that provide the components; None for the installed ones.
            fresh_head: Whether the head may be random if the backbone's `model` is a checkpoint with a
                trained reward head.
            options: Other options of the backbone, such as `model`.

        Raises:
            PluginError: When a component is unknown, ambiguous or fails to load.
            ConfigError: When an option is unknown or wrong, or a trained head would be dropped.
        """
        chosen = chosen_components(component_of(backbone, "backbone", options), head, loss, paradigm)
        model = cls._built(chosen, plugins or manager())
        source = chosen["backbone"].options.get("model")
        # That a model of our own is one is plain to see, and members of an ensemble are made of such.
        if (
            isinstance(source, str)
            and isinstance(model.paradigm.head, Head)
            and not (fresh_head or is_model_directory(source))
        ):
            check_no_trained_head(source)
        return model

    @classmethod
    def _built(
        cls, chosen: Mapping[str, Component], plugins: PluginManager, backbone: Backbone | None = None
    ) -> RewardModel:
        """Make a model of the component of each kind, on a backbone that exists already or a new one."""
        is_new = backbone is None
        if backbone is None:
            backbone = plugins.build("backbone", chosen["backbone"])
        head: Head = plugins.build("head", chosen["head"], backbone.dim)
        loss: Loss = plugins.build("loss", chosen["loss"])
        if head.reads_layer is not None and is_new:
            backbone.truncate(head.reads_layer)
        paradigm = plugins.build("paradigm", chosen["paradigm"], backbone, head, loss)
        described = {kind: describe(plugins, kind, component) for kind, component in chosen.items()}
        model = cls(paradigm, described, {"base_model": str(chosen["backbone"].options.get("model") or "")})
        model.layer = head.reads_layer
        return model

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "auto",
        precision: str | None = None,
        plugins: PluginManager | None = None,
        verify: bool = True,
        shared: RewardModel | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> RewardModel:
        """Load a model directory, strictly: nothing missing, nothing extra, nothing altered, nothing random.

        Args:
            directory: A directory that `save` wrote.
            device: Device of the weights; `auto` for a GPU if there is one.
            precision: `auto`, `fp32`, `bf16`, or None for the result of `scoring_precision`. fp32 converts
                weights that are saved in half precision; bf16 leaves them unchanged.
            plugins: Plugins that provide the components; None for the installed ones.
            verify: Whether every file's SHA-256 is compared; False for directories that were verified before.
            shared: A model with the same backbone, which is then not loaded again.
            backbone_options: Options of the backbone that replace the saved ones, such as
                {"dtype": "bfloat16"}.

        Raises:
            ModelError: For a wrong file or tensor, which it names.
        """
        directory = Path(directory)
        config = _read(directory, verify=verify)
        plugins = plugins or manager()
        saved = {kind: config["components"][kind] for kind in model_directory.KINDS}
        components = {kind: saved_component(plugins, kind, entry) for kind, entry in saved.items()}
        try:
            with reading(directory):
                model = cls._from(directory, config, components, plugins, backbone_options or {}, shared)
        except ConfigError as error:
            if backbone_options:
                raise
            raise ModelError(f"{directory / model_directory.CONFIG_FILE}: {error}") from error
        model.record = dict(config["record"])
        model._move(device_of(device), precision)
        return model

    def to(self, device: str | torch.device, *, precision: str | None = None) -> RewardModel:
        """Move the weights to a device, choose the precision of scoring, and return the model.

        Args:
            device: The device, such as `cuda`; `auto` for a GPU if there is one.
            precision: As in `load`; fp32 converts weights in half precision.

        Raises:
            ConfigError: When the device or the precision does not exist.
        """
        self._move(device_of(str(device)), precision)
        return self

    def __repr__(self) -> str:
        parts = ", ".join(f"{kind}={self.components[kind]['name']!r}" for kind in model_directory.KINDS)
        num = sum(parameter.numel() for parameter in self.paradigm.parameters())
        return f"RewardModel({parts}; {num:,} parameters, {self.precision.name}, {self.precision.device})"

    def _move(self, device: torch.device, precision: str | None) -> None:
        """Put a loaded model on a device, and choose the precision that it scores in there."""
        backbone = self.backbone
        weights = weights_dtype(backbone)
        self.precision = scoring_precision(precision, device, backbone.dim, weights)
        if self.precision.name == "fp32" and weights in HALVES:
            backbone.float()
        self.paradigm.to(device).eval()

    @classmethod
    def warm_start(
        cls,
        directory: str | Path,
        *,
        backbone: ComponentLike,
        head: ComponentLike | None = None,
        loss: ComponentLike | None = None,
        paradigm: ComponentLike | None = None,
        plugins: PluginManager | None = None,
        verify: bool = True,
    ) -> RewardModel:
        """Make a model of named components, as `build` does, with the weights of a saved one to go on from.

        The loss, and the backbone's options besides `model`, may be others than it was trained with. With
        `verify` every file's SHA-256 is compared.

        Raises:
            ConfigError: When backbone, head or paradigm is another, or the head has another option.
            ModelError: For a wrong file or tensor, which it names.
        """
        directory = Path(directory)
        config = _read(directory, verify=verify)
        plugins = plugins or manager()
        components = chosen_components(backbone, head, loss, paradigm)
        for kind in ("backbone", "head", "paradigm"):
            # As JSON has it, which knows no tuples.
            wanted = json.loads(json.dumps(describe(plugins, kind, components[kind])))
            saved = config["components"][kind]
            if (saved["plugin"], saved["name"]) != (wanted["plugin"], wanted["name"]):
                raise ConfigError(
                    f"the {kind} of {directory} is {saved['name']!r}, not {wanted['name']!r}; a training "
                    f"starts from a model with the same {kind}"
                )
            for name, value in wanted["options"].items() if kind == "head" else ():
                if (was := saved["options"].get(name)) != value:
                    raise ConfigError(
                        f"the head of {directory} has {name} = {was!r}, not {value!r}; a training starts "
                        "from a model with the same head"
                    )
        model = cls._from(directory, config, components, plugins, {})
        model.record = {"base_model": config["record"].get("base_model", ""), "started_from": str(directory)}
        return model

    @classmethod
    def _from(
        cls,
        directory: Path,
        config: Mapping[str, Any],
        components: Mapping[str, Component],
        plugins: PluginManager,
        options: Mapping[str, Any],
        shared: RewardModel | None = None,
    ) -> RewardModel:
        """Make a model of components whose backbone and head have the weights of a directory."""
        backbone = components["backbone"]
        backbone = Component(backbone.name, {**backbone.options, **options, "model": str(directory)})
        existing = None if shared is None else shared.backbone
        model = cls._built({**components, "backbone": backbone}, plugins, existing)
        model_directory.load_tensors(_own_parts(model.paradigm), directory / model_directory.HEAD_FILE)
        if model.template_digest != config["template_digest"]:
            raise ModelError(
                f"{directory}: a template, of its chat or of its judge, is not the one the model was saved "
                "with"
            )
        return model

    def save(self, directory: str | Path, *, weights: WrittenWeights | None = None, **record: Any) -> None:
        """Write the model directory aside and put it in place at once; an older one there is replaced.

        Args:
            directory: Where to.
            weights: The weights of the backbone's transformers model, where they are in files already, which
                are moved; None to write them.
            record: Facts to add to the directory's record.
        """
        backbone = self.components["backbone"]
        unsaved = self.backbone.unsaved_options
        kept = {name: value for name, value in backbone["options"].items() if name not in unsaved}
        with replace_directory(Path(directory), foreign_files=model_directory.foreign_files) as place:
            with written_weights(weights):
                self.backbone.save(place)
            model_directory.save_tensors(_own_parts(self.paradigm), place / model_directory.HEAD_FILE)
            facts = {
                "paradigm": self.components["paradigm"]["name"],
                "components": {**self.components, "backbone": {**backbone, "options": kept}},
                "template_digest": self.template_digest,
                "image_backend": "pil",
                "record": {**self.record, **record},
            }
            (place / model_directory.CARD_FILE).write_text(model_card(facts), "utf-8", "backslashreplace")
            model_directory.write_config(place, facts, {} if weights is None else weights.digests)

    @property
    def backbone(self) -> Backbone:
        """The part that makes hidden states."""
        return self.paradigm.backbone

    @property
    def head(self) -> nn.Module:
        """The part that makes rewards of hidden states."""
        return self.paradigm.head

    @property
    def template_digest(self) -> str:
        """SHA-256 of the templates that scores depend on as much as on weights."""
        return self.paradigm.template_digest or self.backbone.template_digest

    @property
    def statistics(self) -> dict[str, float]:
        """The paradigm's counts while scoring, such as of verdicts that could not be read."""
        return dict(self.paradigm.statistics)

    @property
    def calibration(self) -> Calibration:
        """The scale of its rewards in the validation after which it was saved."""
        return calibration_of(self.record.get("evaluation"))

    @property
    def num_truncated(self) -> int:
        """Responses cut short so far to fit the backbone's `max_tokens`, each time they were read."""
        return self.backbone.num_truncated

    def part_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of each part: those the backbone names, and `head` for all outside it."""
        parts = {name: list(module.parameters()) for name, module in self.backbone.parts().items()}
        named = {id(parameter) for parameters in parts.values() for parameter in parameters}
        unnamed = [parameter for parameter in self.backbone.parameters() if id(parameter) not in named]
        if unnamed:
            parts["backbone"] = unnamed
        parts["head"] = [
            parameter for module in _own_parts(self.paradigm).values() for parameter in module.parameters()
        ]
        return {name: parameters for name, parameters in parts.items() if parameters}

    @property
    def is_training(self) -> bool:
        """Whether the model is being trained."""
        return bool(self.paradigm.training)

    def evaluating(self) -> AbstractContextManager[None]:
        """Switch the model to evaluation, and back."""
        return self.paradigm.evaluating()

    def prepare_batch(self, batch: Sequence[Comparison]) -> list[Prepared[Any] | DataError]:
        """Return each comparison as the paradigm prepares it, or the error that says why it can't be."""
        prepared: list[Prepared[Any] | DataError] = []
        for comparison in batch:
            try:
                prepared.append(self.paradigm.prepare(comparison))
            except DataError as error:
                prepared.append(error)
        return prepared

    def score_prepared(self, batch: Sequence[Prepared[Any] | DataError]) -> list[list[float] | DataError]:
        """Return each comparison's rewards, or the error that kept it from being scored."""
        usable = [item for item in batch if not isinstance(item, DataError)]
        with self.precision.autocast():
            rewards = (self._forward or self.paradigm.score_of)(usable).tolist() if usable else []
        results = iter(self.results_of(usable, rewards))
        return [item if isinstance(item, DataError) else next(results) for item in batch]

    @property
    def text_key(self) -> str:
        """The key of `meta` for the texts that the paradigm writes; empty for one that writes none."""
        return self.paradigm.text_key

    def texts(self, comparisons: Sequence[Comparison]) -> list[list[Any] | DataError]:
        """Return what is written on each comparison, or the error that kept it from being asked."""
        prepared = self.prepare_batch(comparisons)
        usable = [item for item in prepared if not isinstance(item, DataError)]
        with self.precision.autocast():
            texts = iter(self.paradigm.texts_of(usable) if usable else ())
        return [item if isinstance(item, DataError) else next(texts) for item in prepared]

    def results_of(
        self, batch: Sequence[Prepared[Any]], rewards: Sequence[float]
    ) -> list[list[float] | DataError]:
        """Divide rewards [N] among prepared comparisons; those that are not finite become an error."""
        values = iter(rewards)
        return [self._finite([next(values) for _ in item.comparison.responses]) for item in batch]

    @property
    def models(self) -> list[RewardModel]:
        """The model itself."""
        return [self]

    @property
    def shares_prefix(self) -> bool:
        """Whether `join` can make one tree of comparisons with equal prompts."""
        return self.paradigm.shares_prefix

    @property
    def is_comparative(self) -> bool:
        """Whether a response's reward depends on the responses beside it."""
        return self.paradigm.is_comparative

    @property
    def reads_images(self) -> bool:
        """Whether it can be asked about comparisons with images."""
        return "vision" in self.backbone.parts()

    @property
    def reward_unit(self) -> str:
        """The unit of its rewards where they are bounded; empty where they are not."""
        return self.paradigm.reward_unit

    def takes(self, num_responses: int) -> bool:
        """Tell whether a comparison of so many responses can be scored."""
        return self.paradigm.takes(num_responses)

    def join(self, batch: Sequence[Prepared[Any]]) -> Prepared[Any]:
        """Return prepared comparisons of one prompt as one."""
        return self.paradigm.join(batch)

    def _finite(self, rewards: list[float]) -> list[float] | DataError:
        if all(abs(reward) < float("inf") for reward in rewards):
            return rewards
        return DataError(self.paradigm.reason_for_nan, field="responses")


def _read(directory: Path, *, verify: bool) -> dict[str, Any]:
    config = model_directory.read(directory, verify=verify)
    if "members" in config:
        raise ModelError(f"{directory} is an ensemble; basereward.load_model(DIR) loads models and ensembles")
    return config


def calibration_of(record: Any) -> Calibration:
    """Return the scale of rewards by a directory's record; an unfitted one where it has none that can be."""
    if not isinstance(record, Mapping):
        return Calibration()
    try:
        return Calibration(record.get("temperature"), record.get("reward_mean"))
    except (TypeError, ValueError):
        return Calibration()


def _own_parts(paradigm: nn.Module) -> dict[str, nn.Module]:
    """Return the paradigm's modules besides the backbone, which transformers does not save."""
    return {name: module for name, module in paradigm.named_children() if name != "backbone"}
