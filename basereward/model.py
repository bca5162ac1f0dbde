"""A reward model: built from components, saved so that it says everything about itself, loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from basereward import model_directory
from basereward.comparison import Comparison
from basereward.config import Component
from basereward.data import place_of
from basereward.errors import ConfigError, DataError, ModelError, PluginError
from basereward.plugins import manager, resolved_options

if TYPE_CHECKING:
    from basereward.plugins import PluginManager

KINDS = ("backbone", "head", "loss", "paradigm")


class RewardModel:
    """Scores responses; what the trainer trains, the evaluator evaluates and the server serves.

    Make one with `build` or `load`.

    Args:
        paradigm: The module that holds backbone, head and loss.
        components: For each kind its name, plugin, plugin version and all options.
        record: Further facts for the model directory, such as digests of the training data.
    """

    def __init__(
        self, paradigm: Any, components: Mapping[str, Any], record: Mapping[str, Any] | None = None
    ) -> None:
        self.paradigm = paradigm
        self.components = dict(components)
        self.record = dict(record or {})

    @classmethod
    def build(
        cls,
        *,
        backbone: Component,
        head: Component | None = None,
        loss: Component | None = None,
        paradigm: Component | None = None,
        plugins: PluginManager | None = None,
    ) -> RewardModel:
        """Make a model of named components; what is left out is the paper's choice.

        Raises:
            PluginError: When a component is unknown, ambiguous or fails to load.
            ConfigError: When an option is unknown or wrong.
        """
        plugins = plugins or manager()
        chosen = _chosen(backbone, head, loss, paradigm)
        trunk = plugins.build("backbone", chosen["backbone"])
        top = plugins.build("head", chosen["head"], trunk.dim)
        criterion = plugins.build("loss", chosen["loss"])
        if (layer := getattr(top, "layer", None)) is not None:
            trunk.truncate(layer)
        module = plugins.build("paradigm", chosen["paradigm"], trunk, top, criterion)
        described = {kind: _describe(plugins, kind, component) for kind, component in chosen.items()}
        return cls(module, described, {"base_model": str(chosen["backbone"].options.get("model", ""))})

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "cpu",
        plugins: PluginManager | None = None,
        verify: bool = True,
        **options: Any,
    ) -> RewardModel:
        """Load a model directory, strictly: nothing missing, nothing extra, nothing altered, nothing random.

        Args:
            directory: What `save` wrote.
            device: Where the weights go.
            plugins: Where components are looked up; None for the installed ones.
            verify: Whether every file's SHA-256 is compared; False for directories that were verified before.
            options: Options of the backbone that replace the saved ones, such as `dtype="bfloat16"`.

        Raises:
            ModelError: Naming the file or tensor that is at fault.
        """
        directory = Path(directory)
        config = model_directory.read(directory, verify=verify)
        plugins = plugins or manager()
        saved = {kind: config["components"][kind] for kind in KINDS}
        components = {kind: _saved_component(plugins, kind, entry) for kind, entry in saved.items()}
        model = cls._from(directory, config, components, plugins, options)
        model.record = dict(config["record"])
        model.paradigm.to(device).eval()
        return model

    @classmethod
    def start(
        cls,
        directory: str | Path,
        *,
        backbone: Component,
        head: Component | None = None,
        loss: Component | None = None,
        paradigm: Component | None = None,
        plugins: PluginManager | None = None,
    ) -> RewardModel:
        """Make a model of named components, as `build` does, with the weights of a saved one to go on from.

        The loss, and the backbone's options besides `model`, may be others than it was trained with.

        Raises:
            ConfigError: When backbone, head or paradigm is another, or the head has another option.
            ModelError: Naming the file or tensor that is at fault.
        """
        directory = Path(directory)
        config = model_directory.read(directory, verify=True)
        plugins = plugins or manager()
        components = _chosen(backbone, head, loss, paradigm)
        for kind in ("backbone", "head", "paradigm"):
            # As JSON has it, which knows no tuples.
            own = json.loads(json.dumps(_describe(plugins, kind, components[kind])))
            saved = config["components"][kind]
            if (saved["plugin"], saved["name"]) != (own["plugin"], own["name"]):
                raise ConfigError(
                    f"the {kind} of {directory} is {saved['name']!r}, not {own['name']!r}; a training starts "
                    f"from a model with the same {kind}"
                )
            for name, value in own["options"].items() if kind == "head" else ():
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
    ) -> RewardModel:
        """Make a model of components whose backbone and head have the weights of a directory."""
        trunk = components["backbone"]
        trunk = Component(trunk.name, {**trunk.options, **options, "model": str(directory)})
        model = cls.build(**{**components, "backbone": trunk}, plugins=plugins)
        model_directory.load_tensors(_own_parts(model.paradigm), directory / model_directory.HEAD_FILE)
        if model.template_digest != config["template_digest"]:
            raise ModelError(
                f"{directory}: a template, of its chat or of its judge, is not the one the model was saved "
                "with"
            )
        return model

    def save(self, directory: str | Path, **record: Any) -> None:
        """Write the model directory aside and put it in place at once; an older one there is replaced.

        Args:
            directory: Where to.
            record: Facts to add to the directory's record.
        """
        trunk = self.components["backbone"]
        unsaved = getattr(self.backbone, "unsaved_options", ())
        kept = {name: value for name, value in trunk["options"].items() if name not in unsaved}
        with model_directory.replacing(Path(directory)) as place:
            self.backbone.save(place)
            model_directory.save_tensors(_own_parts(self.paradigm), place / model_directory.HEAD_FILE)
            model_directory.write_config(
                place,
                components={**self.components, "backbone": {**trunk, "options": kept}},
                template_digest=self.template_digest,
                record={**self.record, **record},
            )

    @property
    def backbone(self) -> Any:
        """The part that makes hidden states."""
        return self.paradigm.backbone

    @property
    def head(self) -> Any:
        """The part that makes rewards of hidden states."""
        return self.paradigm.head

    @property
    def template_digest(self) -> str:
        """SHA-256 of the templates that scores depend on as much as on weights."""
        return str(getattr(self.paradigm, "template_digest", self.backbone.template_digest))

    @property
    def statistics(self) -> dict[str, float]:
        """What the paradigm counted while it scored, such as verdicts that could not be read."""
        return dict(getattr(self.paradigm, "statistics", {}))

    @property
    def num_truncated(self) -> int:
        """Responses cut short so far to fit the backbone's `max_tokens`, each time they were read."""
        return int(getattr(self.backbone, "num_truncated", 0))

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

    def score(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8, progress: bool = False
    ) -> list[list[float]]:
        """Return the rewards of each comparison's responses; higher is better, the scale has no zero.

        Args:
            comparisons: What to score; ranks are not needed.
            batch_size: Comparisons a forward pass; the rewards don't depend on it.
            progress: Whether to show a progress bar on standard error.

        Raises:
            DataError: When a comparison can't be encoded; `score_stream` hands such errors out instead.
        """
        comparisons = list(comparisons)
        rewards = []
        stream = self.score_stream(comparisons, batch_size=batch_size)
        if progress:
            from rich.console import Console
            from rich.progress import track

            stream = track(stream, "scoring", total=len(comparisons), console=Console(stderr=True))
        for number, (comparison, result) in enumerate(stream):
            if isinstance(result, DataError):
                label = comparison.id or (str(number) if len(comparisons) > 1 else "")
                raise result.at(**place_of(comparison)).at(file=f"comparison {label}" if label else None)
            rewards.append(result)
        return rewards

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, list[float] | DataError]]:
        """Yield each comparison with its rewards, or with the error that kept it from being scored.

        The order is kept and memory stays flat, so the input may be endless. Of a list, a thread opens the
        pictures of the next batch and tokenises it while one is scored.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is a number of comparisons >= 1, not {batch_size}")
        if isinstance(comparisons, Sequence) and not self.paradigm.training:
            yield from self._score_ahead(comparisons, batch_size)
            return
        waiting = iter(comparisons)
        while batch := list(islice(waiting, batch_size)):
            was_training = self.paradigm.training
            self.paradigm.eval()
            try:
                results = self._score_prepared(batch, self._prepare(batch))
            finally:
                self.paradigm.train(was_training)
            yield from zip(batch, results, strict=True)

    def _score_ahead(
        self, comparisons: Sequence[Comparison], batch_size: int
    ) -> Iterator[tuple[Comparison, list[float] | DataError]]:
        """Score, with a thread that prepares the next batch; what it prepares must not hang on training."""
        batches = [
            comparisons[start : start + batch_size] for start in range(0, len(comparisons), batch_size)
        ]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="basereward-score") as thread:
            upcoming = thread.submit(self._prepare, batches[0]) if batches else None
            for number, batch in enumerate(batches):
                assert upcoming is not None
                prepared = upcoming.result()
                if number + 1 < len(batches):
                    upcoming = thread.submit(self._prepare, batches[number + 1])
                yield from zip(batch, self._score_prepared(batch, prepared), strict=True)

    def _prepare(self, batch: Sequence[Comparison]) -> list[Any]:
        """Return each comparison as the paradigm prepares it, or the error that says why it can't be."""
        found = []
        for comparison in batch:
            try:
                found.append(self.paradigm.prepare(comparison))
            except DataError as error:
                found.append(error)
        return found

    def _score_prepared(
        self, batch: Sequence[Comparison], prepared: Sequence[Any]
    ) -> list[list[float] | DataError]:
        usable = [item for item in prepared if not isinstance(item, DataError)]
        rewards = self.paradigm.score_of(usable).tolist() if usable else []
        results: list[list[float] | DataError] = []
        start = 0
        for comparison, item in zip(batch, prepared, strict=True):
            if isinstance(item, DataError):
                results.append(item)
                continue
            stop = start + len(comparison.responses)
            results.append(self._finite(rewards[start:stop]))
            start = stop
        return results

    def _finite(self, rewards: list[float]) -> list[float] | DataError:
        if all(abs(reward) < float("inf") for reward in rewards):
            return rewards
        reason = getattr(self.paradigm, "reason_for_nan", "the model gives a reward that is not finite")
        return DataError(reason, field="responses")


def _own_parts(paradigm: nn.Module) -> dict[str, nn.Module]:
    """Return the paradigm's modules besides the backbone, which transformers does not save."""
    return {name: module for name, module in paradigm.named_children() if name != "backbone"}


def _chosen(
    backbone: Component, head: Component | None, loss: Component | None, paradigm: Component | None
) -> dict[str, Component]:
    """Return the component of each kind; what is left out is the paper's choice."""
    return {
        "backbone": backbone,
        "head": head or Component("mlp", {}),
        "loss": loss or Component("bradley-terry", {}),
        "paradigm": paradigm or Component("scalar", {}),
    }


def _describe(plugins: PluginManager, kind: str, component: Component) -> dict[str, Any]:
    found = plugins.find(kind, component.name)
    return {
        "name": found.name,
        "plugin": found.plugin,
        "version": found.version,
        "distribution": found.distribution,
        "options": resolved_options(plugins.load(kind, component.name), component.options),
    }


def _saved_component(plugins: PluginManager, kind: str, entry: Mapping[str, Any]) -> Component:
    """Return a saved component under its plugin's name too, since another plugin may have taken its own.

    Raises:
        ModelError: Saying which package to install, where the component's plugin is missing.
    """
    name = f"{entry['plugin']}/{entry['name']}"
    try:
        plugins.find(kind, name)
    except PluginError as error:
        package = entry.get("distribution")
        remedy = f"install {package}=={entry['version']}" if package else f"load it with -p; {error}"
        raise ModelError(
            f"the model's {kind} is {entry['name']!r} of plugin {entry['plugin']!r} {entry['version']}, "
            f"which is not there; {remedy}"
        ) from error
    return Component(name, dict(entry["options"]))
