"""A training step of BaseReward beside one of TRL's RewardTrainer: pairs a second, and memory.

Run as `python benchmarks/against_trl.py`. TRL is installed into an environment of its own (`--venv`), with
the same torch. Both train the same random Llama of 26M parameters on the same texts, in fp32, with AdamW,
through their own public trainers: tokenizing, collating, statistics and all. The two take turns of a few
steps, so that a noisy machine disturbs both alike.

The token ratio 2(p + r) / (p + 2r) is what sharing the prompt saves if time goes with tokens. Where texts
differ in length, TRL's batch is padded to its longest.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VOCABULARY = 4096
BATCH_SIZE = 8
STEPS_A_TURN = 3
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}"
)
CASES = {f"p={prompt} r={response}": (prompt, response) for prompt in (150, 400) for response in (20, 40, 80)}
RAGGED = "ragged"


def save_model(directory: Path) -> None:
    """Write a random Llama and a tokenizer of words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = {"<|endoftext|>": 0, **{f"w{number}": number for number in range(1, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, "w1"))  # which any other word is, and no control token
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=2, pad_token_id=0, eos_token_id=0, num_labels=1,
        use_cache=False,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(directory)


def pairs_of_lengths(num: int, prompt: int, response: int) -> Iterator[tuple[str, str, str]]:
    """Yield prompts and two responses of so many random words; a response's end is one token more."""
    chance = random.Random(0)

    def text(length: int) -> str:
        return " ".join(f"w{chance.randrange(1, VOCABULARY)}" for _ in range(length))

    for _ in range(num):
        yield text(prompt), text(response - 1), text(response - 1)


def pairs_of_file(path: Path, num: int) -> Iterator[tuple[str, str, str]]:
    """Yield a file's real pairs, over and over, with each word hashed into the vocabulary."""
    from basereward.evaluation.benchmarks.mm_rlhf_rewardbench import MMRLHFRewardBench

    def text(words: str) -> str:
        return " ".join(f"w{1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)}" for word in words.split())

    found = []
    for comparison in MMRLHFRewardBench(path).comparisons():
        for pair in comparison.pairs():
            texts = [comparison.responses[number] for number in (pair.chosen, pair.rejected)]
            found.append((text(comparison.prompt[-1].text), *map(text, texts)))
    random.Random(0).shuffle(found)
    for number in range(num):
        yield found[number % len(found)]


def write_pairs(pairs: Iterator[tuple[str, str, str]], path: Path) -> dict[str, float]:
    """Write pairs as TRL's own JSONL, and return what their lengths say."""
    shared = separate = padded = 0
    batch: list[int] = []
    with path.open("w", encoding="utf-8") as file:
        for prompt, chosen, rejected in pairs:
            row = {"prompt": prompt, "chosen": f" {chosen}", "rejected": f" {rejected}"}
            file.write(json.dumps(row) + "\n")
            p, c, r = (len(text.split()) for text in (prompt, chosen, rejected))
            shared += p + c + r + 2
            separate += 2 * p + c + r + 2
            batch += [p + c + 1, p + r + 1]
            if len(batch) == 2 * BATCH_SIZE:
                padded += len(batch) * max(batch)
                batch = []
    return {"token_ratio": separate / shared, "padded_ratio": padded / shared}


class Turns:
    """Holds a training up until its turn has come, and tells how long the turn took.

    Turns are reported on what was standard output; what the trainers print goes to standard error.
    """

    def __init__(self) -> None:
        self.report, sys.stdout = sys.stdout, sys.stderr
        self.before = peak_memory()
        self.num_steps = 0
        self.started = time.perf_counter()

    def step_is_done(self) -> None:
        """Count a step; at the end of a turn report it and wait for the next."""
        self.num_steps += 1
        if self.num_steps % STEPS_A_TURN == 0:
            facts = {"seconds": time.perf_counter() - self.started, "memory": peak_memory() - self.before}
            print(json.dumps(facts), file=self.report, flush=True)
            sys.stdin.readline()
            self.started = time.perf_counter()


def peak_memory() -> float:
    """Return the largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train_ours(model: Path, data: Path, num_steps: int, turns: Turns) -> None:
    """Train with BaseReward."""
    import types

    from basereward import hookimpl, train
    from basereward.config import Component, DataConfig, RunConfig, Source, TrainConfig
    from basereward.plugins import PluginManager

    @hookimpl
    def basereward_log(record: dict[str, Any]) -> None:
        if record["kind"] == "step":
            turns.step_is_done()

    module = types.ModuleType("turns")
    module.basereward_log = basereward_log  # type: ignore[attr-defined]
    config = RunConfig(
        output=str(data.parent / "ours"),
        fresh_head=True,  # as the one that TRL begins with, the model's own being random
        backbone=Component("causal-lm", {"model": str(model)}),
        head=Component("linear"),
        data=DataConfig(train=(Source("trl", {"path": str(data)}),)),
        train=TrainConfig(
            max_steps=num_steps, epochs=1000, batch_size=BATCH_SIZE, lr=1e-5, log_every=1, precision="fp32",
            save_every=10**6,
        ),
    )  # fmt: skip
    train(config, overwrite=True, progress=False, plugins=PluginManager([module]))


def train_trl(model: Path, data: Path, num_steps: int, turns: Turns) -> None:
    """Train with TRL."""
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import RewardConfig, RewardTrainer

    class Callback(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            turns.step_is_done()

    rows = load_dataset("json", data_files=str(data), cache_dir=str(data.parent / "cache"))["train"]
    config = RewardConfig(
        output_dir=str(data.parent / "trl"), max_steps=num_steps, per_device_train_batch_size=BATCH_SIZE,
        learning_rate=1e-5, bf16=False, use_cpu=True, gradient_checkpointing=False, max_length=None,
        report_to="none", save_strategy="no", disable_tqdm=True, optim="adamw_torch_fused",
    )  # fmt: skip
    RewardTrainer(model=str(model), args=config, train_dataset=rows, callbacks=[Callback()]).train()


TRAINERS: dict[str, Callable[[Path, Path, int, Turns], None]] = {"ours": train_ours, "trl": train_trl}


def work(name: str, model: Path, data: Path, num_steps: int) -> None:
    """Train in this process."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(2)
    TRAINERS[name](model, data, num_steps, Turns())


def compare(pythons: dict[str, str], model: Path, data: Path, num_turns: int) -> dict[str, Any]:
    """Let both trainers take turns on the same pairs; the first turn of each warms up."""
    processes = {}
    errors = data.parent / "errors.txt"
    for name, python in pythons.items():
        command = [python, __file__, "--worker", name, str(model), str(data), str(num_turns * STEPS_A_TURN)]
        processes[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors.open("ab"), text=True
        )
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in processes}
    for turn in range(num_turns):
        for name, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            if turn:
                process.stdin.write("go\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                end = errors.read_text()[-2000:]
                raise SystemExit(f"{name} has ended with status {process.wait()}: {end}")
            turns[name].append(json.loads(line))
    for process in processes.values():
        process.communicate("go\n")
    seconds = {name: [turn["seconds"] for turn in found[1:]] for name, found in turns.items()}
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["trl"], strict=True)]
    num_pairs = BATCH_SIZE * STEPS_A_TURN
    return {
        **{
            f"{name}_pairs_per_second": num_pairs / statistics.median(times)
            for name, times in seconds.items()
        },
        "speed_up": statistics.median(ratios),
        **{f"{name}_memory_mib": found[-1]["memory"] for name, found in turns.items()},
    }


def trl_python(venv: Path) -> str:
    """Return the Python of an environment that has TRL, which is made if it isn't there."""
    import torch

    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"torch=={torch.__version__.partition('+')[0]}"], check=True)
        subprocess.run([*pip, "-c", str(Path(__file__).parents[1] / "constraints.txt"), "trl"], check=True)
    return str(python)


def main() -> None:
    """Compare on each case, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=4, help="turns of each trainer, the first not counted")
    parser.add_argument("--cases", nargs="+", default=[*CASES], help="of: %(default)s")
    parser.add_argument("--ragged", type=Path, help="mm_rlhf_reward_bench.jsonl, for texts of real lengths")
    parser.add_argument("--venv", type=Path, default=Path(".cache/trl"), help="environment for TRL")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="keep them for this machine, in results and docs")
    parser.add_argument(
        "--worker", nargs=4, metavar=("NAME", "MODEL", "DATA", "STEPS"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.worker:
        name, model, data, num_steps = arguments.worker
        work(name, Path(model), Path(data), int(num_steps))
        return
    pythons = {"ours": sys.executable, "trl": trl_python(arguments.venv)}
    num_pairs = arguments.turns * STEPS_A_TURN * BATCH_SIZE
    results = []
    print(f"{'case':16}{'ours':>14}{'TRL':>14}{'speed-up':>10}{'tokens':>8}{'share':>7}{'memory':>20}")
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model"
        save_model(model)
        for name in [*arguments.cases, *([RAGGED] if arguments.ragged else [])]:
            data = Path(directory) / "pairs.jsonl"
            is_ragged = name == RAGGED
            lengths = CASES.get(name, (0, 0))
            pairs = (
                pairs_of_file(arguments.ragged, num_pairs)
                if is_ragged
                else pairs_of_lengths(num_pairs, *lengths)
            )
            row = {"case": name, **write_pairs(pairs, data)}
            row |= compare(pythons, model, data, arguments.turns)
            row["share_of_ratio"] = row["speed_up"] / row["token_ratio"]
            results.append(row)
            rates = [row[f"{name}_pairs_per_second"] for name in pythons]
            print(
                f"{name:16}{rates[0]:>8.1f} pair/s{rates[1]:>8.1f} pair/s"
                f"{row['speed_up']:>9.2f}x{row['token_ratio']:>8.2f}{row['share_of_ratio']:>7.2f}"
                f"{row['ours_memory_mib']:>9.0f} v. {row['trl_memory_mib']:.0f} MiB",
                flush=True,
            )
    if arguments.output or arguments.keep:
        machine = {"platform": platform.platform(), "threads": 2, "command": " ".join(sys.argv)}
        report = {"machine": machine, "results": results}
        import tables

        tables.save("against_trl", report, arguments.output, is_kept=arguments.keep)


if __name__ == "__main__":
    main()
