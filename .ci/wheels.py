"""Build a wheel that a release may ship, or check one: `make wheel`, `make wheel-aarch64`, `make check-dist`.

A wheel is tagged cp311-abi3. Its ops, `_C.abi3.so`, serve Python 3.11 and later, and torch 2.10 and later.
Its helpers of the data path are a pybind11 module, which one version of Python alone can load: they are
compiled for each version whose headers are here, and lie side by side, told apart by their names. A Python
without its own takes the NumPy twins. Both are compiled for the machine that --machine names, without debug
symbols; auditwheel then gives the wheel the tag of the oldest systems that it runs on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pybind11
import torch.utils.cpp_extension
from wheel.wheelfile import WheelFile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from basereward.extension import compile_flags, include_dir, torch_macros  # noqa: E402

HERE = platform.machine()
PREFIXES = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-", HERE: ""}
"""What the names of a machine's compiler and tools begin with."""

ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""EM_X86_64 and EM_AARCH64, at bytes 18 and 19 of an ELF file."""

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
TORCH_LIBRARIES = ("libc10.so", "libtorch_cpu.so")
"""They are loaded, by torch, before a library of ours, and are never part of a wheel."""


@dataclass(frozen=True)
class Headers:
    """A Python's headers.

    Attributes:
        version: Such as `3.12`.
        directory: Where Python.h is.
    """

    version: str
    directory: str

    def name(self, machine: str) -> str:
        """Return the file of the helpers for this Python."""
        return f"_host.cpython-{self.version.replace('.', '')}-{machine}-linux-gnu.so"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command, and return what it prints; end with what it says where it fails."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def headers_here() -> list[Headers]:
    """Return the headers of the Pythons that are here: this one's, those of PATH, pyenv and manylinux."""
    found = {}
    for version in VERSIONS:
        tag = f"cp{version.replace('.', '')}"
        here = sys.executable if f"{sys.version_info[0]}.{sys.version_info[1]}" == version else None
        places = [
            *Path(os.environ.get("PYENV_ROOT", "~/.pyenv"))
            .expanduser()
            .glob(f"versions/{version}.*/bin/python"),
            Path(f"/opt/python/{tag}-{tag}/bin/python"),
        ]
        for python in (here, shutil.which(f"python{version}"), *places):
            if python is None or not Path(python).exists() or version in found:
                continue
            printed = subprocess.run(
                [str(python), "-c", "import sysconfig; print(sysconfig.get_path('include'))"],
                capture_output=True,
                text=True,
                check=False,
            )
            directory = printed.stdout.strip()
            if printed.returncode == 0 and Path(directory, "Python.h").is_file():
                found[version] = Headers(version, directory)
    return list(found.values())


def compiled(output: Path, machine: str, sources: Sequence[Path], include: Sequence[str], *more: str) -> None:
    """Compile and link a library, without debug symbols."""
    flags = ["-fPIC", "-shared", "-Wl,-O1", "-Wl,--strip-all", *more]
    run(
        f"{PREFIXES[machine]}g++",
        *compile_flags(),
        *(f"-I{path}" for path in include),
        *sources,
        "-o",
        output,
        *flags,
    )


def add_ops(package: Path, machine: str) -> None:
    """Compile the ops against torch's headers, which are the same for all machines."""
    include = [str(ROOT / "csrc"), str(include_dir()), *torch.utils.cpp_extension.include_paths()]
    macros = [f"-D{name}={value}" for name, value in torch_macros().items()]
    sources = sorted([*(ROOT / "csrc").glob("*.cpp"), *(ROOT / "csrc" / "cpu").glob("*.cpp")])
    with tempfile.TemporaryDirectory() as stubs:
        for name in TORCH_LIBRARIES:
            # Empty: only the name is kept, by which the loader takes the library that is loaded already.
            run(
                f"{PREFIXES[machine]}g++",
                "-shared",
                "-x",
                "c",
                "/dev/null",
                f"-Wl,-soname,{name}",
                "-o",
                Path(stubs, name),
            )
        linked = ["-Wl,--no-as-needed", *(f"{stubs}/{name}" for name in TORCH_LIBRARIES), "-Wl,--as-needed"]
        compiled(
            package / "_C.abi3.so",
            machine,
            sources,
            [*include, headers_here()[0].directory],
            *macros,
            *linked,
        )


def add_helpers(package: Path, machine: str) -> list[str]:
    """Compile the helpers of the data path for every Python whose headers are here; return the versions."""
    versions = headers_here()
    for python in versions:
        include = [str(ROOT / "csrc"), python.directory, pybind11.get_include()]
        compiled(package / python.name(machine), machine, [ROOT / "csrc/host/module.cpp"], include)
    return [python.version for python in versions]


def build(machine: str, output: Path) -> Path:
    """Build the wheel of a machine, and return it."""
    output.mkdir(parents=True, exist_ok=True)
    compiler = f"{PREFIXES[machine]}g++"
    if shutil.which(compiler) is None:
        raise SystemExit(f"there is no {compiler}; Debian's package of that name has it")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        pip = (
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
        )
        os.environ["BASEREWARD_BUILD_EXT"] = "0"
        run(*pip, "--wheel-dir", place, ".", cwd=ROOT)
        (pure,) = place.glob("*.whl")
        run(sys.executable, "-m", "wheel", "unpack", "--dest", place, pure)
        (tree,) = (path for path in place.iterdir() if path.is_dir())
        package = tree / "basereward"
        for left in [*package.glob("*.so"), package / "_build.json"]:
            left.unlink(missing_ok=True)
        add_ops(package, machine)
        versions = add_helpers(package, machine)
        facts = {
            "torch": torch.__version__,
            "torch_target": "2.10",
            "compiler": run(compiler, "--version").splitlines()[0],
            "flags": compile_flags(),
        }
        for name in ("_C", "_host"):
            (package / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        (package / "_build.json").write_text('{"left_out": {}}\n', encoding="utf-8")
        (metadata,) = tree.glob("*.dist-info/WHEEL")
        text = metadata.read_text(encoding="utf-8").replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
        text = re.sub(r"^Tag: .*$", f"Tag: cp311-abi3-linux_{machine}", text, flags=re.MULTILINE)
        metadata.write_text(text, encoding="utf-8")
        pure.unlink()
        run(sys.executable, "-m", "wheel", "pack", "--dest-dir", place, tree)
        (packed,) = place.glob("*.whl")
        for old in output.glob(f"basereward-*{machine}.whl"):
            old.unlink()
        excluded = [word for name in TORCH_LIBRARIES for word in ("--exclude", name)]
        run(sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", output, packed)
    (wheel,) = output.glob(f"basereward-*{machine}.whl")
    print(
        f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB; helpers of the data path for Python "
        f"{', '.join(versions)}"
    )
    return wheel


def check(wheel: Path) -> None:
    """Fail where a library is of another machine, has debug sections, or needs what a wheel may not."""
    machine = re.sub(r".*_(x86_64|aarch64)\.whl$", r"\1", wheel.name)
    assert machine in ELF_MACHINES, f"{wheel.name} is of no machine that is known"
    assert "-cp311-abi3-manylinux_" in wheel.name, f"{wheel.name} has another tag"
    with WheelFile(wheel) as file, tempfile.TemporaryDirectory() as temporary:
        file.extractall(temporary)  # which compares the digests of RECORD
        libraries = sorted(Path(temporary).rglob("*.so"))
        names = [path.name for path in libraries]
        assert "_C.abi3.so" in names, names
        assert any(name.startswith("_host.cpython-") for name in names), names
        for path in libraries:
            of = int.from_bytes(path.read_bytes()[18:20], "little")
            assert of == ELF_MACHINES[machine], f"{path.name} is of machine {of}"
            assert ".debug_info" not in run("readelf", "-S", "-W", path), f"{path.name} has debug sections"
            needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-d", "-W", path)))
            strange = {name for name in needed if re.match(r"libpython|libtorch_python|libcu|libgomp", name)}
            assert not strange, f"{path.name} needs {strange}"
            assert path.name != "_C.abi3.so" or set(TORCH_LIBRARIES) <= needed, needed
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {"basereward/recipes/basereward-7b.toml", "basereward/_build.json", "basereward/py.typed"} <= held
    glibc = wheel.name.partition("manylinux_")[2].split("_")[:2]
    print(f"{wheel.name}: {len(libraries)} libraries for {machine}, needs glibc {'.'.join(glibc)}")


def main() -> None:
    """Build, or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", choices=PREFIXES, default=HERE)
    parser.add_argument("--output", type=Path, default=Path("dist"))
    parser.add_argument("--check", nargs="+", type=Path, metavar="WHEEL", help="check these, and build none")
    arguments = parser.parse_args()
    if arguments.check:
        for wheel in arguments.check:
            check(wheel)
    else:
        build(arguments.machine, arguments.output)


if __name__ == "__main__":
    main()
