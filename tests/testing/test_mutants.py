"""Every check of the kit catches a component that breaks its promise, and says what is wrong."""

from __future__ import annotations

from pathlib import Path

import broken_backbones
import broken_benchmarks
import broken_datasets
import broken_ensemblers
import broken_heads
import broken_losses
import broken_paradigms
import broken_writers
import pytest
from mutants import Mutant, check_of, without_numbers

from basereward import ops
from basereward.testing import Failed
from basereward.testing.hooks import imports_nothing_heavy
from basereward.testing.kit import CHECKS, checks

MUTANTS = {
    "head": broken_heads.MUTANTS,
    "loss": broken_losses.MUTANTS,
    "ensembler": broken_ensemblers.MUTANTS,
    "backbone": broken_backbones.MUTANTS,
    "paradigm": broken_paradigms.MUTANTS,
    "dataset": broken_datasets.MUTANTS,
    "benchmark": broken_benchmarks.MUTANTS,
    "writer": broken_writers.MUTANTS,
}


@pytest.mark.parametrize(
    ("kind", "mutant"),
    [pytest.param(kind, mutant, id=mutant.id) for kind, mutants in MUTANTS.items() for mutant in mutants],
)
def test_a_mutant_is_caught_and_told_what_is_wrong(kind: str, mutant: Mutant) -> None:
    compares_kernels = mutant.check.__name__ == "agrees_with_the_plain_kernels"
    if compares_kernels and ops.status()["cpu"]["kernels"] != "cpp":
        pytest.skip("there are no compiled kernels here")
    with pytest.raises(Failed) as caught:
        check_of(kind, mutant)()
    assert without_numbers(str(caught.value)) == mutant.message


@pytest.mark.external
def test_a_plugin_that_imports_torch_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import torch\nfrom basereward import hookimpl\n@hookimpl\ndef basereward_losses(): return {}\n"
    (tmp_path / "mutant_hooks.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import mutant_hooks

    (check,) = checks(mutant_hooks)
    with pytest.raises(Failed) as caught:
        check()
    assert str(caught.value) == (
        "mutant_hooks imports numpy torch; name classes as 'module:Class', whose modules may import it"
    )


def test_every_check_has_a_mutant() -> None:
    caught = {mutant.check for mutants in MUTANTS.values() for mutant in mutants} | {imports_nothing_heavy}
    assert {check for of_kind in CHECKS.values() for check in of_kind} == caught
