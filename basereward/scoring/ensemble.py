"""An ensemble: several models and judges as one, in a directory of its own, that scores like one.

Shapes: M members, N responses, n responses of one comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import tee
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basereward.comparison import Comparison
from basereward.config.conversion import ComponentLike, component_of
from basereward.ensemblers import margins
from basereward.errors import ConfigError, DataError, ModelError
from basereward.paradigms.verdicts import Verdicts
from basereward.plugins.plugin_manager import PluginManager, manager
from basereward.prepared import Prepared
from basereward.protocols import Ensembler
from basereward.scoring.component_record import describe, saved_component
from basereward.scoring.ensemble_directory import (
    FOLDER,
    Source,
    member_facts,
    named_sources,
    place_judge,
    place_model,
    saved_members,
)
from basereward.scoring.ensemble_members import EnsembleMembers, Route
from basereward.scoring.member_scales import (
    MemberStatistics,
    ScaleMonitor,
    warn_of_saved_scales,
    warn_of_units,
)
from basereward.scoring.model_card import model_card
from basereward.scoring.pretrained import Pretrained
from basereward.scoring.reward_model import RewardModel, calibration_of
from basereward.scoring.scorer import BatchScorer, EnsembleRewards
from basereward.scoring.writer_judge import WriterJudge
from basereward.stats.calibration import Calibration, temperature_of
from basereward.storage import model_directory
from basereward.storage.atomic import file_digest, replace_directory


class Ensemble(BatchScorer[EnsembleRewards], Pretrained):
    """Several models and judges as one. Make one with `of` or `load`.

    Args:
        members: The models and judges.
        ensembler: Combines their rewards.
        component: The ensembler as a directory records it.
        sources: The members' directories, and their judges' files or addresses.
        measured: Measurements of each member, if there are any.
        record: Further facts for the directory.
    """

    is_ensemble = True

    def __init__(
        self,
        members: EnsembleMembers,
        ensembler: Ensembler,
        component: Mapping[str, Any],
        sources: Mapping[str, Source],
        measured: Mapping[str, MemberStatistics] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.members = members
        self.ensembler = ensembler
        self.component = dict(component)
        self.sources = dict(sources)
        self.measured = dict(measured or {})
        self.record = dict(record or {})
        self.is_fitted = not ensembler.learns
        is_watched = len(members.names) > 1 and not ensembler.is_scale_free
        self._watch = ScaleMonitor(members.names, self.component["name"]) if is_watched else None

    @classmethod
    def of(
        cls,
        sources: Iterable[Source] | Mapping[str, Source],
        ensembler: ComponentLike | None = None,
        *,
        device: str = "auto",
        precision: str | None = None,
        plugins: PluginManager | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        writer_options: Mapping[str, Any] | None = None,
    ) -> Ensemble:
        """Make an ensemble of models and judges; one whose ensembler learns has to be fitted then.

        Args:
            sources: The members: directories of models, files of judges, and addresses of their servers; by
                name, or named by the parts in which they differ.
            ensembler: The rule that combines their rewards: a name, a table, or a `Component`; the mean by
                default.
            device: Device of the weights; `auto` for a GPU if there is one.
            precision: Precision of matrix products, as in `RewardModel.load`.
            plugins: Plugins that provide the components; None for the installed ones.
            backbone_options: Options of the backbones that replace the saved ones, such as
                {"dtype": "bfloat16"}.
            writer_options: Options of judges' writers, in the place of those of their files.

        Raises:
            ConfigError: When there is no member, one is named twice, or a judge's file is wrong.
            ModelError: Naming the member, and the file or tensor that is at fault.
        """
        plugins = plugins or manager()
        named = named_sources(sources)
        component = component_of(ensembler or "mean", "ensembler")
        built: Ensembler = plugins.build("ensembler", component)
        members = EnsembleMembers.load(
            named,
            route=_route_of(built),
            device=device,
            precision=precision,
            plugins=plugins,
            verify=True,
            backbone_options=backbone_options,
            writer_options=writer_options,
        )
        if not built.is_scale_free:
            each = members.by_name.items()
            warn_of_units({name: member.reward_unit for name, member in each}, component.name)
            records = {
                name: member.record if isinstance(member, RewardModel) else {} for name, member in each
            }
            warn_of_saved_scales(records, component.name)
        return cls(members, built, describe(plugins, "ensembler", component), named)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str = "auto",
        precision: str | None = None,
        plugins: PluginManager | None = None,
        verify: bool = True,
        backbone_options: Mapping[str, Any] | None = None,
        writer_options: Mapping[str, Any] | None = None,
    ) -> Ensemble:
        """Load an ensemble's directory, as strictly as a model's.

        Args:
            directory: A directory that `save` wrote.
            device: Device of the weights; `auto` for a GPU if there is one.
            precision: Precision of matrix products, as in `RewardModel.load`.
            plugins: Plugins that provide the components; None for the installed ones.
            verify: Whether every file's SHA-256 is compared; False for directories that were verified before.
            backbone_options: Options of the backbones that replace the saved ones.
            writer_options: Options of judges' writers, in the place of the saved ones; without `allow_upload`
                among them, no judge may ask another machine.

        Raises:
            ModelError: Naming the file, member or tensor that is at fault.
            ConfigError: Naming a judge that would ask another machine.
        """
        directory = Path(directory)
        config = model_directory.read(directory, verify=verify)
        if "members" not in config:
            raise ModelError(f"{directory} is a model, no ensemble; basereward.load_model(DIR) loads both")
        plugins = plugins or manager()
        component = config["components"]["ensembler"]
        ensembler: Ensembler = plugins.build("ensembler", saved_component(plugins, "ensembler", component))
        saved = saved_members(directory, config)
        named: dict[str, Source] = {name: member.source for name, member in saved.items()}
        measured = {name: member.measured for name, member in saved.items() if member.measured is not None}
        if ensembler.learns:
            try:
                ensembler.load_state(config["state"])
            except (KeyError, TypeError, ValueError) as error:
                raise ModelError(
                    f"{directory / model_directory.CONFIG_FILE} is damaged: state: {error!r}"
                ) from error
        members = EnsembleMembers.load(
            named,
            route=_route_of(ensembler),
            device=device,
            precision=precision,
            plugins=plugins,
            verify=verify,
            backbone_options=backbone_options,
            writer_options=writer_options,
            saved=saved,
        )
        ensemble = cls(members, ensembler, component, named, measured, config["record"])
        ensemble.is_fitted = True
        return ensemble

    def fit(
        self,
        comparisons: Iterable[Comparison],
        *,
        batch_size: int = 8,
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        """Measure the members on comparisons whose order is known, and learn what the ensembler learns.

        A comparison without ranks, or one that a member can't score, is left out; `record` counts them.

        Args:
            comparisons: Comparisons that no member was trained on; arXiv 2509.16127 uses 1,000.
            batch_size: Comparisons in a forward pass.
            advance: Called when each comparison is done.

        Raises:
            DataError: When nothing can be learned from them.
        """
        rows: list[Comparison] = []
        columns: list[Tensor] = []
        errors: list[DataError] = []
        for comparison, result in self.members.score_stream(comparisons, batch_size=batch_size):
            advance()
            if comparison.ranks is None:
                result = DataError("the comparison has no ranks, so no response is known to be better")
            if isinstance(result, DataError):
                errors.append(result)
                continue
            rows.append(comparison)
            columns.append(result)
        if not rows:
            first = f", the first: {errors[0]}" if errors else ""
            raise DataError(f"none of {len(errors)} comparisons can be learned of{first}")
        rewards = torch.cat(columns, 1)  # [M, N]
        if self.ensembler.learns:
            self.ensembler.fit(rewards, rows)
            self.is_fitted = True
        self._look_at(rewards, rows)
        each = zip(self.members.names, rewards, strict=True)
        self.measured = {
            name: statistics
            for name, row in each
            if (statistics := MemberStatistics.of(row[None], rows)) is not None
        }
        self.record["fit"] = {
            "num_comparisons": len(rows),
            "num_left_out": len(errors),
            **self._scale_of(self.ensembler(rewards, rows).double(), rows),
        }

    def _scale_of(self, joined: Tensor, rows: Sequence[Comparison]) -> dict[str, float]:  # [N]
        """Return temperature and mean of joined rewards; nothing where the ensembler gives none for some."""
        if not bool(joined.isfinite().all()):
            return {}
        margin = margins(joined[None], rows)[0].numpy()
        return {
            "temperature": temperature_of(margin, num_pseudo_pairs=1),
            "reward_mean": float(joined.mean()),
        }

    def save(self, directory: str | Path, **record: Any) -> None:
        """Write the ensemble's directory aside and put it in place at once; an older one there is replaced.

        The members' files are linked where the file system can do it, else copied.

        Args:
            directory: Where to.
            record: Facts to add to the directory's record.

        Raises:
            ConfigError: When the ensembler must be fitted first.
            ModelError: When the directory of a member has changed since it was loaded.
        """
        if not self.is_fitted:
            raise ConfigError(f"ensembler {self.component['name']!r} learns from comparisons; fit it first")
        with replace_directory(Path(directory), foreign_files=model_directory.foreign_files) as place:
            placed: dict[str, Path] = {}
            for name, source in self.sources.items():
                if name in self.judges:
                    place_judge(self.judges[name], place / FOLDER / name)
                    continue
                directory = Path(source)
                if file_digest(directory / model_directory.CONFIG_FILE) != self.members.digests[name]:
                    raise ModelError(f"{directory} has changed since it was loaded; load it again")
                place_model(directory, place / FOLDER / name, placed)
            facts = {
                "components": {"ensembler": self.component},
                "members": [
                    member_facts(name, self.measured.get(name), self.judges.get(name))
                    for name in self.members.names
                ],
                "state": self.state,
                "record": {**self.record, **record},
            }
            (place / model_directory.CARD_FILE).write_text(model_card(facts), "utf-8", "backslashreplace")
            model_directory.write_config(place, facts)

    def to(self, device: str | torch.device, *, precision: str | None = None) -> Ensemble:
        """Move the members' weights to a device, as `RewardModel.to` does, and return the ensemble."""
        for model in self.models:
            model.to(device, precision=precision)
        return self

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(self.members.names)}; ensembler={self.component['name']!r})"

    @property
    def statistics(self) -> dict[str, float]:
        """The statistics of each member, their names after the member's."""
        return self.members.statistics

    @property
    def num_truncated(self) -> int:
        """Responses cut short so far, each time a backbone read them."""
        return self.members.num_truncated

    @property
    def calibration(self) -> Calibration:
        """The scale of the joined rewards on the comparisons that it was fitted on."""
        return calibration_of(self.record.get("fit"))

    @property
    def is_comparative(self) -> bool:
        """Whether a response's reward depends on the responses beside it."""
        return self.ensembler.is_comparative or any(
            each.is_comparative for each in self.members.by_name.values()
        )

    @property
    def state(self) -> dict[str, Any] | None:
        """The learned state of the ensembler; None for one that learns nothing."""
        return dict(self.ensembler.state()) if self.ensembler.learns else None

    @property
    def models(self) -> list[RewardModel]:
        """The members that are models."""
        return self.members.models

    @property
    def judges(self) -> dict[str, WriterJudge]:
        """The members that ask a writer, by name."""
        return self.members.judges

    @property
    def reads_images(self) -> bool:
        """Whether some member can be asked about comparisons with images."""
        return any(self.members.reads_images)

    @property
    def computed(self) -> Mapping[str, str]:
        """The device and the precision of the models' products, and what each judge is."""
        judges = {
            f"{name} {key}": text
            for name, judge in self.judges.items()
            for key, text in judge.computed.items()
        }
        return {**super().computed, **judges}

    @property
    def facts(self) -> Mapping[str, str]:
        """All that the judges' writers say of themselves, its names after the member's."""
        return {
            f"{name} {key}": text for name, judge in self.judges.items() for key, text in judge.facts.items()
        }

    @property
    def smallest_batch(self) -> int:
        """The comparisons that have to be scored at once to keep the judges busy."""
        return self.members.smallest_batch

    def recording_verdicts(self) -> AbstractContextManager[dict[int, Verdicts]]:
        """Give a dictionary that takes the verdicts of an ensemble of one model; no others are recorded."""
        return nullcontext({}) if self.judges else super().recording_verdicts()

    def estimate(self, comparisons: Iterable[Comparison | DataError]) -> dict[str, float]:
        """Return what the judges' questions would take, its names after the member's, and ask nothing."""
        streams = tee(comparisons, len(self.judges))
        return {
            f"{name} {key}": value
            for (name, judge), each in zip(self.judges.items(), streams, strict=True)
            for key, value in judge.estimate(each).items()
        }

    def score_stream(
        self, comparisons: Iterable[Comparison], *, batch_size: int = 8
    ) -> Iterator[tuple[Comparison, EnsembleRewards | DataError]]:
        """Yield each comparison with its rewards or its error, as `EnsembleMembers.score_stream` does."""
        yield from super().score_stream(comparisons, batch_size=self.members.batch_for(batch_size))

    def prepare_batch(self, batch: Sequence[Comparison]) -> list[Prepared[Any] | DataError]:
        """Do what the CPU can do ahead, once for members that share a backbone."""
        return self.members.prepare_batch(batch)

    def score_prepared(self, batch: Sequence[Prepared[Any] | DataError]) -> list[EnsembleRewards | DataError]:
        """Return each comparison's rewards, or the error of the member that can't score it."""
        if not self.is_fitted:
            raise ConfigError(f"ensembler {self.component['name']!r} learns from comparisons; fit it first")
        results = self.members.score_prepared(batch)
        scored = [
            (item.comparison, result)
            for item, result in zip(batch, results, strict=True)
            if not isinstance(item, DataError) and not isinstance(result, DataError)
        ]
        if not scored:
            return [result for result in results if isinstance(result, DataError)]
        comparisons = [comparison for comparison, _ in scored]
        members = torch.cat([rewards for _, rewards in scored], 1)  # [M, N]
        self._look_at(members, comparisons)
        sizes = [len(comparison.responses) for comparison in comparisons]
        joined = iter(torch.split(self.ensembler(members, comparisons), sizes))
        return [
            result if isinstance(result, DataError) else self._rewards(next(joined), result)
            for result in results
        ]

    def _rewards(self, joined: Tensor, members: Tensor) -> EnsembleRewards | DataError:
        if not bool(joined.isfinite().all()):
            default = f"ensembler {self.component['name']!r} gives a reward that is not finite"
            return DataError(self.ensembler.reason_for_nan or default, field="responses")
        of_each = {
            name: rewards.tolist()
            for name, rewards in zip(self.members.names, members, strict=True)
            if not bool(rewards.isnan().any())
        }
        return EnsembleRewards(joined.tolist(), of_each, self._disagreement(members))

    def _disagreement(self, members: Tensor) -> list[float]:  # [M, n] -> [n]
        values = members.double()
        if len(self.measured) == len(members):
            measured = [self.measured[name] for name in self.members.names]
            mean = torch.tensor([member.mean for member in measured], dtype=torch.float64)[:, None]
            scale = torch.tensor([member.scale or 1.0 for member in measured], dtype=torch.float64)[:, None]
            values = (values - mean) / scale
        asked = values[~values.isnan().any(1)]
        return asked.std(0, correction=0).tolist() if len(asked) > 1 else []

    def _look_at(self, members: Tensor, comparisons: Sequence[Comparison]) -> None:
        if self._watch is not None and self._watch.add(members, comparisons):
            self._watch = None


def _route_of(ensembler: Ensembler) -> Route | None:
    """Return the rule of an ensembler that asks some members only; None for one that asks all."""
    return None if type(ensembler).route is Ensembler.route else ensembler.route
