"""Decoding with the KV cache equals attention over all of a response's tokens."""

from __future__ import annotations

import pytest
import torch
from forests import PAD, tree
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from basereward.forest import pack
from basereward.forest.kv_cache import GROWTH, PrefixKVCache
from basereward.forest.layout import ForestLayout

HEADS, KEY_HEADS, WIDTH, SCALE = 4, 2, 8, 0.3


def states(num_tokens: int) -> list[Tensor]:
    """Return queries, keys and values [tokens, heads, width]."""
    return [torch.randn(num_tokens, heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the output [heads, width] of one query over all keys."""
    batched = [state.transpose(0, 1)[None] for state in (query[None], keys, values)]
    return scaled_dot_product_attention(*batched, scale=SCALE, enable_gqa=True)[0, :, 0]


@pytest.mark.parametrize("responses", [(5, 1, 4), (3,)], ids=["branches", "prefix alone"])
def test_each_step_sees_the_prefix_and_its_own_branch(responses: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layout = ForestLayout(pack([tree(7, *responses)], pad=PAD))
    [prefix], [branches] = layout.prefixes, layout.branches
    _, key, value = states(7 + sum(responses))
    cache, module = PrefixKVCache(), nn.Module()
    assert not cache.is_prefilled(module)
    cache.prefill(module, key, value, prefixes=[prefix], branches=[branches])
    assert cache.is_prefilled(module)
    runs = [[*prefix, *branch] for branch in branches or [range(0)]]
    keys, values = ([state[run] for run in runs] for state in (key, value))
    # More steps than there are places at first; halfway the second response ends.
    for step in range(GROWTH + 10):
        if step == GROWTH // 2 and len(keys) > 1:
            cache.select(torch.tensor([0, 2]))
            keys, values = [keys[0], keys[2]], [values[0], values[2]]
        query, key, value = states(len(keys))
        keys = [torch.cat([before, new[None]]) for before, new in zip(keys, key, strict=True)]
        values = [torch.cat([before, new[None]]) for before, new in zip(values, value, strict=True)]
        expected = torch.stack([attend(*each) for each in zip(query, keys, values, strict=True)])
        torch.testing.assert_close(cache.decode(module, query, key, value, scale=SCALE), expected)
