"""The text of a training's progress bar."""

from __future__ import annotations

from basereward.training.progress import facts

STEP = {
    "pairs_per_second": 52.34,
    "tokens_per_second": 104_650.0,
    "fill": 0.966,
    "mfu": 0.384,
    "loss": 0.59312,
}


def test_pace_and_loss_are_said_in_few_words() -> None:
    assert facts(STEP, 0.7124) == (
        "52.3 pairs/s  105k tokens/s  fill 97%  MFU 38%  loss 0.5931  held-out 0.712"
    )
    assert "  999 tokens/s  " in facts({**STEP, "tokens_per_second": 999.2}, None)
    assert "  12.3k tokens/s  " in facts({**STEP, "tokens_per_second": 12_345.0}, None)
    assert "  1.2M tokens/s  " in facts({**STEP, "tokens_per_second": 1.234e6}, None)


def test_what_is_not_known_is_not_said() -> None:
    assert facts({"pairs_per_second": 52.34, "loss": None}, None) == "52.3 pairs/s  loss unknown"
    assert facts({}, 0.5) == "held-out 0.500"
    assert facts({}, None) == ""


def test_a_narrow_terminal_shows_what_matters_most() -> None:
    said = [facts(STEP, 0.7124, width=width) for width in (75, 60, 50, 40, 30, 10)]
    assert said == [
        "52.3 pairs/s  105k tokens/s  fill 97%  MFU 38%  loss 0.5931  held-out 0.712",
        "52.3 pairs/s  MFU 38%  loss 0.5931  held-out 0.712",
        "52.3 pairs/s  MFU 38%  loss 0.5931  held-out 0.712",
        "loss 0.5931  held-out 0.712",
        "loss 0.5931  held-out 0.712",
        "loss 0.5931  held-out 0.712",
    ]
