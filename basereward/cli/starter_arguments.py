"""Arguments of the commands that write a first run file: the model, the data and the adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from basereward.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def add_starter_arguments(parser: argparse._ActionsContainer, *, required: bool) -> None:
    """Add the arguments that `write_run_file` reads."""
    parser.add_argument(
        "--model", metavar="DIR", required=required, help="a directory of a transformers model"
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        action="append",
        default=[],
        required=required,
        help="comparisons to train on: JSONL, Parquet or a directory; may be repeated",
    )
    parser.add_argument(
        "--eval",
        metavar="DATA",
        dest="held_out",
        action="append",
        default=[],
        help="comparisons to evaluate on; may be repeated",
    )
    parser.add_argument(
        "--media-dir", metavar="DIR", help="where the images of the rows lie, if not beside the file"
    )
    parser.add_argument(
        "--lora", metavar="RANK", type=int, help="train adapters of this rank instead of the model's weights"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="directory of the run (default: runs/ and the name of the data)"
    )


def write_run_file(args: argparse.Namespace, file: str | None, *, overwrite: bool) -> Path:
    """Write the run file that the arguments describe; one with the same text is left as it is.

    Args:
        args: The arguments that `add_starter_arguments` added.
        file: The file to write; None for the directory of the run with `.toml` at its end.
        overwrite: Whether a file with another text is replaced.

    Raises:
        ConfigError: When there is a file with another text, or no backbone reads the model.
        DataError: When the data can't be read.
    """
    from basereward.planning.starter import starter_run
    from basereward.storage.atomic import write_text
    from basereward.storage.reading import read_bytes

    output = args.output or str(Path("runs", Path(args.data[0]).name.split(".")[0]))
    text = starter_run(
        args.model, args.data, args.held_out, output=output, lora_rank=args.lora, media_dir=args.media_dir
    )
    path = Path(file or f"{output}.toml")
    if path.suffix != ".toml":
        raise ConfigError(
            f"{path} would hold TOML, which its comments need; name it {path.with_suffix('.toml')}"
        )
    if path.exists() and not overwrite and read_bytes(path) != text.encode():
        raise ConfigError(f"{path} is there already, with another text; give another name, or --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path
