"""The tests' own bounds: sums in any order stay within them, and a missing term does not."""

from __future__ import annotations

import pytest
import torch
from rounding import REWARD_ROUNDINGS, TINY_REWARD, adamw_bound, rounding_bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_terms", [3, 50, 4000])
def test_a_sum_in_any_order_stays_within_the_bound(num_terms: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(num_terms)
    terms = torch.randn(num_terms, generator=generator).to(dtype)
    bound = rounding_bound(num_terms, dtype, magnitude=float(terms.double().abs().sum()))
    exact = float(terms.double().sum())
    for order in (terms, terms.flip(0), terms[torch.randperm(num_terms, generator=generator)]):
        total = torch.zeros((), dtype=dtype)
        for term in order:  # one after the other, where torch adds up in blocks
            total = total + term
        assert abs(float(total) - exact) <= bound / 2


def test_the_bounds_are_those_of_their_formulas() -> None:
    assert rounding_bound(10) == 2 * 10 * 2**-24  # fewer than 64 roundings: each at its worst
    assert rounding_bound(100, torch.float64, magnitude=3) == 2 * 8 * 10 * 2**-53 * 3
    assert pytest.approx(16 * REWARD_ROUNDINGS**0.5 * 2**-24) == TINY_REWARD
    # One step: lr (1 + 1) d / ε, as a single gradient is its own mean and root.
    assert adamw_bound(1, 1e-3) == pytest.approx(1e-3 * 2 * (3**0.5 * TINY_REWARD / 10) / 1e-2)
    assert adamw_bound(0, 1e-3) == 0
