"""Draw candidates of the small policy for best of n: answers of SmolLM2-135M to prompts of policy_task.py.

Run as `python recipes/rl/candidates.py`; candidates.jsonl.gz holds what it drew once. Each row's prompt is
the one that reward models know from their training, and its `meta` has the policy's own.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from policy_task import JUDGED, tasks
from smollm2 import save_policy

SEED = 4
MAX_TOKENS = 16
SPARE = 2
"""Answers a prompt that are drawn beyond those kept, in place of empty ones."""

BATCH = 4
"""Prompts, of one number of tokens, that are answered together."""


def drawn(policy: Any, tokenizer: Any, prompts: Sequence[list[int]], num: int, seed: int) -> list[list[str]]:
    """Return answers to each of some prompts of equal lengths, none of them empty; a prompt is read once."""
    copies = num + SPARE
    generator = torch.Generator().manual_seed(seed)
    end = tokenizer.eos_token_id
    own: list[torch.Tensor] = []  # of [prompts * copies], a token each
    with torch.inference_mode():
        read = policy(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        memory = read.past_key_values
        memory.batch_repeat_interleave(copies)
        logits = read.logits[:, -1].repeat_interleave(copies, 0)  # [prompts * copies, V]
        has_ended = torch.zeros(len(logits), dtype=torch.bool)
        for _ in range(MAX_TOKENS):
            tokens = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)[:, 0]
            tokens = torch.where(has_ended, end, tokens)
            has_ended |= tokens == end
            own.append(tokens)
            logits = policy(tokens[:, None], past_key_values=memory, use_cache=True).logits[:, -1]
    texts = [text.strip() for text in tokenizer.batch_decode(torch.stack(own, 1), skip_special_tokens=True)]
    by_prompt = [texts[start : start + copies] for start in range(0, len(texts), copies)]
    return [[text for text in answers if text][:num] for answers in by_prompt]


def batches(tokenizer: Any, num: int) -> Iterator[list[tuple[str, list[int]]]]:
    """Yield prompts with their tokens, some of one length at a time, `num` in all."""
    waiting: dict[int, list[tuple[str, list[int]]]] = {}
    for prompt in dict.fromkeys(task.prompt for task in tasks(8 * num, SEED)):
        asked = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        alike = waiting.setdefault(len(ids), [])
        alike.append((prompt, ids))
        if len(alike) == min(BATCH, num):
            yield waiting.pop(len(ids))
            num -= len(alike)
        if not num:
            return


def main() -> None:
    """Draw the candidates and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("runs/rl"), help="where the policy is kept")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("candidates.jsonl.gz"))
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--num", type=int, default=32, help="answers a prompt")
    arguments = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = save_policy(arguments.models / "smollm2")
    policy = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    lines: list[str] = []
    for number, batch in enumerate(batches(tokenizer, arguments.prompts)):
        answers = drawn(policy, tokenizer, [ids for _, ids in batch], arguments.num, number)
        for (prompt, _), texts in zip(batch, answers, strict=True):
            row = {
                "id": f"candidates-{len(lines)}",
                "prompt": JUDGED,
                "responses": texts,
                "meta": {"asked": prompt},
            }
            lines.append(json.dumps(row, ensure_ascii=False))
        print(f"{len(lines)} of {arguments.prompts} prompts", flush=True)
    content = "\n".join(lines) + "\n"
    # Without the time of writing, so that the same rows are the same bytes.
    arguments.output.write_bytes(gzip.compress(content.encode(), mtime=0))


if __name__ == "__main__":
    main()
