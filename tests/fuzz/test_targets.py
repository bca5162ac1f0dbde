"""Every fuzz target, on its corpus and a few mutated inputs: only the project's own errors come of them."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

spec = importlib.util.spec_from_file_location("fuzz_run", Path(__file__).with_name("run.py"))
assert spec is not None
assert spec.loader is not None
run: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)


@pytest.fixture(scope="module", params=run.names())
def target(request: pytest.FixtureRequest) -> Any:
    return run.load(request.param)


def test_seeds_and_what_was_found_before_leave_nothing_but_our_errors(target: Any) -> None:
    for data in target.seeds:
        with run.time_limit(run.MAX_SECONDS):
            target.check(data)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=st.randoms(use_true_random=False))
def test_mutated_inputs_leave_nothing_but_our_errors(target: Any, chance: random.Random) -> None:
    data = run.mutated(chance, target)
    with run.time_limit(run.MAX_SECONDS):
        target.check(data)
