"""Draw candidates of the small policy for best of n: answers of SmolLM2-135M to prompts of policy_task.py.

Run as `python recipes/rl/candidates.py`; candidates.jsonl.gz holds what it drew once. Each row's prompt is
the one that reward models know from their training, and its `meta` has the policy's own.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import torch
from policy_task import JUDGED, tasks
from smollm2 import save_policy

SEED = 4
MAX_TOKENS = 20
SPARE = 4
"""Answers a prompt that are drawn beyond those kept, in place of empty ones."""


def drawn(policy: Any, tokenizer: Any, prompt: str, num: int, seed: int) -> list[str]:
    """Return answers to a prompt, none of them empty; the prompt is read once."""
    asked = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    generator = torch.Generator().manual_seed(seed)
    end = tokenizer.eos_token_id
    own: list[torch.Tensor] = []  # of [num + SPARE], a token each
    with torch.inference_mode():
        read = policy(ids["input_ids"], use_cache=True, logits_to_keep=1)
        memory = read.past_key_values
        memory.batch_repeat_interleave(num + SPARE)
        logits = read.logits[:, -1].expand(num + SPARE, -1)  # [num + SPARE, V]
        has_ended = torch.zeros(num + SPARE, dtype=torch.bool)
        for _ in range(MAX_TOKENS):
            tokens = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)[:, 0]
            tokens = torch.where(has_ended, end, tokens)
            has_ended |= tokens == end
            own.append(tokens)
            logits = policy(tokens[:, None], past_key_values=memory, use_cache=True).logits[:, -1]
    texts = tokenizer.batch_decode(torch.stack(own, 1), skip_special_tokens=True)
    return [text.strip() for text in texts if text.strip()][:num]


def main() -> None:
    """Draw the candidates and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("runs/rl"), help="where the policy is kept")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("candidates.jsonl.gz"))
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--num", type=int, default=32, help="answers a prompt")
    arguments = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = save_policy(arguments.models / "smollm2")
    policy = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    prompts = list(dict.fromkeys(task.prompt for task in tasks(2 * arguments.prompts, SEED)))
    lines = []
    for number, prompt in enumerate(prompts[: arguments.prompts]):
        texts = drawn(policy, tokenizer, prompt, arguments.num, number)
        row = {"id": f"candidates-{number}", "prompt": JUDGED, "responses": texts, "meta": {"asked": prompt}}
        lines.append(json.dumps(row, ensure_ascii=False))
        print(f"{number + 1} of {arguments.prompts} prompts", flush=True)
    content = "\n".join(lines) + "\n"
    # Without the time of writing, so that the same rows are the same bytes.
    arguments.output.write_bytes(gzip.compress(content.encode(), mtime=0))


if __name__ == "__main__":
    main()
