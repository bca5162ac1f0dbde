"""`basereward serve`: rewards over HTTP."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from basereward.cli.command import Command, add_device
from basereward.errors import ConfigError
from basereward.extras import install_command
from basereward.serving.limits import Limits
from basereward.storage.outputs import real_path
from basereward.storage.reading import read_text, understood

MAX_KEY_BYTES = 2**20
"""Bytes that a file of keys may have."""

COMMAND = Command(
    description="Serve models over HTTP, to the clients of OpenRLHF, vLLM, SGLang, TEI, LLaMA-Factory "
    "and slime as they are, and to others by POST /v1/rewards. GET / is a page to try them on.",
    examples="""\
  basereward serve runs/demo/model
  basereward serve careful=runs/a/model quick=runs/b/model --port 9000
  basereward serve runs/demo/model --host 0.0.0.0 --api-key-file keys.txt
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "models",
        metavar="[NAME=]MODEL",
        nargs="+",
        help="a directory of a model or an ensemble, a judge's TOML file, judge+http://HOST:PORT/v1 or "
        "decisions+http://HOST:PORT/v1, and what clients call it (default: the run's, the "
        "directory's or the file's name, or the server's host); the first serves requests that name none",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: 8000)")
    parser.add_argument(
        "--api-key-file", metavar="FILE", help="keys, one a line, of which requests must send one"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        action="append",
        default=[],
        help="the same on the command line, where other users of the machine can read it; may be repeated",
    )
    parser.add_argument(
        "--temperature",
        metavar="[NAME=]T",
        action="append",
        default=[],
        help="the number that rewards are divided by to be log-odds, as `basereward audit` finds it, for "
        "/v1/systemone and /v1/decisions (default: the model's own, fitted to its validation; else 1)",
    )
    parser.add_argument(
        "--log-level",
        choices=("error", "warning", "info", "debug"),
        default="warning",
        help="what the server writes of itself; from info on a line for each request (default: warning)",
    )
    add_device(parser)
    bounds = parser.add_argument_group("limits")
    for name, (default, doc) in Limits.documented().items():
        bounds.add_argument(
            f"--max-{name.replace('_', '-')}",
            dest=name,
            metavar="N",
            type=int,
            default=default,
            help=f"{doc} (default: {default:,})",
        )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    limits = Limits(**{name: getattr(args, name) for name in Limits.documented()})
    named = _named(args.models)
    temperatures = _temperatures(args.temperature, named)
    try:
        from basereward.serving.access import Access, check_address
        from basereward.serving.app import Server
        from basereward.serving.runner import Runner
    except ModuleNotFoundError as error:
        raise ConfigError(f"needs {error.name}; {install_command('serve')}") from error
    from basereward.cli.model_arguments import hide_transformers_progress, report_precision
    from basereward.serving.engine import load_engine

    keys = [*args.api_key, *_keys(args.api_key_file)]
    check_address(args.host, keys)
    access = Access(keys)
    hide_transformers_progress()
    engines = [
        load_engine(name, source, device=args.device, precision=args.precision)
        for name, source in named.items()
    ]
    for engine in engines:
        report_precision(engine.model)
        if (temperature := temperatures.get(engine.name)) is not None:
            engine.calibration = replace(engine.calibration, temperature=temperature)
    server = Server(engines, limits, access)
    runner = Runner(server, host=args.host, port=args.port, log_level=args.log_level)
    try:
        runner.run()
    except SystemExit:  # uvicorn has said why
        raise ConfigError(f"can't listen at {args.host}, port {args.port}") from None
    print(server.admission.summary(), file=sys.stderr)
    return 0


def _named(models: list[str]) -> dict[str, str]:
    """Return directories, files and addresses by the names that clients call them."""
    named: dict[str, str] = {}
    for given in models:
        first, equals, rest = given.partition("=")
        name, source = (first, rest) if equals and "://" not in first else ("", given)
        if not name and "://" in source:
            name = urlsplit(source).hostname or ""
        name = name or _name_of(real_path(Path(source))).removesuffix(".toml")
        if name in named:
            raise ConfigError(f"two models would be called {name!r}; write NAME=DIR")
        named[name] = source
    return named


def _name_of(directory: Path) -> str:
    """Return what clients call a model: the run that it is of, or the directory's name."""
    is_of_run = directory.name in ("model", "last") and (directory.parent / "run.toml").is_file()
    return directory.parent.name if is_of_run else directory.name


def _temperatures(given: list[str], names: Collection[str]) -> dict[str, float]:
    """Return temperatures by the names of models; one without a name is of the only model."""
    temperatures = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        if not equals and len(names) == 1:
            [name] = names
        if name not in names:
            raise ConfigError(f"--temperature {text}: write NAME=T; models: {', '.join(names)}")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            raise ConfigError(f"--temperature {text}: a temperature is a finite number > 0, such as 1.5")
        temperatures[name] = value
    return temperatures


def _keys(file: str | None) -> list[str]:
    if file is None:
        return []
    with understood(Path(file), ConfigError):
        text = read_text(Path(file), MAX_KEY_BYTES)
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys:
        raise ConfigError(f"--api-key-file {file}: there is no key in it")
    return keys
