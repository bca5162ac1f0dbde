"""Compile the native sources against the headers of other versions of torch, without installing those.

Run as `python tests/gpu/compile_against.py 2.10.0 2.15.0`. Of each version's wheel on PyPI only
`torch/include` is fetched (30 MB of 900), once, into `.cache/torch-headers`. Each C++ and CUDA file of the
package and of `plugins/` is compiled; each function of libtorch that an object calls must be one that this
version's headers declare as exported. `nvcc` is needed, a GPU is not.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

from basereward.extension import compile_flags, include_dir, torch_macros
from basereward.testing.native.nvcc import NVCC

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "torch-headers"
INDEX = "https://pypi.org/simple/torch/"
WHEEL = "torch-{version}-cp311-cp311-manylinux"
SOURCES = ("csrc", *sorted(path.parent.as_posix() for path in ROOT.glob("plugins/*/csrc/cuda")))
FOLDERS = ("", "cpu", "cuda")
BLOCK: Final = 8 << 20  # bytes that are fetched at a time
EXPORTED = re.compile(r"AOTI_TORCH_EXPORT\s[^;{]*?\b(\w+)\s*\(", re.DOTALL)


class RemoteFile(io.RawIOBase):
    """Read a file of a web server by ranges of bytes."""

    def __init__(self, url: str) -> None:
        self._url = url
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as reply:
            self._size = int(reply.headers["Content-Length"])
        self._place = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it has places."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return it."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read up to a buffer's size."""
        last = min(self._place + len(buffer), self._size) - 1
        if last < self._place:
            return 0
        request = urllib.request.Request(self._url, headers={"Range": f"bytes={self._place}-{last}"})
        with urllib.request.urlopen(request) as reply:
            content = reply.read()
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


def wheel_url(version: str) -> str:
    """Return the address of a version's wheel for Linux on x86-64.

    Raises:
        SystemExit: When there is none.
    """
    with urllib.request.urlopen(INDEX) as page:
        links = re.findall(r'href="([^"#]+)', page.read().decode())
    name = WHEEL.format(version=version)
    for link in links:
        if link.rpartition("/")[2].startswith(name) and link.endswith("x86_64.whl"):
            return urljoin(INDEX, link)
    raise SystemExit(f"{INDEX} has no {name}*_x86_64.whl; name a version that it has, such as 2.10.0")


def headers_of(version: str) -> Path:
    """Return the include directory of a version, fetched where it is not in the cache."""
    target = CACHE / version
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            remote = io.BufferedReader(RemoteFile(wheel_url(version)), BLOCK)
            with zipfile.ZipFile(remote) as wheel:
                names = [name for name in wheel.namelist() if name.startswith("torch/include/")]
                wheel.extractall(temporary, names)
            Path(temporary, "torch", "include").rename(target)
    return target


def sources() -> Iterator[Path]:
    """Yield the native files that torch's headers are included in."""
    for place in SOURCES:
        for folder in FOLDERS:
            yield from sorted(path for path in Path(ROOT, place, folder).glob("*.c[pu]*"))


def compile_source(source: Path, headers: Path, target: Path) -> str:
    """Compile a file to an object, and return the compiler's errors, if any."""
    own = next(parent for parent in source.parents if parent.name == "csrc")
    paths = [own, include_dir(), headers, headers / "torch" / "csrc" / "api" / "include"]
    macros = {**torch_macros(), **({"USE_CUDA": ""} if "cuda" in source.parts else {})}
    command = ["c++", *compile_flags(), "-O0", "-fPIC"]
    if "cuda" in source.parts:
        toolkit = Path(NVCC or "nvcc").resolve().parents[1]
        command = [
            "nvcc",
            "-std=c++17",
            "--gpu-architecture=sm_90",
            "-Xcompiler=-fPIC",
            f"-I{toolkit}/include",
        ]
    command += [f"-D{name}={value}" if value else f"-D{name}" for name, value in macros.items()]
    command += [*(f"-I{path}" for path in paths), f"-I{sysconfig.get_paths()['include']}"]
    done = subprocess.run([*command, "-c", source, "-o", target], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def functions_of_torch(target: Path) -> set[str]:
    """Return the C functions of libtorch that an object calls."""
    printed = subprocess.run(["nm", "-u", target], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in printed.splitlines() if line.strip()}
    return {name for name in names if name.startswith(("aoti_", "torch_"))}


def main() -> int:
    """Compile everything against each version, and print a line of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", metavar="VERSION", nargs="+")
    args = parser.parse_args()
    if NVCC is None:
        raise SystemExit("there is no nvcc; install the CUDA toolkit and add its bin directory to PATH")
    num_bad = 0
    for version in args.versions:
        headers = headers_of(version)
        exported = set()
        for path in headers.glob("torch/csrc/**/*.h"):
            exported |= set(EXPORTED.findall(path.read_text(encoding="utf-8", errors="replace")))
        files = list(sources())
        with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(2) as pool:
            targets = [Path(temporary, f"{number}.o") for number in range(len(files))]
            errors = list(pool.map(compile_source, files, [headers] * len(files), targets))
            called = set().union(*(functions_of_torch(path) for path in targets if path.exists()))
        for source, error in zip(files, errors, strict=True):
            if error:
                print(f"torch {version}: {source.relative_to(ROOT)} does not compile:\n{error[-2000:]}")
        absent = sorted(called - exported)
        if absent:
            print(f"torch {version}: its headers do not export {', '.join(absent)}")
        num_failed = sum(map(bool, errors))
        num_bad += num_failed + len(absent)
        print(
            f"torch {version}: {len(files) - num_failed} of {len(files)} files compile, "
            f"{len(called) - len(absent)} of {len(called)} functions of libtorch are exported",
            flush=True,
        )
    return 1 if num_bad else 0


if __name__ == "__main__":
    sys.exit(main())
