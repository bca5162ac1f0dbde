"""Arguments of the commands that read comparisons: the path, the data set and its options."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from basereward.errors import ConfigError, DataError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from basereward.comparison import Comparison
    from basereward.data import Dataset


def add_data_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the arguments that `load_dataset` reads, but for the path."""
    parser.add_argument(
        "--dataset",
        "--format",
        metavar="NAME",
        help="dataset that reads it, such as basereward or trl (default: recognized by the rows' fields)",
    )
    parser.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option of the dataset, such as split=test; may be repeated",
    )
    parser.add_argument(
        "--media-dir", metavar="DIR", help="where the images of the rows lie (default: beside the file)"
    )
    parser.add_argument(
        "--on-bad-row", choices=("skip", "fail"), default="skip", help="default: skip, and list it"
    )


def load_dataset(args: argparse.Namespace, path: str | None, *, by_row: bool = False) -> Dataset:
    """Open the data that the command line names.

    Args:
        args: The arguments that `add_data_arguments` added.
        path: A file or directory; None for a data set that needs none.
        by_row: Whether each row's format is recognized where no dataset is named, rather than the file's by
            its first row.

    Raises:
        ConfigError: When the arguments don't go together, or an option is unknown or wrong.
        DataError: When there is no such file.
    """
    from basereward.data.formats import detected, open_rows

    options = data_options(args)
    name = args.dataset
    if name is None and path is None:
        raise ConfigError("give a path, or --dataset NAME for a dataset that needs none")
    if name is None and path is not None and not by_row:
        name = detected(path, **{key: options[key] for key in ("split", "config") if key in options})
    dataset = open_rows(path, name, options)
    if dataset.unread_splits:
        print(dataset.unread_splits, file=sys.stderr)
    dataset.on_bad_row = args.on_bad_row
    return dataset


def given_dataset(args: argparse.Namespace) -> Dataset:
    """Open the data of `--data` and `--dataset`.

    Raises:
        ConfigError: When neither is given.
    """
    if args.data is None and args.dataset is None:
        raise ConfigError("give --data PATH, or --dataset NAME for a dataset that needs none")
    return load_dataset(args, args.data)


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the dataset that the command line names.

    Raises:
        ConfigError: When one is given twice.
    """
    options = key_values(args.option, "--option")
    if args.media_dir is None:
        return options
    if "media_dir" in options:
        raise ConfigError("give either --media-dir or --option media_dir")
    return {**options, "media_dir": args.media_dir}


def check_output(
    output: str | Path, datasets: Iterable[Dataset], *others: str, option: str = "--output"
) -> None:
    """Refuse an output that is one of the files that are read, or lies in a model's directory.

    Args:
        output: The file that is to be written.
        datasets: What is read.
        others: Paths that are read too.
        option: The option that names the output.

    Raises:
        ConfigError: Naming it.
    """
    from pathlib import Path

    from basereward.storage.outputs import check_is_no_input, check_outside_models

    check_outside_models(Path(output), option)
    files = [file for dataset in datasets for file in dataset.files]
    check_is_no_input(Path(output), option, [*files, *others])


def read_rows(dataset: Dataset) -> Iterator[Comparison | DataError]:
    """Yield each row of a data set as a comparison or as its error.

    Raises:
        DataError: For the first bad row, if `--on-bad-row` is "fail".
    """
    from basereward.data.refusals import watched

    for row in watched(dataset.read(), dataset.files):
        if isinstance(row, DataError) and dataset.on_bad_row == "fail":
            raise row
        yield row


def report_rejected(count: int, first: DataError | None, what: str = "", note: str = "") -> None:
    """Print to standard error how many rows were rejected, and the first one's error, if there is one."""
    if first is not None:
        rows = "1 row" if count == 1 else f"{count:,} rows"
        what = what or ("was rejected" if count == 1 else "were rejected")
        print(f"{rows} {what}, the first: {first}{note}", file=sys.stderr)


def key_values(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """Return the values of `KEY=VALUE` arguments, which are TOML or plain text.

    Raises:
        ConfigError: When one is not of that form.
    """
    from basereward.config.overrides import parse_value  # costs 7 ms, and `--help` has no values

    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ConfigError(f"{flag} {text}: write KEY=VALUE")
        values[key] = parse_value(value)
    return values
