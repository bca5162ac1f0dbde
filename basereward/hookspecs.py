"""Every hook of BaseReward; the docstring of each is the contract of what it adds.

A plugin is a module with functions of these names, marked `@hookimpl`, found through the entry-point group
`basereward`, or named by `-p MODULE` or the run file's `plugins`:

    from basereward import hookimpl

    @hookimpl
    def basereward_losses():
        return {"focal": "my_package.losses:Focal"}

The registration hooks return a mapping of names (`[a-z0-9]+([.-][a-z0-9]+)*`) to "module:Class"; the module
is imported when the component is used, so the plugin itself should import nothing heavy. A class instead of
the text serves notebooks and tests.

For the constructor of every component: *positional parameters are wired by the framework; keyword-only
parameters, each with a type and a default, are the configuration*. Types of options: int, float, str, bool,
pathlib.Path, Literal, tuple, list, dict, frozen dataclasses, and unions of these with None. A
component raises `ConfigError` or `ValueError` for an option out of range.

The methods and attributes are typed in `basereward.protocols`, which also has the defaults of optional ones.
`basereward.testing` turns the promises into tests of your own.

Shapes: B rows, L tokens a row, N responses, P pairs, M members, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

PROJECT: Final = "basereward"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

KINDS: Final = {
    "backbone": "basereward_backbones",
    "head": "basereward_heads",
    "loss": "basereward_losses",
    "ensembler": "basereward_ensemblers",
    "paradigm": "basereward_paradigms",
    "dataset": "basereward_datasets",
    "benchmark": "basereward_benchmarks",
    "writer": "basereward_writers",
}
"""The kinds of components, and the hook that registers each."""


@hookspec
def basereward_backbones() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Return backbones: comparisons in, hidden states out.

    A backbone is a `basereward.backbones.base.Backbone`, an `nn.Module` made by `(*, model, ...)`, where
    `model` is a local directory or a hub id, with

    - `dim`: the width D of its hidden states.
    - `encode(comparison) -> Tree`: token ids of prompt and responses, positions, images; on the CPU, no
      weights. Raises `DataError` for an image that can't be opened and for a comparison that is too long.
    - `pack(trees, shared=True) -> Forest` and `forest(comparisons, shared=True) -> Forest`: a batch, each
      prompt once; with `shared=False` each response has a row with its own copy of the prompt.
    - `forward(forest) -> hidden`: [B, L, D], the last hidden states; it never runs a language-model head.
      Where `forest.reads` is "ends", only the states at `forest.ends` need be right.
    - `parts()`: modules by name, of "vision", "projector" and "language", to freeze or to give a learning
      rate; each parameter is of one part. A backbone without "vision" refuses images by `DataError`.
    - `blocks()`: the repeated blocks in the order of the forward pass, to be sharded and recomputed one by
      one.
    - `save(directory)`: safetensors and processor files in the hub's own layout; the same class with
      `model=directory` and the same options gives the same hidden states bit for bit.

    Promise: a response's hidden state does not depend on batch, padding, neighbours or sharing (1e-5 in
    fp32).
    """


@hookspec
def basereward_heads() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Return heads: hidden states in, one reward a response out.

    A head is an `nn.Module` made by `(dim, *, ...)`, where `dim` is the backbone's width D, with

    - `forward(hidden, forest) -> rewards`: [B, L, D] to [N] fp32, in the order of `forest.ends`, under
      autocast too.
    - `reads`, if it reads nothing but the states at `forest.ends`: "ends", which saves computing the others.
    - `reads_layer`, if it reads a decoder layer before the last: its number, counted from 1.
    - `uses_all_weights = True`, if any batch's rewards depend on every weight: where a backbone says so as
      well, processes that train together needn't look for weights without a gradient.

    Promise: padding is ignored, and a response's reward depends on no other response.
    """


@hookspec
def basereward_losses() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Return losses: rewards and targets in, one number out.

    A loss is an `nn.Module` made by `(*, ...)`, with

    - `forward(rewards, targets)`, which returns a `LossOutput`, or the cost of each pair [P], or the mean
      over pairs []: rewards [N]; targets are `basereward.losses.Targets` with
      `pairs` [P, 2] int64 (chosen, rejected), `tie` [P] bool, `margin` [P], `weight` [P], `lengths` [N],
      `ranks` [N], `ratings` [N] and `group` [N], some of them None.
    - `LossOutput.loss`: the weighted mean, a scalar; `weight`: its denominator, so that loss * weight adds
      up over batches; `sums`: fp64 statistics in the order of `basereward.losses.STATISTICS`, as
      `basereward.ops.pair_statistics` returns them.
    - `learns_from_ties` and `learns_from_single`, if a comparison of ties alone or of one response gives a
      gradient: True; or `untrainable_reason(comparison)`, if that depends on anything else.

    Promise: the loss never rises as a margin grows, is finite at rewards of +-1e4, and its docstring names
    the treatment of ties.
    """


@hookspec
def basereward_ensemblers() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Return ensemblers: the rewards of several models in, one reward a response out.

    An ensembler is made by `(*, ...)`, with

    - `__call__(members, comparisons) -> rewards`: [M, N] to [N]; the comparisons say which responses belong
      together. A member's rewards are finite wherever it was routed.
    - `fit(members, comparisons)`, if it learns anything: [M, N] rewards of comparisons whose ranks are known;
      with it `state()`, which returns the learned values for JSON, and `load_state(state)`.
    - `route(comparison, reads_images) -> mask`, if not all members score every comparison: from whether each
      member sees images, [M], whether it scores this one, [M]; the rewards of the others are not-a-number.
    - `is_comparative = True`, if a response's reward depends on the responses beside it.
    - `is_scale_free = True`, if a member with larger rewards counts for no more than others.
    - `unit`, if its rewards are on none of the members' scales: their unit, such as "rank".
    - `reason_for_nan`, if it can't always give a reward: it gives not-a-number, and this says why.

    Promise: the order of members doesn't matter, other comparisons don't either, and a single member (M = 1)
    is returned unchanged; in the order of its rewards, where the unit is another.
    """


@hookspec
def basereward_paradigms() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Return paradigms: ways to make a reward of a backbone, a head and a loss.

    A paradigm is an `nn.Module` made by `(backbone, head, loss, *, ...)`, from scratch or as a subclass of
    `basereward.paradigms.scalar.Scalar`, with

    - `prepare(comparison)`: a `basereward.prepared.Prepared`, with the work that the CPU can do ahead, and
      its size in tokens and patches, by which batches are cut; raises `DataError`.
    - `loss_of(batch) -> LossOutput` and `score_of(batch) -> rewards`: of prepared comparisons; rewards are
      [N] fp32, flat, in the comparisons' order.
    - `loss(comparisons)` and `score(comparisons)`: the same, of comparisons.
    - `backbone` and `head`: its parts, as child modules; other child modules are saved with the head.
    - `statistics`, if it counts anything while it scores: numbers by name, reported with the scores.
    - `is_comparative = True`, if a response's reward depends on the responses beside it.
    - `shares_prefix = True` and `join(batch)`, if comparisons of one prompt can be scored as one tree.
    - `shares_backbone = True`, `hidden_states(batch)` and `rewards_of(hidden, forest)`, if models with one
      backbone may run it once.
    - `uses_all_weights = True`, if the gradient of any batch's loss reaches every trained weight.
    - `text_key` and `texts_of(batch)`, if it writes texts that can be kept: a list for each prepared
      comparison, and the key of its `meta` under which they are scored as they stand.
    - `reason_for_nan`, if it can't always give a reward: it gives not-a-number, and this says why.

    Promise: a comparison's rewards don't depend on its batch. Trainer, evaluator and server know nothing
    else of it.
    """


@hookspec
def basereward_datasets() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Return datasets: files in, comparisons out.

    A dataset is a `basereward.data.Dataset` made by `(path, *, ...)`; one that needs no file gives `path` a
    default.

    - `read` yields a `Comparison` or a `DataError` for each row; `basereward.data.FileDataset` reads files
      and needs `convert_row` alone. `set_epoch(number)` if epochs differ.
    - `on_bad_row`: "skip" or "fail"; with "skip", `rejected` lists a `DataError` for each row left out.
    - `detected_by`: the fields that mark a row as this dataset's where no dataset is named; empty by default.
    - `columns` of a `FileDataset`: the columns that it reads, with their meanings. A row with another one
      that has a value is refused, unless it is known to say nothing of the answer; without `columns` none is.

    Promise: the order is the same every time, and every row of the files is yielded or listed with its
    reason.
    """


@hookspec
def basereward_benchmarks() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Return benchmarks: published test sets with their official metrics.

    A benchmark is a `basereward.evaluation.benchmarks.Benchmark`, or anything made by `(path, *, ...)` with

    - `comparisons()`: an iterable of `Comparison`, best a `Dataset`, in the same order every time. Images
      are not opened, so that the annotation alone is enough for a baseline. In `meta`, `group`
      names comparisons that are not independent of each other, `category` a part to report by itself.
    - `report(rewards)`: a `basereward.evaluation.Score` by each metric's name, from a list of rewards for
      each comparison, None for one that could not be scored. The official metric comes first; a variant in
      print is named after its source. A score has its 95 % interval, the number of units it is of, and
      the scores of the longer responses and of chance by the same metric, where they are known. It raises
      `DataError` where no comparison was scored, `ValueError` for rewards of other comparisons.
    - `title`, `size`, `ties`, `remarks`, each optional: its name in print, how many comparisons were
      published, what the official metric does with equal rewards, and sentences on its data for a report.
    - `scores_single`, optional: whether comparisons of one response are scored too.
    - `is_absolute`, optional: whether a reward counts by itself, such as one above 0.

    Promise: the numbers follow from differences of rewards within each comparison alone, unless it
    `is_absolute`.
    """


@hookspec
def basereward_writers() -> Mapping[str, str | type]:  # type: ignore[empty-body]
    """Return writers: requests with messages and images in, texts in the same order out.

    A writer is made by `(*, ...)`, with

    - `write(requests) -> texts`: a `basereward.writers.request.Completion` for each
      `basereward.writers.request.Request`, in their order: the whole turn, what it was to begin with
      included, and whether the model has ended it, it was cut at `max_tokens`, or it failed, with the reason.
      It raises `ConfigError` where no request could be answered, such as with a wrong key, and never for one
      that can't; several threads may call it.
    - `requests_at_once`: the requests that keep it busy; 1 by default.
    - `reads_images = False`, if no request with an image is answered.
    - `statistics`, if it counts anything: numbers by name, reported with the scores; and `facts`, texts by
      name, such as the model's name.
    - `estimate(requests)`, if it can tell what they would take: numbers by name. Nothing is written.

    Promise: at temperature 0 a text doesn't depend on the requests beside it; a failure is never a text.
    """


@hookspec
def basereward_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add commands to `basereward`.

    Called whenever the command line is used, for `--help` too: import nothing heavy. Add a parser, and set
    its default `run` to a function that takes the parsed arguments and returns the exit status:

        parser = subparsers.add_parser("demo", help="...")
        parser.set_defaults(run=run)
    """


@hookspec
def basereward_log(record: Mapping[str, Any], run_dir: Path) -> None:
    """Take one record of a training: of a step, an evaluation or a checkpoint, as it stands in `log.jsonl`.

    The record is for reading only. A plugin that fails here is warned about once and gets no more events;
    it doesn't end the training.
    """
