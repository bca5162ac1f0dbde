"""Learning rate schedules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from basereward.config import TrainConfig
from basereward.training.schedule import schedule_factor


@given(
    num_steps=st.integers(1, 300),
    warmup=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
)
def test_every_step_has_a_rate_which_rises_in_the_warm_up_and_never_after(
    num_steps: int, warmup: float, schedule: str
) -> None:
    config = TrainConfig(warmup_fraction=warmup, schedule=schedule)  # type: ignore[arg-type]
    factors = [schedule_factor(step, num_steps, config) for step in range(num_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = round(warmup * num_steps)
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert max(factors) == 1


def test_the_schedules_have_their_shapes() -> None:
    def factors(schedule: str) -> list[float]:
        config = TrainConfig(warmup_fraction=0.2, schedule=schedule)  # type: ignore[arg-type]
        return [round(schedule_factor(step, 10, config), 4) for step in range(10)]

    # 2 steps of warm-up, then 8 eighths of the way down: 1 - k/8 and (1 + cos(pi k/8)) / 2.
    assert factors("linear") == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert factors("cosine") == [0.5, 1.0, 1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]
    assert factors("constant") == [0.5, *[1.0] * 9]
