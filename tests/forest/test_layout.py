"""The layout of a forest: flat positions of prefixes, branches and ends, and the padded batches of them."""

from __future__ import annotations

import torch
from forests import PAD, shapes, tree
from hypothesis import given

from basereward.forest import pack
from basereward.forest.layout import ForestLayout


def test_a_small_layout_by_hand() -> None:
    # Rows of 5 tokens; the second tree has one response, so all of it is prefix.
    layout = ForestLayout(pack([tree(2, 2, 1), tree(1, 1)], pad=PAD))
    assert layout.prefixes == [range(2), range(5, 7)]
    assert layout.branches == [[range(2, 4), range(4, 5)], []]
    assert layout.ends.tolist() == [3, 4, 6]
    assert layout.padded.prefixes.tolist() == [[0, 1], [5, 6]]
    assert layout.padded.branches.tolist() == [[2, 3], [4, 4]]
    assert layout.padded.tree.tolist() == [0, 0]
    # 4 results of prefixes, 4 of branches, and one for padding.
    assert layout.padded.scatter_index.tolist() == [0, 1, 4, 5, 6, 2, 3, 8, 8, 8]


@given(shapes)
def test_scattering_what_was_gathered_gives_every_token_back(sizes: list[tuple[int, list[int]]]) -> None:
    forest = pack([tree(prompt, *responses) for prompt, responses in sizes], pad=PAD)
    padded, ids = ForestLayout(forest).padded, forest.input_ids.flatten()
    gathered = torch.cat(
        [ids[padded.prefixes].flatten(), ids[padded.branches].flatten(), torch.tensor([PAD])]
    )
    assert torch.equal(gathered[padded.scatter_index], ids)
