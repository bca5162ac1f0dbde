"""The notice of a build without native libraries, which pip has hidden: said once, by the first command."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

COMMAND = "BASEREWARD_BUILD_EXT=1 pip install -v ."
REMEDY = f"`{COMMAND}` in a checkout builds them, or shows why not"
ONCE = "This is said once; `basereward doctor` says it again."
TITLES = {
    "basereward._C": "the native ops",
    "basereward._C_cuda": "the CUDA kernels",
    "basereward._host": "the native helpers of the data path",
}


def say_once_what_was_left_out(package: Path = Path(__file__).parents[1]) -> None:
    """Print to standard error what the build left out, why, and the remedy, unless an earlier command has.

    Args:
        package: The installed package.
    """
    record = package / "_build.json"
    # Of processes that run together, one speaks.
    if os.environ.get("RANK", "0") != "0" or not record.is_file() or not _is_first(record):
        return
    from basereward.extension import left_out  # costs 10 ms, and is needed once a build

    reasons = {TITLES.get(name, name): reason for name, reason in left_out(package).items()}
    if any(package.glob("_C.*.so")):  # of an earlier build in a checkout
        reasons.pop(TITLES["basereward._C"], None)
    if not reasons:
        return
    for title, reason in reasons.items():
        print(f"basereward: {title} were not built when it was installed: {reason}.", file=sys.stderr)
    print(f"basereward: all works without, more slowly; {REMEDY}. {ONCE}", file=sys.stderr)


def _is_first(record: Path) -> bool:
    """Tell whether no command has looked at this build's record yet, and remember that this one does.

    Where the user's cache can't be written, each command looks.
    """
    build = f"{record.resolve()} {record.stat().st_mtime_ns}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "basereward"
    said = cache / f"said-{hashlib.sha256(build.encode()).hexdigest()[:16]}"
    try:
        if said.exists():
            return False
        cache.mkdir(parents=True, exist_ok=True)
        said.touch()
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        pass
    return True
