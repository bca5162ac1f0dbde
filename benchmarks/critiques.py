"""Time critiques whose prompt is encoded once, beside separate calls.

Run as `python benchmarks/critiques.py`. Critiques of 4 responses to one image prompt are written by one
Qwen2.5-VL of about 30M random parameters (fp32, always the likeliest token), in three ways that take turns:
all four at once from one prompt; each in a call of its own; each by transformers' own `generate`. All three
must write the same tokens, or nothing is timed.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sharing import Case, in_turns, save_model, trees
from torch import Tensor

from basereward.backbones.generation import generate
from basereward.backbones.lm_head import LanguageHead
from basereward.backbones.qwen_vl import QwenVL
from basereward.forest import Tree

NUM_TOKENS = (32, 128)
CASES = (
    Case("p=166 r=40", 1, 4, 100, 8, 40),
    Case("p=466 r=40", 1, 4, 400, 8, 40),
)
NO_END = [10**6]
"""No model writes it, so that every critique has the same length."""


def generator(directory: Path) -> tuple[Any, QwenVL, LanguageHead]:
    """Return transformers' model, and the same weights as a backbone with a language-model head."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    backbone = QwenVL(model=str(directory)).eval()
    embedding = backbone.model.get_input_embeddings()
    # Not tied: a random model whose head is its embedding writes one token over and over.
    head = LanguageHead(embedding, torch.randn_like(embedding.weight))
    config = copy.deepcopy(backbone.model.config)
    for part in (config, config.get_text_config(), config.vision_config):
        part._attn_implementation = "sdpa"  # not ours, which transformers looks for among its own
    whole = Qwen2_5_VLForConditionalGeneration(config).eval()
    whole.model.load_state_dict(backbone.model.state_dict())
    whole.lm_head.weight = head.weight
    whole.set_attn_implementation("sdpa")
    return whole, backbone, head


def ways(
    whole: Any, backbone: QwenVL, head: LanguageHead, tree: Tree, num_tokens: int
) -> dict[str, Callable[[], list[list[int]]]]:
    """Return the three ways of generating `num_tokens` after each response of a tree."""
    banned = [[number] for number in backbone.control_ids()]

    def ours(asked: Tree) -> list[list[int]]:
        [generated] = generate(backbone, head, [asked], max_tokens=num_tokens, stop_ids=NO_END)
        return [each.ids for each in generated]

    def theirs(asked: Tree) -> list[int]:
        ids = torch.tensor([[*asked.prompt, *asked.responses[0]]])
        generated: Tensor = whole.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == 3).long(),
            **asked.media,
            max_new_tokens=num_tokens,
            do_sample=False,
            use_cache=True,
            bad_words_ids=banned,
            eos_token_id=None,
            pad_token_id=0,
        )
        return generated[0, ids.shape[1] :].tolist()

    return {
        "shared": lambda: ours(tree),
        "apart": lambda: [ours(branch)[0] for branch in tree.branches()],
        "transformers": lambda: [theirs(branch) for branch in tree.branches()],
    }


def measure(
    model: tuple[Any, QwenVL, LanguageHead], case: Case, num_tokens: int, repeats: int
) -> dict[str, Any]:
    """Time the three ways in turns; refuse to where they write different tokens."""
    torch.manual_seed(0)
    [tree] = trees(case)
    with torch.no_grad():
        times, texts = in_turns(ways(*model, tree, num_tokens), repeats)
    for name, found in texts.items():
        if found != texts["shared"]:
            raise SystemExit(f"{case.name}: {name} writes other tokens; not timed")
    ratios = {
        name: statistics.median(other / mine for mine, other in zip(times["shared"], values, strict=True))
        for name, values in times.items()
        if name != "shared"
    }
    return {
        "case": case.name,
        "tokens": num_tokens,
        **{f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()},
        **{f"speed_up_over_{name}": ratio for name, ratio in ratios.items()},
    }


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed turns of each way (default 5)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    print(f"fp32, {torch.get_num_threads()} threads, torch {torch.__version__}; 4 responses, 1 image")
    print(
        f"{'case':14}{'tokens':>7}{'shared':>11}{'apart':>11}{'transformers':>14}{'over apart':>12}{'t.':>9}"
    )
    results = []
    with tempfile.TemporaryDirectory() as directory:
        save_model(Path(directory))
        model = generator(Path(directory))
        for case in CASES:
            for num_tokens in NUM_TOKENS:
                row = measure(model, case, num_tokens, arguments.repeats)
                results.append(row)
                print(
                    f"{row['case']:14}{row['tokens']:>7}{row['shared_ms']:>8.0f} ms{row['apart_ms']:>8.0f} ms"
                    f"{row['transformers_ms']:>11.0f} ms{row['speed_up_over_apart']:>11.2f}x"
                    f"{row['speed_up_over_transformers']:>8.2f}x",
                    flush=True,
                )
    if arguments.output:
        machine = {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        found = {"machine": machine, "results": results}
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
