"""Trees of given lengths."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st

from basereward.forest import Tree

PAD = 99


def tree(prompt: int, *responses: int) -> Tree:
    """Return a tree of given lengths whose token ids tell its tokens apart."""
    ids = count()
    lists = [[next(ids) for _ in range(length)] for length in (prompt, *responses)]
    return Tree.of_text(lists[0], lists[1:])


lengths = st.integers(1, 5)
prompts = st.integers(0, 5)
shapes = st.lists(st.tuples(prompts, st.lists(lengths, min_size=1, max_size=4)), min_size=1, max_size=5)
