"""The training loop: steps, evaluations and checkpoints, in an order that a resumed run repeats exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from basereward.config.run import RunConfig
from basereward.data.curation import Curation
from basereward.errors import DataError
from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.batching import passes, size_of
from basereward.training import run_directory
from basereward.training.checkpoints import Checkpoint, CheckpointError, Checkpoints
from basereward.training.data_loader import (
    Reader,
    RowsInMemory,
    StreamedRows,
    TrainingRows,
    nothing_usable,
    why_useless,
)
from basereward.training.distributed import Ranks
from basereward.training.model_selection import Best
from basereward.training.model_state import Learner
from basereward.training.nonfinite import found_not_finite
from basereward.training.prefetch import Batch, batches
from basereward.training.progress import Display
from basereward.training.rejected_rows import RejectedRows
from basereward.training.run_log import RunLog
from basereward.training.schedule import schedule_factor, set_learning_rate
from basereward.training.seeding import seed_everything, seed_step
from basereward.training.shutdown import StopRequest, TrainingStopped
from basereward.training.step_metrics import Window
from basereward.training.throughput import Work
from basereward.training.validation import HeldOut, why_not_judged


@dataclass
class State:
    """Where a training is.

    Args:
        step: Optimizer steps that are done.
        epoch: The epoch of the next step, counted from 0.
        position: Rows of that epoch that are done.
        num_used: Comparisons trained on so far.
        train_seconds: Time spent so far.
        is_evaluation_due: Whether the step's evaluation was put off, since a signal was to end the training.
        num_worse: Evaluations since the best one.
        best: Metrics of the best evaluation so far, and its step.
        latest: The same of the latest evaluation.
        window: Sums since the last record of a step.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    num_used: int = 0
    train_seconds: float = 0.0
    is_evaluation_due: bool = False
    num_worse: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)
    window: list[float] = field(default_factory=list)


class Training:
    """One training, from its start or its checkpoint to its last step.

    Args:
        config: The run, its components' options filled in.
        plugins: Where components are looked up.
        run_dir: Where everything goes.
        checkpoints: Where checkpoints go.
        checkpoint: Where to go on from.
        rejected: Takes the rows that can't be used.
        display: Shows how it goes.
        ranks: The processes that train together, each with an object of this class.
    """

    def __init__(
        self,
        config: RunConfig,
        plugins: PluginManager,
        run_dir: Path,
        checkpoints: Checkpoints,
        checkpoint: Checkpoint | None,
        rejected: RejectedRows,
        display: Display,
        ranks: Ranks,
    ) -> None:
        self.ranks = ranks
        self.config, self.settings, self.rejected = config, config.train, rejected
        self.run_dir, self.checkpoints, self.display = run_dir, checkpoints, display
        saved = checkpoint.state if checkpoint else {}
        self.state = State(**saved["training"]) if checkpoint else State()
        self.window = Window(self.state.window)
        self.batch_size = self.settings.batch_size
        self.best_by = Best(self.settings)

        # Reading comes first: its errors are the commonest, and a big model takes minutes to load.
        loss = plugins.build("loss", config.loss)
        read = partial(Reader, plugins=plugins, rejected=rejected, progress=display.reading)
        reader = read(
            config.data.train,
            split="train",
            why_not=partial(why_useless, loss=loss),
            curation=Curation.of(config.data.curation, plugins),
        )
        for dataset in reader.datasets:
            if told := getattr(dataset, "unread_splits", ""):
                display.line(told)
        kind = StreamedRows if config.data.streaming else RowsInMemory
        self.rows: TrainingRows = kind(reader, config.data, seed=config.seed, shuffle=self.settings.shuffle)
        with display.busy("counting the training data") if config.data.streaming else nullcontext():
            self.rows.turn_to(self.state.epoch)
        if config.data.curation and not config.data.streaming and ranks.is_first:
            reader.curation.save(run_dir / run_directory.CURATION_FILE)
        self.num_steps: int = saved.get("num_steps") or self._count_steps(self.rows.num_rows)
        self.held_out: HeldOut | None = None
        if config.data.eval:
            held_out = read(config.data.eval, split="eval", why_not=why_not_judged)
            batch_size = min(self.settings.micro_batch_size or self.batch_size, self.batch_size)
            self.held_out = HeldOut(held_out, rejected, batch_size, ranks)

        seed_everything(config.seed)
        with display.busy(f"building a model on backbone {config.backbone.name}"):
            self.learner = Learner(config, plugins, ranks)
            if checkpoint is not None:
                self._restore(checkpoint)
        steps = f"{self.num_steps} steps of {self.batch_size} comparisons"
        display.line(f"{self.learner.description}: {steps}")
        self.log: RunLog | None = None
        if ranks.is_first:
            self.log = RunLog(
                run_dir, plugins, offset=saved.get("log_bytes", 0), step=self.state.step, warn=display.line
            )

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *error: object) -> None:
        self.display.stop()
        self.learner.release()
        if self.log is not None:
            self.log.close()

    def run(self) -> None:
        """Take the steps that are left.

        Raises:
            NotFinite: When the loss or its gradient is not finite.
            TrainingStopped: When a signal ended the training.
        """
        state = self.state
        self.display.start(self.num_steps, state.step, state.best.get("accuracy"))
        self._began = time.monotonic() - state.train_seconds
        self._since_record, self.work = time.monotonic(), Work()
        self.learner.train_mode()
        if state.is_evaluation_due:
            self._evaluate()
            self._save()
        with StopRequest() as stop, closing(self._batches()) as found:
            for batch in found:
                self._step(batch)
                # Asked once a step: a signal that comes later ends the training after the next one.
                number = max(number for [number] in self.ranks.gather_numbers([stop.signal_number or 0]))
                stops = number > 0
                is_milestone = state.step == self.num_steps or self._is_milestone(batch)
                if is_milestone and self.held_out is not None:
                    # An evaluation takes minutes, and who sends SIGTERM may wait seconds.
                    state.is_evaluation_due = stops
                    if not stops:
                        batch.settle()
                        self._evaluate()
                every = self.settings.save_every
                if stops or self._is_over() or (state.step % every == 0 if every else is_milestone):
                    self._save()
                if stops:
                    raise TrainingStopped(number, state.step, str(self.run_dir))
        self.display.stop()
        if state.step < self.num_steps:
            waited = f"{state.num_worse} evaluations in a row were no better by {self.best_by.metric}"
            self.display.line(f"ending after step {state.step}: {waited}")

    def _is_over(self) -> bool:
        """Tell whether no step is left: all are done, or a better evaluation is no longer waited for."""
        return self.state.step == self.num_steps or self.best_by.is_given_up(self.state.num_worse)

    def save_model(self, directory: Path) -> None:
        """Save the model as it is now, with what is known of its training."""
        state, data = self.state, self.config.data
        record = {
            "training": {
                "step": state.step,
                "seed": self.config.seed,
                "data": [{"name": item.name, "path": item.options.get("path")} for item in data.train],
                "data_sha256": self.rows.digest,
            },
            "evaluation": state.latest if state.latest.get("step") == state.step else {},
        }
        is_result = directory.name == run_directory.MODEL
        self.learner.save_model(
            directory, record, adapter_directory=self.run_dir / run_directory.ADAPTER if is_result else None
        )

    def _count_steps(self, num_rows: int) -> int:
        # The small number keeps a product such as 1.1 * 10 = 11.000000000000002 from adding a step.
        num_steps = math.ceil(self.settings.epochs * math.ceil(num_rows / self.batch_size) - 1e-9)
        limit = self.settings.max_steps
        return num_steps if limit is None else min(num_steps, limit)

    def _restore(self, checkpoint: Checkpoint) -> None:
        saved = checkpoint.state
        if self.rows.digest != saved["data_sha256"] and (
            not self.rows.changes or self.state.epoch == saved["data_epoch"]
        ):
            raise CheckpointError(
                f"{checkpoint.directory}: the training data is not what the run was started with; "
                "bring it back, or start anew with --overwrite"
            )
        self.learner.restore(checkpoint)

    def _batches(self) -> Generator[Batch]:
        """Yield the batches that are left, over the epochs' ends."""
        state = self.state
        while not self._is_over():
            if self.rows.epoch != state.epoch:
                self.rows.turn_to(state.epoch)
            rows, left = self.rows.rows(state.position), self.rows.num_rows - state.position
            following = batches(
                rows,
                left,
                self.batch_size,
                self.learner.passing.prepare,
                num_workers=self.settings.num_workers,
                rank=self.ranks.rank,
                num_ranks=self.ranks.size,
            )
            with closing(following) as found:
                for batch in found:
                    yield batch
                    if self._is_over():
                        return

    def _step(self, batch: Batch) -> None:
        """Train on one batch, and note what came of it."""
        state = self.state
        seed_step(self.config.seed, state.step, self.ranks.rank)
        sizes = [size_of(self.learner.passing.paradigm, prepared) for prepared in batch.prepared]
        groups = passes(sizes, self.learner.budget)
        facts = [len(groups), len(batch.prepared), len(batch.rejected)]
        num_passes, num_used, num_rejected = zip(*self.ranks.gather_numbers(facts), strict=True)
        first_error = self._reject(batch) if any(num_rejected) else None
        factor = schedule_factor(state.step, self.num_steps, self.settings)
        rates = set_learning_rate(self.learner.optimizer, factor)
        norm = self._update(batch, groups, max(num_passes)) if any(num_used) else 0.0
        self.work.add(sizes, groups, self.learner.budget, self.learner.step_flops(batch.prepared))
        state.step += 1
        state.num_used += sum(num_used)
        state.position += batch.num_rows
        if batch.is_last:
            state.epoch, state.position = state.epoch + 1, 0
        if not state.num_used and (batch.is_last or state.step == self.num_steps):
            raise nothing_usable("train", len(self.rejected), first_error)
        self.display.advance(state.step)
        if (state.step % self.settings.log_every == 0 or state.step == self.num_steps) and self.window.sums:
            self._record_step(rates, norm)

    def _reject(self, batch: Batch) -> DataError:
        """List the rows that no process could use, and return the first one's error."""
        found = [row for rows in self.ranks.gather(batch.rejected) for row in rows]
        found.sort(key=lambda row: row.place)
        for _, id, error in found:
            self.rejected.add(error, split="train", id=id)
        return found[0].error

    def _update(self, batch: Batch, groups: Sequence[Sequence[int]], num_passes: int) -> float:
        """Take one optimizer step, and return the norm of its gradient."""
        prepared = [[batch.prepared[number] for number in group] for group in groups]
        rows, norm = self.learner.add_up(prepared, num_passes, batch.spare)
        losses = [row[0] for row in rows]
        if not all(map(math.isfinite, (norm, *losses))):
            raise found_not_finite(
                batch,
                self.learner.passing,
                self.ranks,
                self.learner.autocast,
                losses=losses,
                norm=norm,
                step=self.state.step + 1,
                run_dir=self.run_dir,
            )
        self.learner.apply(self.state.step + 1)
        for row in rows:
            self.window.add(row)
        self.work.num_pairs += sum(row[-1] for row in rows)
        return norm

    def _record_step(self, rates: dict[str, float], norm: float) -> None:
        state = self.state
        now = time.monotonic()
        work = Work.over(self.ranks.gather(self.work))
        if self.log is not None:
            record = self.log.write(
                "step",
                step=state.step,
                epoch=self._epochs_done(),
                **self.window.metrics(),
                lr=rates,
                grad_norm=norm,
                **work.rates(max(now - self._since_record, 1e-9), self.learner.peak_flops),
                seconds=now - self._began,
            )
            self.display.record(record, self.num_steps)
        self.window, self.work = Window(), Work()
        self._since_record = now

    def _epochs_done(self) -> float:
        return self.state.epoch + self.state.position / self.rows.num_rows

    def _is_milestone(self, batch: Batch) -> bool:
        every = self.settings.eval_every
        return batch.is_last if every is None else self.state.step % every == 0

    def _evaluate(self) -> None:
        """Evaluate, and save the model if it is the best so far."""
        assert self.held_out is not None
        state = self.state
        began = time.monotonic()
        self.learner.passing.eval()
        with self.learner.average.applied(), self.learner.autocast():
            metrics = self.held_out.evaluate(self.learner.passing)
        self.learner.train_mode()
        state.is_evaluation_due = False
        state.latest = {"step": state.step, **metrics}
        state.num_worse += 1
        if self.best_by.is_better(metrics, state.best):
            state.best, state.num_worse = state.latest, 0
            self.save_model(self.run_dir / run_directory.MODEL)
            if self.ranks.is_first:
                self.held_out.remember(self.run_dir / run_directory.BEST_REWARDS)
        if self.log is not None:
            record = self.log.write("evaluation", epoch=self._epochs_done(), **state.latest)
            self.display.record(record, self.num_steps)
        self._since_record += time.monotonic() - began

    def _save(self) -> None:
        """Write a checkpoint of all that decides how the training goes on."""
        state = self.state
        began = time.monotonic()
        place = self.checkpoints.place(state.step).relative_to(self.run_dir)
        if self.log is not None:
            self.log.write("checkpoint", step=state.step, directory=place.as_posix())
        state.train_seconds = time.monotonic() - self._began
        state.window = self.window.sums
        self.checkpoints.save(
            state.step,
            self.learner.capture(),
            {
                "training": asdict(state),
                "num_steps": self.num_steps,
                "data_sha256": self.rows.digest,
                "data_epoch": self.rows.epoch,
                "log_bytes": 0 if self.log is None else self.log.sync(),
                "rejected_bytes": self.rejected.sync(),
            },
        )
        self._since_record += time.monotonic() - began
