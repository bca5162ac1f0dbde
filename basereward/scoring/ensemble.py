"""An ensemble: several reward models as one, in a directory of its own, that scores like one.

Shapes: M members, N responses, n responses of one comparison.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basereward.comparison import Comparison
from basereward.config.conversion import ComponentLike, component_of
from basereward.ensemblers import margins
from basereward.errors import ConfigError, DataError, ModelError
from basereward.plugins.plugin_manager import PluginManager, manager
from basereward.prepared import Prepared
from basereward.protocols import Ensembler
from basereward.scoring.component_record import describe, saved_component
from basereward.scoring.ensemble_members import EnsembleMembers
from basereward.scoring.member_scales import MemberStatistics, ScaleMonitor
from basereward.scoring.model_card import model_card
from basereward.scoring.pretrained import Pretrained
from basereward.scoring.reward_model import RewardModel, calibration_of
from basereward.scoring.scorer import BatchScorer, EnsembleRewards
from basereward.stats.calibration import Calibration, temperature_of
from basereward.storage import model_directory
from basereward.storage.atomic import file_digest, replace_directory
from basereward.storage.outputs import real_path

FOLDER = "members"
"""The directory within an ensemble's that has its members'."""


class Ensemble(BatchScorer[EnsembleRewards], Pretrained):
    """Several reward models as one. Make one with `of` or `load`.

    Args:
        members: The models.
        ensembler: Joins their rewards.
        component: What a directory says of the ensembler.
        directories: The members' model directories.
        measured: What each member is like, where that is known.
        record: Further facts for the directory.
    """

    is_ensemble = True

    def __init__(
        self,
        members: EnsembleMembers,
        ensembler: Ensembler,
        component: Mapping[str, Any],
        directories: Mapping[str, Path],
        measured: Mapping[str, MemberStatistics] | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.members = members
        self.ensembler = ensembler
        self.component = dict(component)
        self.directories = dict(directories)
        self.measured = dict(measured or {})
        self.record = dict(record or {})
        self.is_fitted = not ensembler.learns
        is_watched = len(members.names) > 1 and not ensembler.is_scale_free
        self._watch = ScaleMonitor(members.names, self.component["name"]) if is_watched else None

    @classmethod
    def of(
        cls,
        directories: Iterable[str | Path] | Mapping[str, str | Path],
        ensembler: ComponentLike | None = None,
        *,
        device: str = "auto",
        precision: str | None = None,
        plugins: PluginManager | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> Ensemble:
        """Make an ensemble of model directories; one whose ensembler learns has to be fitted then.

        Args:
            directories: Of the members, by name, or named by what tells them apart.
            ensembler: What joins their rewards: a name, a table, or a `Component`; the mean by default.
            device: Where the weights go; `auto` for a GPU where there is one.
            precision: Of matrix products, as of `RewardModel.load`.
            plugins: Where components are looked up; None for the installed ones.
            backbone_options: Options of the backbones that replace the saved ones, such as
                {"dtype": "bfloat16"}.

        Raises:
            ConfigError: When there is no member, or one is named twice.
            ModelError: Naming the member, and the file or tensor that is at fault.
        """
        plugins = plugins or manager()
        named = _named(directories)
        component = component_of(ensembler or "mean", "ensembler")
        built: Ensembler = plugins.build("ensembler", component)
        members = EnsembleMembers.load(
            named,
            route=built.route,
            device=device,
            precision=precision,
            plugins=plugins,
            verify=True,
            backbone_options=backbone_options,
        )
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
    ) -> Ensemble:
        """Load an ensemble's directory, as strictly as a model's.

        Args:
            directory: What `save` wrote.
            device: Where the weights go; `auto` for a GPU where there is one.
            precision: Of matrix products, as of `RewardModel.load`.
            plugins: Where components are looked up; None for the installed ones.
            verify: Whether every file's SHA-256 is compared; False for directories that were verified before.
            backbone_options: Options of the backbones that replace the saved ones.

        Raises:
            ModelError: Naming the file, member or tensor that is at fault.
        """
        directory = Path(directory)
        config = model_directory.read(directory, verify=verify)
        if "members" not in config:
            raise ModelError(f"{directory} is a model, no ensemble; basereward.load_model(DIR) loads both")
        plugins = plugins or manager()
        component = config["components"]["ensembler"]
        ensembler: Ensembler = plugins.build("ensembler", saved_component(plugins, "ensembler", component))
        named, measured = _saved_members(directory, config)
        if ensembler.learns:
            try:
                ensembler.load_state(config["state"])
            except (KeyError, TypeError, ValueError) as error:
                raise ModelError(
                    f"{directory / model_directory.CONFIG_FILE} is damaged: state: {error!r}"
                ) from error
        members = EnsembleMembers.load(
            named,
            route=ensembler.route,
            device=device,
            precision=precision,
            plugins=plugins,
            verify=verify,
            backbone_options=backbone_options,
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
            comparisons: Some that no member was trained on; arXiv 2509.16127 takes 1,000.
            batch_size: Comparisons a forward pass.
            advance: Called as each comparison is done.

        Raises:
            DataError: When nothing can be learned of them.
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
            ConfigError: When the ensembler has to learn something first.
            ModelError: When a member's directory isn't any more what was loaded.
        """
        if not self.is_fitted:
            raise ConfigError(f"ensembler {self.component['name']!r} learns from comparisons; fit it first")
        with replace_directory(Path(directory), foreign_files=model_directory.foreign_files) as place:
            placed: dict[str, Path] = {}
            for name, source in self.directories.items():
                if file_digest(source / model_directory.CONFIG_FILE) != self.members.digests[name]:
                    raise ModelError(f"{source} has changed since it was loaded; load it again")
                _place(source, place / FOLDER / name, placed)
            facts = {
                "components": {"ensembler": self.component},
                "members": [
                    {"name": name, "measured": asdict(self.measured[name]) if name in self.measured else None}
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
        return self.ensembler.is_comparative or any(model.is_comparative for model in self.models)

    @property
    def state(self) -> dict[str, Any] | None:
        """The learned state of the ensembler; None for one that learns nothing."""
        return dict(self.ensembler.state()) if self.ensembler.learns else None

    @property
    def models(self) -> list[RewardModel]:
        """The members' models."""
        return self.members.models

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


def _named(directories: Iterable[str | Path] | Mapping[str, str | Path]) -> dict[str, Path]:
    """Return the members' directories by names; those that have none are called by what tells them apart.

    `runs/a/model` and `runs/b/model` are a and b.
    """
    if isinstance(directories, Mapping):
        named = {name: Path(path) for name, path in directories.items()}
        for name in named:
            if not _is_name(name):
                raise ConfigError(f"a member's name is that of a directory, not {name!r}")
    else:
        paths = [Path(path) for path in directories]
        parts = [real_path(path).parts for path in paths]
        if len(set(parts)) < len(parts):
            twice = next(str(path) for path, part in zip(paths, parts, strict=True) if parts.count(part) > 1)
            raise ConfigError(f"{twice} is a member twice; once is enough")
        while len(parts) > 1 and len({part[-1] for part in parts}) == 1:
            parts = [part[:-1] for part in parts]
        depth = 1
        while len({part[-depth:] for part in parts}) < len(parts):
            depth += 1
        named = {"-".join(part[-depth:]): path for part, path in zip(parts, paths, strict=True)}
    if not named:
        raise ConfigError("an ensemble needs at least one member; give model directories")
    return named


def _is_name(name: str) -> bool:
    """Tell whether a member can be called so: its directory must lie in that of the ensemble."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\")


def _saved_members(
    directory: Path, config: Mapping[str, Any]
) -> tuple[dict[str, Path], dict[str, MemberStatistics]]:
    """Return the members' directories and what they are like, as an ensemble's directory has them.

    Raises:
        ModelError: When it has them in another form.
    """
    try:
        entries = {entry["name"]: entry["measured"] for entry in config["members"]}
        if not entries or len(entries) < len(config["members"]) or not all(map(_is_name, entries)):
            raise ValueError([entry["name"] for entry in config["members"]])
        measured = {
            name: MemberStatistics(**values) for name, values in entries.items() if values is not None
        }
        return {name: directory / FOLDER / name for name in entries}, measured
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = directory / model_directory.CONFIG_FILE
        raise ModelError(f"{path} is damaged: members: {error!r}") from error


def _place(source: Path, target: Path, placed: dict[str, Path]) -> None:
    """Put a member's files into an ensemble.

    Args:
        source: The member's own directory.
        target: Its directory in the ensemble.
        placed: A file of each SHA-256 that the ensemble has already.

    Raises:
        ModelError: When the member's own directory isn't any more what it was.
    """
    files = model_directory.read(source, verify=True)["files"]
    config = model_directory.CONFIG_FILE
    for name, digest in {**files, config: file_digest(source / config)}.items():
        origin = placed.setdefault(digest, source / name)
        there = target / name
        there.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(origin, there)
        except OSError:
            shutil.copyfile(origin, there)
