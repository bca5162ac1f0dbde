"""Count the tokens of an audit whose edits share a tree with their prompt, and of one whose edits don't.

Run as `python benchmarks/audit_cost.py runs/demo/model`, after `make demo`, whose model and held-out drawings
docs/trust.md speaks of.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from basereward_mini.openmoji import OpenMojiCaptions

from basereward import audit, load_model

EDITS = "pairs and their edits"


def main() -> None:
    """Print a line for each form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=10)
    args = parser.parse_args()
    model = load_model(args.model)
    for shares, form in ((True, "one tree a prompt"), (False, "a tree for each trial")):
        result = audit(model, OpenMojiCaptions(split="test"), max_rows=args.rows, shares=shares)
        edits, total = result.costs[EDITS].num_tokens, result.total.num_tokens
        print(
            f"{form}: the pairs and their edits take {edits:,} tokens, the audit "
            f"{total:,}, which is {result.times_once:.1f} times the pairs once"
        )


if __name__ == "__main__":
    main()
