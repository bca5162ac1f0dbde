"""Extensions and messages of a plugin's setup.py; `test_packaging.py` holds our own build to the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environments import BUILT, ROOT

from basereward import extension
from basereward.extension import include_dir, left_out, native_ops, torch_macros

EXAMPLE = ROOT / "plugins" / "basereward-example-op"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a project with an op for the CPU, whose build is under way."""
    (tmp_path / "csrc" / "cpu").mkdir(parents=True)
    for name in ("library.cpp", "op.h", "cpu/op.cpp", "cpu/op.cuh"):
        (tmp_path / "csrc" / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
    for variable in ("BASEREWARD_BUILD_EXT", "BASEREWARD_BUILD_CUDA", "FORCE_CUDA", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")


@needs_compiler
def test_the_library_is_of_all_sources_against_the_installed_headers(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = native_ops("my_package")
    (library,) = found["ext_modules"]
    assert library.name == "my_package._C"
    assert library.sources == ["csrc/cpu/op.cpp", "csrc/library.cpp"]
    assert library.include_dirs[:2] == [str(project / "csrc"), str(include_dir())]
    installed = str(include_dir() / "basereward" / "tensors.h")
    assert {"csrc/op.h", "csrc/cpu/op.cuh", installed} <= set(library.depends)
    assert ("TORCH_TARGET_VERSION", "0x020a000000000000") in library.define_macros
    assert torch_macros() == {"TORCH_TARGET_VERSION": "0x020a000000000000"}
    assert library.optional
    assert found["options"] == {"bdist_wheel": {"py_limited_api": "cp311"}}
    # A project without CUDA sources isn't told what CUDA would need.
    assert capsys.readouterr().err == ""


@needs_compiler
def test_what_is_forced_is_not_optional(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASEREWARD_BUILD_EXT", "1")
    (library,) = native_ops("my_package")["ext_modules"]
    assert not library.optional


def test_messages_begin_with_the_packages_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BASEREWARD_BUILD_EXT", "0")
    assert native_ops("my_package") == {}
    assert capsys.readouterr().err == (
        "my_package: pure Python, since BASEREWARD_BUILD_EXT=0; unset it to build the native ops\n"
    )
    monkeypatch.setenv("BASEREWARD_BUILD_EXT", "yes")
    with pytest.raises(SystemExit) as caught:
        native_ops("my_package")
    assert str(caught.value) == "my_package: BASEREWARD_BUILD_EXT=yes is not understood; write auto, 0 or 1"


def test_reading_metadata_builds_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("egg_info", "sdist", "dist_info"):
        monkeypatch.setattr(sys, "argv", ["setup.py", command])
        assert native_ops("my_package") == {}


def test_an_isolated_build_of_the_example_is_pure_and_says_so(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "project", ignore=BUILT)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "basereward.py").write_text("raise ImportError('not in an isolated build')\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(tmp_path)],
        cwd=tmp_path / "project",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "hidden")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == (
        "basereward_example_op: pure Python; pip install --no-build-isolation builds the op"
    )
    assert [path.name for path in tmp_path.glob("*.whl")] == ["basereward_example_op-0.1.0-py3-none-any.whl"]


@pytest.mark.parametrize(
    ("there", "given", "expected", "variable"),
    [
        ({"c++", "g++", "clang++"}, None, "c++", None),
        ({"g++", "clang++"}, None, "g++", "g++"),
        ({"clang++"}, None, "clang++", "clang++"),
        ({"c++", "aarch64-linux-gnu-g++"}, "aarch64-linux-gnu-g++ -mcpu=native", None, None),
    ],
)
def test_the_compiler_is_the_one_that_is_there_or_the_one_that_is_named(
    there: set[str],
    given: str | None,
    expected: str | None,
    variable: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    if given is not None:
        monkeypatch.setenv("CXX", given)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)
    assert extension._compiler() == (expected or given)
    assert os.environ.get("CXX") == (variable or given)


def test_what_a_build_left_out_is_read_from_its_record_alone(tmp_path: Path) -> None:
    assert left_out(tmp_path) == {}
    for text in ("", "[]", '{"left_out": 3}', "\xff"):
        (tmp_path / "_build.json").write_bytes(text.encode("latin-1"))
        assert left_out(tmp_path) == {}
    extension._write_record(tmp_path / "package", {"package._C": "there is no compiler"})
    assert left_out(tmp_path / "package") == {"package._C": "there is no compiler"}
