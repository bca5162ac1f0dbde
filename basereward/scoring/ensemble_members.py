"""The members of an ensemble; a backbone that several have is there once, and runs once.

Judges that ask a writer are asked while the models compute.

Shapes: M members, N responses, n responses of one comparison.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError, ModelError
from basereward.plugins.plugin_manager import PluginManager
from basereward.prepared import Prepared, Size
from basereward.scoring.ensemble_directory import SavedMember, Source
from basereward.scoring.judge_members import load_judge
from basereward.scoring.judge_settings import is_judge
from basereward.scoring.reward_model import RewardModel
from basereward.scoring.scorer import BatchScorer
from basereward.scoring.writer_judge import WriterJudge
from basereward.storage import model_directory
from basereward.storage.atomic import file_digest

Route = Callable[[Comparison, Sequence[bool]], Sequence[bool]]

Member: TypeAlias = "RewardModel | WriterJudge"


@dataclass(frozen=True)
class Routed:
    """A comparison as the members prepare it.

    Args:
        routed: [M] whether each member scores it.
        items: What each group of members prepared; None for a group that does not score it.
    """

    routed: Sequence[bool]
    items: Sequence[Prepared[Any] | None]


class EnsembleMembers(BatchScorer[Tensor]):
    """Models and judges that score the same comparisons; the result of a comparison is [M, n].

    Args:
        members: By name.
        route: From a comparison and whether each member sees images, [M], which score it, [M]; the others'
            rewards are not-a-number. Of these, a judge that compares isn't asked about one response alone,
            where another member is. None for all members.
        digests: SHA-256 of the file that names every file of a model's directory with its own.

    Attributes:
        pass_size: Comparisons of a forward pass, where batches are larger for judges; None for a batch.
    """

    pass_size: int | None = None

    def __init__(
        self,
        members: Mapping[str, Member],
        route: Route | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.by_name = dict(members)
        self.digests = dict(digests or {})
        self.route = route
        self.reads_images = [member.reads_images for member in self.by_name.values()]
        groups: dict[tuple[type | None, int], list[int]] = {}
        for number, member in enumerate(self.by_name.values()):
            is_shared = isinstance(member, RewardModel) and member.paradigm.shares_backbone
            if isinstance(member, RewardModel) and is_shared:
                key: tuple[type | None, int] = (type(member.paradigm), id(member.backbone))
            else:
                key = (None, number)
            groups.setdefault(key, []).append(number)
        self._groups = [self._widest_first(group) for group in groups.values()]

    @classmethod
    def load(
        cls,
        sources: Mapping[str, Source],
        *,
        route: Route | None,
        device: str,
        precision: str | None,
        plugins: PluginManager,
        verify: bool,
        backbone_options: Mapping[str, Any] | None = None,
        writer_options: Mapping[str, Any] | None = None,
        saved: Mapping[str, SavedMember] | None = None,
    ) -> EnsembleMembers:
        """Load members by name; those with one backbone, to the bytes of its files, share it.

        The arguments are as of `Ensemble.load`; `saved` are the members that its directory has.

        Raises:
            ModelError: Naming the member, and the file or tensor that is at fault.
            ConfigError: Naming the member, when a judge's file is wrong, or it may not be asked.
        """
        members: dict[str, Member] = {}
        digests: dict[str, str] = {}
        with_backbone: dict[str, RewardModel] = {}
        for name, source in sources.items():
            if is_judge(source):
                of_saved = (saved or {}).get(name)
                try:
                    members[name] = load_judge(
                        source, plugins=plugins, options=writer_options or {}, saved=of_saved
                    )
                except (ConfigError, ModelError) as error:
                    raise type(error)(f"member {name!r}: {error}") from error
                continue
            directory = Path(source)
            try:
                config = model_directory.read(directory, verify=verify)
                if "members" in config:
                    raise ModelError(
                        f"{directory} is an ensemble itself; name its members, in {directory}/members"
                    )
                key = _backbone_key(config)
                shared = with_backbone.get(key)
                settings: dict[str, Any] = {
                    "device": device,
                    "precision": precision,
                    "plugins": plugins,
                    "verify": False,
                    "backbone_options": backbone_options,
                }
                model = RewardModel.load(directory, shared=shared, **settings)
                if shared is not None and model.layer != shared.layer:
                    model = RewardModel.load(directory, **settings)
            except ModelError as error:
                raise ModelError(f"member {name!r}: {error}") from error
            with_backbone.setdefault(key, model)
            members[name] = model
            digests[name] = file_digest(directory / model_directory.CONFIG_FILE)
        return cls(members, route, digests)

    @property
    def models(self) -> list[RewardModel]:
        """The members that are models, in their order."""
        return [member for member in self.by_name.values() if isinstance(member, RewardModel)]

    @property
    def judges(self) -> dict[str, WriterJudge]:
        """The members that ask a writer, by name."""
        return {name: each for name, each in self.by_name.items() if isinstance(each, WriterJudge)}

    @property
    def names(self) -> list[str]:
        """The members' names, in their order."""
        return list(self.by_name)

    @property
    def statistics(self) -> dict[str, float]:
        """The statistics of each member, their names after the member's."""
        return {
            f"{member} {name}": value
            for member, each in self.by_name.items()
            for name, value in each.statistics.items()
        }

    @property
    def num_truncated(self) -> int:
        """Responses cut short so far, each time a backbone read them."""
        backbones = {id(model.backbone): model for model in self.models}
        return sum(model.num_truncated for model in backbones.values())

    @property
    def smallest_batch(self) -> int:
        """The comparisons that have to be scored at once to keep the judges busy."""
        return max([1, *(judge.smallest_batch for judge in self.judges.values())])

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, Tensor | DataError]]:
        """Yield each comparison with its rewards or its error, in order.

        Judges are asked about as many at once as keep them busy; models take `batch_size` at once.
        """
        yield from super().score_stream(comparisons, batch_size=self.batch_for(batch_size))

    def batch_for(self, pass_size: int) -> int:
        """Set the comparisons of a forward pass, and return those of a batch, which are more for judges."""
        self.pass_size = pass_size if self.judges else None
        return max(pass_size, self.smallest_batch) if pass_size > 0 else pass_size

    def prepare_batch(self, batch: Sequence[Comparison]) -> list[Prepared[Any] | DataError]:
        """Return each comparison as each group of members prepares it, or the error of a member's."""
        routes = [self._routed(comparison) for comparison in batch]
        columns: list[list[Prepared[Any] | DataError | None]] = []
        for group in self._groups:
            rows = [row for row, routed in enumerate(routes) if any(routed[number] for number in group)]
            prepared = self._member(group[0]).prepare_batch([batch[row] for row in rows])
            by_row = dict(zip(rows, prepared, strict=True))
            columns.append([by_row.get(row) for row in range(len(batch))])
        return [
            self._joined(comparison, routed, items)
            for comparison, routed, *items in zip(batch, routes, *columns, strict=True)
        ]

    def _joined(
        self,
        comparison: Comparison,
        routed: Sequence[bool],
        items: Sequence[Prepared[Any] | DataError | None],
    ) -> Prepared[Any] | DataError:
        """Return a comparison as all groups have prepared it; its size is the largest of theirs."""
        group_of = {member: number for number, group in enumerate(self._groups) for member in group}
        for member, name in enumerate(self.by_name):
            error = items[group_of[member]]
            if routed[member] and isinstance(error, DataError):
                return _of_member(name, error)
        prepared = [item if isinstance(item, Prepared) else None for item in items]
        sizes = [item.size for item in prepared if item is not None]
        size = Size(max(size.tokens for size in sizes), max(size.patches for size in sizes))
        return Prepared(comparison, Routed(routed, prepared), size)

    def score_prepared(self, batch: Sequence[Prepared[Any] | DataError]) -> list[Tensor | DataError]:
        """Return each comparison's rewards [M, n] fp32, or the error of a member that scores it."""
        usable = [item for item in batch if not isinstance(item, DataError)]
        results: list[dict[int, list[float] | DataError]] = [{} for _ in usable]

        def add(number: int, score: Callable[[Sequence[int], Sequence[Prepared[Any]]], Any]) -> None:
            items = [(row, item.content.items[number]) for row, item in enumerate(usable)]
            given = [(row, item) for row, item in items if item is not None]
            group = self._groups[number]
            scored = score(group, [item for _, item in given])
            for member, of_member in zip(group, scored, strict=True):
                for (row, _), result in zip(given, of_member, strict=True):
                    results[row][member] = result

        numbers = range(len(self._groups))
        judges = [
            number for number in numbers if isinstance(self._member(self._groups[number][0]), WriterJudge)
        ]
        with ThreadPoolExecutor(max(1, len(judges)), thread_name_prefix="basereward-judge") as threads:
            waiting = [threads.submit(add, number, self._ask) for number in judges]
            for number in numbers:
                if number not in judges:
                    add(number, self._score_group)
            for each in waiting:
                each.result()
        stacked = iter([self._stacked(item, result) for item, result in zip(usable, results, strict=True)])
        return [item if isinstance(item, DataError) else next(stacked) for item in batch]

    def _ask(
        self, group: Sequence[int], batch: Sequence[Prepared[Any]]
    ) -> list[list[list[float] | DataError]]:
        """Return the results of the only member of a group, a judge."""
        return [self._member(group[0]).score_prepared(batch)]

    def _score_group(
        self, group: Sequence[int], batch: Sequence[Prepared[Any]]
    ) -> list[list[list[float] | DataError]]:
        """Return the results of each member of a group of models."""
        size = self.pass_size or max(1, len(batch))
        passes = [
            self._score_pass(group, batch[first : first + size]) for first in range(0, len(batch), size)
        ]
        return [[result for each in passes for result in each[place]] for place in range(len(group))]

    @torch.no_grad()
    def _score_pass(
        self, group: Sequence[int], batch: Sequence[Prepared[Any]]
    ) -> list[list[list[float] | DataError]]:
        """Return the results of each member of a group, whose hidden states are computed once."""
        first = self._model(group[0])
        if len(group) == 1:
            return [first.score_prepared(batch)]
        models = [self._model(number) for number in group]
        with first.precision.autocast():
            hidden, forest = first.paradigm.hidden_states(batch)
            rewards = [model.paradigm.rewards_of(hidden, forest).tolist() for model in models]
        return [model.results_of(batch, each) for model, each in zip(models, rewards, strict=True)]

    def _stacked(
        self, item: Prepared[Routed], results: Mapping[int, list[float] | DataError]
    ) -> Tensor | DataError:
        """Return the rewards [M, n] of all members, not-a-number for those that don't score it."""
        rows = []
        for number, (name, is_routed) in enumerate(zip(self.by_name, item.content.routed, strict=True)):
            result = results[number] if is_routed else [float("nan")] * len(item.comparison.responses)
            if isinstance(result, DataError):
                return _of_member(name, result)
            rows.append(result)
        return torch.tensor(rows)

    def _routed(self, comparison: Comparison) -> Sequence[bool]:
        if self.route is None:
            return [True] * len(self.by_name)
        routed = self.route(comparison, self.reads_images)
        num = len(comparison.responses)
        able = [
            is_routed and member.takes(num)
            for is_routed, member in zip(routed, self.by_name.values(), strict=True)
        ]
        return able if any(able) else routed

    def _member(self, number: int) -> Member:
        return list(self.by_name.values())[number]

    def _model(self, number: int) -> RewardModel:
        model = self._member(number)
        assert isinstance(model, RewardModel)
        return model

    def _widest_first(self, group: list[int]) -> list[int]:
        """Put a member first that reads all hidden states, if there is one: its states serve all."""
        if len(group) == 1:
            return group
        return sorted(group, key=lambda number: self._model(number).paradigm.reads != "all")


def _of_member(name: str, error: DataError) -> DataError:
    return type(error)(f"member {name!r}: {error.reason}", field=error.field)


def _backbone_key(config: Mapping[str, Any]) -> str:
    """Return what decides a model's hidden states and how its paradigm makes rewards of them."""
    backbone, paradigm = (dict(config["components"][kind]) for kind in ("backbone", "paradigm"))
    for entry in (backbone, paradigm):
        entry.pop("version")
    backbone["options"] = {name: value for name, value in backbone["options"].items() if name != "model"}
    files = dict(config["files"])
    head_digest = files.pop(model_directory.HEAD_FILE, "")
    if (paradigm["plugin"], paradigm["name"]) != ("basereward", "scalar"):
        # Such as a language-model head, whose weights may be the backbone's own.
        files[model_directory.HEAD_FILE] = head_digest
    return json.dumps([backbone, paradigm, files], sort_keys=True)
