"""Time what checkpoints cost: a step without one, with one after each step, and with one in the background.

Run as `python benchmarks/background_checkpoints.py`. The runs go through `torchrun` as a user's would, and
take turns; time is taken as in processes.py. A checkpoint after each step is the most that can be asked for.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from against_trl import pairs_of_lengths, save_model, write_pairs
from processes import BATCH_SIZE, train

FORMS = {
    "none": {},
    "waited for": {"save_every": "1"},
    "background": {"save_every": "1", "background_checkpoints": "true"},
}


def main() -> None:
    """Train in turns, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    with tempfile.TemporaryDirectory() as directory:
        model, data = Path(directory) / "model", Path(directory) / "pairs.jsonl"
        save_model(model)
        write_pairs(pairs_of_lengths(arguments.steps * BATCH_SIZE, 150, 40), data)
        for _ in range(arguments.turns):
            for form, settings in FORMS.items():
                taken, _ = train(form.replace(" ", "-"), model, data, arguments.steps, **settings)
                seconds[form].append(taken)
    results = []
    for form, times in seconds.items():
        ratios = [own / none for own, none in zip(times, seconds["none"], strict=True)]
        row = {
            "form": form,
            "seconds_a_step": statistics.median(times),
            "ratio": statistics.median(ratios),
            "ratios": ratios,
        }
        results.append(row)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{form:12}{statistics.median(times):>8.3f} s a step{row['ratio']:>7.2f}x ({spread})")
    if arguments.output:
        machine = {"platform": platform.platform(), "command": " ".join(sys.argv)}
        arguments.output.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
