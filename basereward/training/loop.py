"""The training loop: steps, validation and checkpoints, in an order that a resumed run repeats exactly."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

from basereward.config.run import RunConfig
from basereward.data.curation import Curation
from basereward.data.mixing import Prompts
from basereward.data.wrong_images import check_ties_are_learned
from basereward.errors import DataError
from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.batching import micro_batches
from basereward.training import run_directory
from basereward.training.checkpoints import Checkpoint, CheckpointError, Checkpoints
from basereward.training.data_loader import DataReader, IterableRows, MapRows, TrainingRows, no_usable_rows
from basereward.training.distributed import ProcessGroup
from basereward.training.model_selection import ModelSelector
from basereward.training.model_state import TrainedModel
from basereward.training.nonfinite import nonfinite_error
from basereward.training.prefetch import Batch, Prefetcher
from basereward.training.progress import Display
from basereward.training.rejected_rows import RejectedRows
from basereward.training.resolve import changed_settings
from basereward.training.run_log import RunLog
from basereward.training.schedule import schedule_factor, set_learning_rate
from basereward.training.seeding import seed_everything, seed_step
from basereward.training.shutdown import ShutdownSignal, TrainingStopped
from basereward.training.state import SavedState, State
from basereward.training.step_metrics import MetricSums
from basereward.training.throughput import Meter
from basereward.training.validation import Validator, unevaluable_reason


class Training:
    """One training, from its start or a checkpoint to its last step."""

    def __init__(
        self,
        run: RunConfig,
        plugins: PluginManager,
        run_dir: Path,
        checkpoints: Checkpoints,
        checkpoint: Checkpoint | None,
        rejected: RejectedRows,
        display: Display,
        group: ProcessGroup,
    ) -> None:
        self.group = group
        self.config, self.settings, self.rejected = run, run.train, rejected
        self.run_dir, self.checkpoints, self.display = run_dir, checkpoints, display
        saved = SavedState.of(checkpoint) if checkpoint else None
        self.state = saved.training if saved else State()
        self.metric_sums = MetricSums(self.state.window)
        self.batch_size = self.settings.batch_size
        self.selector = ModelSelector(self.settings)

        # Reading comes first: its errors are the commonest, and a big model takes minutes to load.
        self.rows, self.validator = self._open_data(plugins)
        self.num_steps: int = saved.num_steps if saved else self._count_steps(self.rows.num_rows)

        seed_everything(run.seed)
        with display.busy(f"building a model on backbone {run.backbone.name}"):
            self.model = TrainedModel(run, plugins, group, saved.precision if saved else None)
            if checkpoint is not None and saved is not None:
                self._restore(checkpoint, saved)
        steps = f"{self.num_steps} steps of {self.batch_size} comparisons"
        if self.model.loading:
            display.line(self.model.loading)
        display.line(f"{self.model.description}: {steps}")
        if self.model.precision.warning:
            display.line(f"warning: {self.model.precision.warning}")
        self.log: RunLog | None = None
        if group.is_main:
            self.log = RunLog(
                run_dir,
                plugins,
                offset=saved.log_bytes if saved else 0,
                step=self.state.step,
                trackers=run.log,
                warn=display.line,
            )
            if checkpoint is None:
                self.log.write_start(self.model.precision.to_dict())

    def _open_data(self, plugins: PluginManager) -> tuple[TrainingRows, Validator | None]:
        """Read the training data, or open it for streaming, and read the held-out data."""
        data, display = self.config.data, self.display
        read = partial(
            DataReader,
            plugins=plugins,
            rejected=self.rejected,
            progress=display.reading,
            max_bad_share=data.max_bad_share,
        )
        loss = plugins.build("loss", self.config.loss)
        check_ties_are_learned(data.train, loss)
        held_out = read(data.eval, split="eval", rejection_reason=unevaluable_reason) if data.eval else None
        reader = read(
            data.train,
            split="train",
            rejection_reason=loss.untrainable_reason,
            curation=Curation.of(data.curation, plugins),
            excluded=Prompts.of(held_out.read()) if held_out and data.exclude_eval else (),
        )
        for dataset in reader.datasets:
            if dataset.unread_splits:
                display.line(dataset.unread_splits)
        kind = IterableRows if data.streaming else MapRows
        rows = kind(reader, data, seed=self.config.seed, shuffle=self.settings.shuffle)
        with display.busy("counting the training data") if data.streaming else nullcontext():
            rows.set_epoch(self.state.epoch)
        if data.curation and not data.streaming and self.group.is_main:
            reader.curation.save(self.run_dir / run_directory.CURATION_FILE)
        if held_out is None:
            return rows, None
        return rows, Validator(held_out, self.rejected, self.batch_size)

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *error: object) -> None:
        self.display.stop()
        self.model.close()
        if self.log is not None:
            self.log.close()

    def run(self) -> None:
        """Train until the last step.

        Raises:
            NonFiniteError: When the loss or its gradient is not finite.
            TrainingStopped: When a signal ended the training.
        """
        state = self.state
        self.display.start(self.num_steps, state.step, state.best.get("accuracy"))
        self._began = time.monotonic() - state.train_seconds
        self._since_record, self.meter = time.monotonic(), Meter()
        self.model.train()
        if state.is_evaluation_due:
            self._validate()
            self._save_checkpoint()
        with ShutdownSignal() as shutdown:
            while not self._is_over():
                if self.rows.epoch != state.epoch:
                    self.rows.set_epoch(state.epoch)
                with self._prefetch_epoch() as batches:
                    for batch in batches:
                        self._train_step(batch)
                        self._after_step(batch, batches, shutdown)
                        if self._is_over():
                            break
        self.checkpoints.commit()
        self.display.stop()
        if state.step < self.num_steps:
            waited = f"{state.num_worse} evaluations in a row were no better by {self.selector.metric}"
            self.display.line(f"ending after step {state.step}: {waited}")

    def _is_over(self) -> bool:
        """Return whether no step is left, or training stops early."""
        return self.state.step == self.num_steps or self.selector.stops_early(self.state.num_worse)

    def _prefetch_epoch(self) -> Prefetcher:
        """Return the batches that are left of the epoch."""
        position = self.state.position
        return Prefetcher(
            self.rows.rows(position),
            self.rows.num_rows - position,
            self.batch_size,
            self.model.paradigm.prepare,
            num_workers=self.settings.num_workers,
            rank=self.group.data_rank,
            world_size=self.group.num_data_ranks,
        )

    def _train_step(self, batch: Batch) -> None:
        """Take one optimizer step on a batch: the mean loss over all its pairs, on all ranks."""
        state, model = self.state, self.model
        seed_step(self.config.seed, state.step, self.group.data_rank)

        # Split this rank's comparisons into micro-batches; all ranks run as many as the rank with the most.
        sizes = [prepared.size for prepared in batch.prepared]
        groups = micro_batches(sizes, model.limits)
        counts = [len(groups), len(batch.prepared), len(batch.rejected)]
        rank_counts = self.group.by_data_rank(self.group.all_gather_ints(counts))
        num_micro_batches, num_used, num_rejected = zip(*rank_counts, strict=True)
        first_error = self._reject(batch) if any(num_rejected) else None

        rates = set_learning_rate(model.optimizer, schedule_factor(state.step, self.num_steps, self.settings))
        norm = 0.0
        if any(num_used):
            prepared = [[batch.prepared[number] for number in numbers] for numbers in groups]
            rank_sums, norm = model.accumulate_gradients(prepared, max(num_micro_batches), batch.dummy)
            losses = [sums[0] for sums in rank_sums]
            step = state.step + 1
            if not all(map(math.isfinite, (norm, *losses))):
                raise nonfinite_error(batch, model, losses=losses, norm=norm, step=step, run_dir=self.run_dir)
            model.optimizer_step(step)
            for sums in rank_sums:
                self.metric_sums.add(sums)
            self.meter.num_pairs += sum(sums[-1] for sums in rank_sums)
        self.meter.add(sizes, groups, model.limits, model.step_flops(batch.prepared))

        state.step += 1
        state.num_used += sum(num_used)
        state.position += batch.num_rows
        if batch.is_last:
            state.epoch, state.position = state.epoch + 1, 0
        if not state.num_used and (batch.is_last or state.step == self.num_steps):
            raise no_usable_rows("train", len(self.rejected), first_error)
        self.display.advance(state.step)
        is_due = state.step % self.settings.log_every == 0 or state.step == self.num_steps
        if is_due and self.metric_sums.sums:
            self._log_step(rates, norm)

    def _reject(self, batch: Batch) -> DataError:
        """List the rejected rows of all ranks, and return the first one's error."""
        rank_rows = self.group.by_data_rank(self.group.all_gather_objects(batch.rejected))
        rejected = [row for rows in rank_rows for row in rows]
        rejected.sort(key=lambda row: row.position)
        for _, id, error in rejected:
            self.rejected.add(error, split="train", id=id)
        return rejected[0].error

    def _after_step(self, batch: Batch, batches: Prefetcher, shutdown: ShutdownSignal) -> None:
        """Validate and write a checkpoint where they are due.

        Raises:
            TrainingStopped: After a signal.
        """
        state, settings = self.state, self.settings
        # Checked once a step: a later signal ends the training after the next one.
        states = self.group.all_gather_ints([shutdown.number or 0, self.checkpoints.is_writing])
        signal_number = max(number for number, _ in states)
        if not any(is_writing for _, is_writing in states):
            self.checkpoints.commit()
        stops = signal_number > 0
        every = settings.eval_every
        is_milestone = batch.is_last if every is None else state.step % every == 0
        is_milestone = is_milestone or state.step == self.num_steps
        if is_milestone and self.validator is not None:
            # Postpone validation after SIGTERM: the scheduler may kill us within seconds.
            state.is_evaluation_due = stops
            if not stops:
                batches.wait_for_prefetch()
                self._validate()
        every = settings.save_every
        if stops or self._is_over() or (state.step % every == 0 if every else is_milestone):
            self._save_checkpoint()
        if stops:
            self.checkpoints.commit()
            raise TrainingStopped(signal_number, state.step, str(self.run_dir))

    def _log_step(self, rates: dict[str, float], norm: float) -> None:
        now = time.monotonic()
        meters = self.group.by_data_rank(self.group.all_gather_objects(self.meter))
        meter = Meter.combined(meters, world_size=self.group.world_size)
        if self.log is not None:
            record = self.log.write(
                "step",
                step=self.state.step,
                epoch=self._epochs_done(),
                **self.metric_sums.metrics(),
                lr=rates,
                grad_norm=norm,
                **meter.rates(max(now - self._since_record, 1e-9), self.model.peak_flops),
                seconds=now - self._began,
            )
            self.display.record(record, self.num_steps)
        self.metric_sums, self.meter = MetricSums(), Meter()
        self._since_record = now

    def _epochs_done(self) -> float:
        return self.state.epoch + self.state.position / self.rows.num_rows

    def _validate(self) -> None:
        """Validate, and save the model if it is the best so far."""
        assert self.validator is not None
        state = self.state
        began = time.monotonic()
        num_rows = len(
            range(self.group.data_rank, len(self.validator.comparisons), self.group.num_data_ranks)
        )
        with self.display.validating(num_rows) as advance:
            metrics = self.validator.validate(self.model, advance)
        self.model.train()
        state.is_evaluation_due = False
        if metrics is None:
            reason = self.model.paradigm.reason_for_nan
            self.display.line(f"no held-out comparison has rewards after step {state.step}: {reason}")
            return
        state.latest = {"step": state.step, **metrics}
        state.num_worse += 1
        if self.selector.is_better(metrics, state.best):
            state.best, state.num_worse = state.latest, 0
            self.save_model(self.run_dir / run_directory.MODEL)
            if self.group.is_main:
                self.validator.save_results(self.run_dir / run_directory.BEST_REWARDS)
        if self.log is not None:
            record = self.log.write("evaluation", epoch=self._epochs_done(), **state.latest)
            self.display.record(record, self.num_steps)
        self._since_record += time.monotonic() - began

    def save_model(self, directory: Path) -> None:
        """Save the model as it is now, with facts about its training."""
        state, data = self.state, self.config.data
        record = {
            "training": {
                "step": state.step,
                "seed": self.config.seed,
                **self.model.precision.to_dict(),
                "data": [{"name": item.name, "path": item.options.get("path")} for item in data.train],
                "data_sha256": self.rows.digest,
                "eval_data": [{"name": item.name, "path": item.options.get("path")} for item in data.eval],
                "settings": changed_settings(self.settings),
            },
            "evaluation": state.latest if state.latest.get("step") == state.step else {},
        }
        is_best = directory.name == run_directory.MODEL
        self.model.save_model(
            directory, record, adapter_directory=self.run_dir / run_directory.ADAPTER if is_best else None
        )

    def _save_checkpoint(self) -> None:
        """Write a checkpoint of everything that the rest of the training depends on."""
        state = self.state
        began = time.monotonic()
        path = self.checkpoints.path(state.step).relative_to(self.run_dir)
        if self.log is not None:
            self.log.write("checkpoint", step=state.step, directory=path.as_posix())
        state.train_seconds = time.monotonic() - self._began
        state.window = self.metric_sums.sums
        saved = SavedState(
            training=state,
            num_steps=self.num_steps,
            precision=self.model.precision,
            data_sha256=self.rows.digest,
            data_epoch=self.rows.epoch,
            log_bytes=0 if self.log is None else self.log.sync(),
            rejected_bytes=self.rejected.sync(),
        )
        self.checkpoints.save(state.step, self.model.state(), asdict(saved))
        self._since_record += time.monotonic() - began

    def _restore(self, checkpoint: Checkpoint, saved: SavedState) -> None:
        if self.rows.digest != saved.data_sha256 and (
            not self.rows.varies_by_epoch or self.state.epoch == saved.data_epoch
        ):
            raise CheckpointError(
                f"{checkpoint.directory}: the training data is not what the run was started with; "
                "bring it back, or start anew with --overwrite"
            )
        self.model.restore(checkpoint)

    def _count_steps(self, num_rows: int) -> int:
        # The small number keeps a product such as 1.1 * 10 = 11.000000000000002 from adding a step.
        num_steps = math.ceil(self.settings.epochs * math.ceil(num_rows / self.batch_size) - 1e-9)
        limit = self.settings.max_steps
        return num_steps if limit is None else min(num_steps, limit)
