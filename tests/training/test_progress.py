"""The text of a training's progress bar, and of its lines in a log."""

from __future__ import annotations

from typing import Any

from basereward.training.progress import Display, facts

STEP: dict[str, Any] = {
    "loss": 0.59312,
    "accuracy": 0.7051,
    "margin": 0.41237,
    "lr": {"language": 2.9e-6, "head": 1e-4},
    "grad_norm": 1.2345,
    "pairs_per_second": 52.34,
    "tokens_per_second": 104_650.0,
    "fill": 0.966,
    "mfu": 0.384,
}

WHOLE = (
    "loss 0.5931  accuracy 0.705  margin 0.412  lr 0.0001  gradient norm 1.23  52.3 pairs/s  105k tokens/s  "
    "fill 97%  MFU 38%  held-out 0.712"
)


def test_loss_rates_and_pace_are_said_in_few_words() -> None:
    assert facts(STEP, 0.7124) == WHOLE
    assert "  999 tokens/s  " in facts({**STEP, "tokens_per_second": 999.2}, None)
    assert "  12.3k tokens/s  " in facts({**STEP, "tokens_per_second": 12_345.0}, None)
    assert "  1.2M tokens/s  " in facts({**STEP, "tokens_per_second": 1.234e6}, None)


def test_what_is_not_known_is_not_said() -> None:
    assert facts({"pairs_per_second": 52.34, "loss": None}, None) == "loss unknown  52.3 pairs/s"
    assert facts({}, 0.5) == "held-out 0.500"
    assert facts({}, None) == ""


def test_a_narrow_terminal_shows_what_matters_most() -> None:
    assert [facts(STEP, 0.7124, width=width) for width in (len(WHOLE), 90, 80, 60, 50, 10)] == [
        WHOLE,
        "loss 0.5931  accuracy 0.705  margin 0.412  lr 0.0001  52.3 pairs/s  held-out 0.712",
        "loss 0.5931  accuracy 0.705  margin 0.412  52.3 pairs/s  held-out 0.712",
        "loss 0.5931  accuracy 0.705  52.3 pairs/s  held-out 0.712",
        "loss 0.5931  accuracy 0.705  held-out 0.712",
        "loss 0.5931  held-out 0.712",
    ]


def test_a_line_of_a_log_says_how_long_the_steps_that_are_left_take(capsys: Any) -> None:
    display = Display(enabled=True)
    record = {**STEP, "kind": "step", "step": 10, "seconds": 120.0}
    display.record(record, 100)
    # 120 s for 10 steps are 12 s a step, and 90 steps are left: 1080 s.
    assert capsys.readouterr().err == (
        "step 10/100: " + WHOLE.removesuffix("  held-out 0.712") + "  0:18:00 left\n"
    )
