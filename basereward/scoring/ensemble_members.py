"""The members of an ensemble; a backbone that several have is there once, and runs once.

Shapes: M members, N responses, n responses of one comparison.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from basereward.comparison import Comparison
from basereward.errors import DataError, ModelError
from basereward.scoring.reward_model import RewardModel
from basereward.scoring.scorer import StreamScorer
from basereward.storage import model_directory
from basereward.storage.atomic import file_digest

if TYPE_CHECKING:
    from basereward.plugins.plugin_manager import PluginManager

Route = Callable[[Comparison, Sequence[bool]], Sequence[bool]]


class Members(StreamScorer[Tensor]):
    """Reward models that score the same comparisons; the result of a comparison is [M, n].

    Args:
        models: By name.
        route: From a comparison and whether each member sees images, [M], which score it, [M]; the others'
            rewards are not-a-number. None for all.
        digests: SHA-256 of the file that names every file of a member's directory with its own.
    """

    def __init__(
        self,
        models: Mapping[str, RewardModel],
        route: Route | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.models = dict(models)
        self.digests = dict(digests or {})
        self.route = route
        self.reads_images = [_reads_images(model) for model in self.models.values()]
        units: dict[tuple[type | None, int], list[int]] = {}
        for number, model in enumerate(self.models.values()):
            is_shared = model.paradigm.shares_backbone
            unit = (type(model.paradigm), id(model.backbone)) if is_shared else (None, number)
            units.setdefault(unit, []).append(number)
        self._units = [self._leader_first(unit) for unit in units.values()]

    @classmethod
    def load(
        cls,
        directories: Mapping[str, Path],
        *,
        route: Route | None,
        device: str,
        plugins: PluginManager | None,
        verify: bool,
        **options: Any,
    ) -> Members:
        """Load members; those that have one backbone, to the bytes of its files, share it.

        Args:
            directories: Model directories by the members' names.
            route: As the constructor has it.
            device: Where the weights go.
            plugins: Where components are looked up; None for the installed ones.
            verify: Whether every file's SHA-256 is compared.
            options: Options of the backbones that replace the saved ones.

        Raises:
            ModelError: Naming the member, and the file or tensor that is at fault.
        """
        models: dict[str, RewardModel] = {}
        digests: dict[str, str] = {}
        with_backbone: dict[str, RewardModel] = {}
        for name, directory in directories.items():
            try:
                config = model_directory.read(directory, verify=verify)
                if "members" in config:
                    raise ModelError(
                        f"{directory} is an ensemble itself; name its members, in {directory}/members"
                    )
                key = _backbone_key(config)
                shared = with_backbone.get(key)
                settings: dict[str, Any] = {**options, "device": device, "plugins": plugins, "verify": False}
                model = RewardModel.load(directory, shared=shared, **settings)
                if shared is not None and model.layer != shared.layer:
                    model = RewardModel.load(directory, **settings)
            except ModelError as error:
                raise ModelError(f"member {name!r}: {error}") from error
            with_backbone.setdefault(key, model)
            models[name] = model
            digests[name] = file_digest(directory / model_directory.CONFIG_FILE)
        return cls(models, route, digests)

    @property
    def names(self) -> list[str]:
        """The members' names, in their order."""
        return list(self.models)

    @property
    def statistics(self) -> dict[str, float]:
        """What each member's paradigm counted while it scored, after the member's name."""
        return {
            f"{member} {name}": value
            for member, model in self.models.items()
            for name, value in model.statistics.items()
        }

    @property
    def num_truncated(self) -> int:
        """Responses cut short so far, each time a backbone read them."""
        backbones = {id(model.backbone): model for model in self.models.values()}
        return sum(model.num_truncated for model in backbones.values())

    def prepare_batch(self, batch: Sequence[Comparison]) -> Any:
        """Return for each comparison who is asked, and for each unit which are its, and those prepared."""
        asked = [self._asked(comparison) for comparison in batch]
        found = []
        for unit in self._units:
            rows = [row for row, own in enumerate(asked) if any(own[number] for number in unit)]
            found.append((rows, self._model(unit[0]).prepare_batch([batch[row] for row in rows])))
        return asked, found

    def concatenated(self, prepared: Sequence[Any]) -> Any:
        """Return several prepared batches as one."""
        starts = [0, *accumulate(len(asked) for asked, _ in prepared)]
        all_asked = [own for asked, _ in prepared for own in asked]
        found = []
        for number in range(len(self._units)):
            of_unit = [units[number] for _, units in prepared]
            rows = [start + row for start, (own, _) in zip(starts, of_unit, strict=False) for row in own]
            found.append((rows, [item for _, items in of_unit for item in items]))
        return all_asked, found

    def passes_of(self, prepared: Any) -> list[tuple[Any, list[Any]]]:
        """Return the paradigm of each unit's first member, and what the unit is asked about."""
        _, of_units = prepared
        return [
            (self._model(unit[0]).paradigm, items)
            for unit, (_, items) in zip(self._units, of_units, strict=True)
        ]

    def score_prepared(self, batch: Sequence[Comparison], prepared: Any) -> list[Tensor | DataError]:
        """Return each comparison's rewards [M, n] fp32, or the error of a member that was asked."""
        asked, of_units = prepared
        found: list[dict[int, list[float] | DataError]] = [{} for _ in batch]
        for unit, (rows, items) in zip(self._units, of_units, strict=True):
            own = [batch[row] for row in rows]
            for number, results in zip(unit, self._score_unit(unit, own, items), strict=True):
                for row, result in zip(rows, results, strict=True):
                    found[row][number] = result
        return [
            self._stacked(results, is_asked, len(comparison.responses))
            for results, is_asked, comparison in zip(found, asked, batch, strict=True)
        ]

    @torch.no_grad()
    def _score_unit(
        self, unit: Sequence[int], batch: Sequence[Comparison], prepared: Sequence[Any]
    ) -> list[list[list[float] | DataError]]:
        """Return the results of each member of a unit, whose hidden states are computed once."""
        first = self._model(unit[0])
        if len(unit) == 1:
            return [first.score_prepared(batch, prepared)]
        usable = [item for item in prepared if not isinstance(item, DataError)]
        encoded = first.paradigm.hidden_states(usable) if usable else None
        found = []
        for number in unit:
            model = self._model(number)
            rewards = [] if encoded is None else model.paradigm.rewards_of(*encoded).tolist()
            found.append(model.results_of(batch, prepared, rewards))
        return found

    def _stacked(
        self, results: Mapping[int, list[float] | DataError], is_asked: Sequence[bool], num_responses: int
    ) -> Tensor | DataError:
        columns = []
        for number, (name, own) in enumerate(zip(self.models, is_asked, strict=True)):
            result = results[number] if own else [float("nan")] * num_responses
            if isinstance(result, DataError):
                return DataError(f"member {name!r}: {result.reason}", field=result.field)
            columns.append(result)
        return torch.tensor(columns)

    def _asked(self, comparison: Comparison) -> Sequence[bool]:
        if self.route is None:
            return [True] * len(self.models)
        return self.route(comparison, self.reads_images)

    def _model(self, number: int) -> RewardModel:
        return list(self.models.values())[number]

    def _leader_first(self, unit: list[int]) -> list[int]:
        """Put a member first whose head reads all hidden states, if there is one: they serve all."""
        return sorted(unit, key=lambda number: self._model(number).paradigm.reads != "all")


def _reads_images(model: RewardModel) -> bool:
    return "vision" in model.backbone.parts()


def _backbone_key(config: Mapping[str, Any]) -> str:
    """Return what decides a model's hidden states and how its paradigm makes rewards of them."""
    backbone, paradigm = (dict(config["components"][kind]) for kind in ("backbone", "paradigm"))
    for entry in (backbone, paradigm):
        entry.pop("version")
    backbone["options"] = {name: value for name, value in backbone["options"].items() if name != "model"}
    files = dict(config["files"])
    own = files.pop(model_directory.HEAD_FILE, "")
    if (paradigm["plugin"], paradigm["name"]) != ("basereward", "scalar"):
        # Such as a language-model head, whose weights may be the backbone's own.
        files[model_directory.HEAD_FILE] = own
    return json.dumps([backbone, paradigm, files], sort_keys=True)
