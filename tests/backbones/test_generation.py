"""Generation with a KV cache equals generation without one, and that of transformers."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from basereward.backbones.base import Backbone
from basereward.backbones.causal_lm import CausalLM
from basereward.backbones.generation import Generation, Sampling, generate
from basereward.backbones.qwen_vl import QwenVL
from basereward.backbones.tiny import Tiny
from basereward.comparison import Comparison
from basereward.forest import Tree

NO_END = [10**6]
"""A token that no model generates."""


@pytest.fixture(params=[*tiny.VL_KINDS, *tiny.LM_KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(directory: Path, kind: str, **options: Any) -> tuple[Backbone, torch.nn.Module, Tree]:
    torch.manual_seed(0)
    cls = QwenVL if kind in tiny.VL_KINDS else CausalLM
    backbone = cls(model=str(tiny.add_language_head(directory)), **options).eval()
    images = [tiny.image(84, 56, 1)] if kind in tiny.VL_KINDS else []
    tree = backbone.encode(
        Comparison(tiny.sentence(1, 9), [tiny.sentence(seed, 3 * seed) for seed in (1, 2, 3)], images=images)
    )
    return backbone, backbone.language_head(), tree


def greedy_and_sampled(num_texts: int) -> list[Sampling | None]:
    """Return the decoding of texts of which every other one is sampled."""
    return [Sampling(temperature=0.8, seed=3) if number % 2 == 0 else None for number in range(num_texts)]


def test_generation_with_a_kv_cache_equals_generation_without_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fifth token finds no free place left, and the cache grows.
    monkeypatch.setattr("basereward.forest.kv_cache.GROWTH", 4)
    save = tiny.save_qwen_vl if kind in tiny.VL_KINDS else tiny.save_causal_lm
    backbone, head, tree = build(save(tmp_path / "model", kind), kind)
    for beginnings in (tree, replace(tree, responses=tree.responses[:1])):
        sampling = greedy_and_sampled(len(beginnings.responses))
        settings = {"max_tokens": 20, "stop_ids": NO_END, "sampling": sampling}
        [cached] = generate(backbone, head, [beginnings], **settings)
        backbone.decoder.use("dense")
        assert not backbone.supports_kv_cache
        [recomputed] = generate(backbone, head, [beginnings], **settings)
        backbone.decoder.use("forest")
        assert cached == recomputed
        assert all(len(each.ids) == 20 for each in cached)


def test_texts_are_those_of_transformers_own_generation(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    directory = tiny.save_causal_lm(tmp_path / "model")
    backbone, head, tree = build(directory, "llama")
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        model.lm_head.weight.copy_(head.weight)
    [generations] = generate(backbone, head, [tree], max_tokens=40, stop_ids=NO_END)
    banned = [[number] for number in backbone.control_ids()]
    for response, generation in zip(tree.responses, generations, strict=True):
        ids = torch.tensor([[*tree.prompt, *response]])
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=40,
            do_sample=False,
            bad_words_ids=banned,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert generation.ids == expected[0, ids.shape[1] :].tolist()


class Script(torch.nn.Module):
    """Returns the logits of prepared texts, whatever the hidden states; each call the next token."""

    def __init__(self, texts: list[list[int]], num_tokens: int) -> None:
        super().__init__()
        self.waiting = [list(text) for text in texts]
        self.num_tokens = num_tokens
        self.num_asked: list[int] = []

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        going = [text for text in self.waiting if text]
        self.num_asked.append(len(hidden))
        assert len(going) == len(hidden)
        logits = torch.zeros(len(hidden), self.num_tokens)
        for row, text in enumerate(going):
            logits[row, text.pop(0)] = 1.0
        return logits


def test_a_text_stops_at_its_end_and_others_go_on_without_it() -> None:
    torch.manual_seed(0)
    backbone = Tiny().eval()
    tree = backbone.encode(Comparison("p", ["a", "b", "c"]))
    head = Script([[7, 1, 2], [1, 7, 7, 1, 2], [1, 2]], backbone.language.embedding.num_embeddings)
    [generations] = generate(backbone, head, [tree], max_tokens=5, stop_ids=[1, 2])
    assert generations == [Generation([7], True), Generation([1, 7, 7], True), Generation([], True)]
    assert head.num_asked == [3, 3, 2, 1, 1]


def test_a_text_past_the_longest_is_cut_and_says_so() -> None:
    torch.manual_seed(0)
    backbone = Tiny().eval()
    tree = backbone.encode(Comparison("p", ["a", "b"]))
    # The first is ended right after its third token, the second goes on.
    head = Script([[7, 8, 9, 1], [7, 8, 9, 7]], backbone.language.embedding.num_embeddings)
    assert generate(backbone, head, [tree], max_tokens=3, stop_ids=[1]) == [
        [Generation([7, 8, 9], True), Generation([7, 8, 9], False)]
    ]


def test_no_control_token_is_generated_but_stop_ids(tmp_path: Path) -> None:
    backbone, head, tree = build(tiny.save_causal_lm(tmp_path / "model"), "llama")
    control = set(backbone.control_ids())
    end = backbone.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert {end, backbone.tokenizer.convert_tokens_to_ids("<|image_pad|>")} < control

    def eager(hidden: torch.Tensor) -> torch.Tensor:
        return head(hidden).index_fill(1, torch.tensor(sorted(control - {end})), 1e4)

    [generations] = generate(backbone, eager, [tree], max_tokens=30, stop_ids=[end])
    for each in generations:
        assert control.isdisjoint(each.ids)


def test_a_sampled_text_depends_on_no_neighbour(tmp_path: Path) -> None:
    backbone, head, tree = build(tiny.save_causal_lm(tmp_path / "model"), "llama")
    settings = {"max_tokens": 20, "stop_ids": NO_END, "sampling": Sampling()}
    [together] = generate(backbone, head, [tree], **settings)
    for number, response in enumerate(tree.responses):
        alone = replace(tree, responses=[response])
        assert generate(backbone, head, [alone], **settings) == [[together[number]]]
    [twice] = generate(backbone, head, [replace(tree, responses=[tree.responses[0]] * 2)], **settings)
    assert twice[0] == together[0] != twice[1]


def forest_of_different_lengths(kind: str, directory: Path) -> tuple[Backbone, torch.nn.Module, list[Tree]]:
    """Return trees whose prompts, images, numbers of responses and beginnings all differ."""
    backbone, head, _ = build(directory, kind)
    is_vision = kind in tiny.VL_KINDS
    trees = [
        backbone.encode(
            Comparison(
                tiny.sentence(seed, 3 + 5 * seed),
                [tiny.sentence(10 * seed + number, 1 + number) for number in range(num)],
                images=[tiny.image(28 * (1 + seed), 56, seed)] if is_vision and seed % 2 else [],
            )
        )
        for seed, num in enumerate((3, 1, 2, 4, 1))
    ]
    return backbone, head, trees


def test_trees_decoded_together_have_the_texts_of_each_alone(kind: str, tmp_path: Path) -> None:
    save = tiny.save_qwen_vl if kind in tiny.VL_KINDS else tiny.save_causal_lm
    backbone, head, trees = forest_of_different_lengths(kind, save(tmp_path / "model", kind))
    # A stop token that random weights write now and then, so that texts end at different times.
    for stop_ids in ([20], [7]):
        settings = {"max_tokens": 24, "stop_ids": stop_ids}
        sampling = greedy_and_sampled(sum(len(tree.responses) for tree in trees))
        together = generate(backbone, head, trees, sampling=sampling, **settings)
        rest = iter(sampling)
        for tree, texts in zip(trees, together, strict=True):
            alone = list(islice(rest, len(tree.responses)))
            assert generate(backbone, head, [tree], sampling=alone, **settings) == [texts]
        backbone.decoder.use("dense")
        assert generate(backbone, head, trees, sampling=sampling, **settings) == together
        backbone.decoder.use("forest")


def test_each_prompt_and_its_images_are_read_once(tmp_path: Path) -> None:
    backbone, head, trees = forest_of_different_lengths("qwen2_5_vl", tiny.save_qwen_vl(tmp_path / "model"))
    num_read: list[int] = []
    num_patches: list[int] = []

    def record(_: object, arguments: Any) -> None:
        [forest] = arguments
        num_read.append(forest.input_ids.numel())
        num_patches.append(len(forest.media.get("pixel_values", ())))

    backbone.register_forward_pre_hook(record)
    generate(backbone, head, trees, max_tokens=4, stop_ids=NO_END)
    num_texts = sum(len(tree.responses) for tree in trees)
    # All trees in one pass, then one token of each text: four of them, and the one place of a stop token.
    assert num_read == [sum(map(len, trees)), *[num_texts] * 4]
    assert num_patches == [sum(tree.num_patches for tree in trees), 0, 0, 0, 0]


def test_no_trees_have_no_texts() -> None:
    backbone = Tiny().eval()
    assert generate(backbone, torch.nn.Identity(), [], max_tokens=4, stop_ids=NO_END) == []
