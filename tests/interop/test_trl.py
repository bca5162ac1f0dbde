"""TRL's GRPOTrainer, given the path of an exported model, rewards completions as the model here does."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from rounding import TINY_REWARD

from basereward import Comparison, RewardModel
from basereward.config import Component
from basereward.interop.exporting import export_model

trl = pytest.importorskip("trl", reason="the extra rl is not installed")


@pytest.mark.filterwarnings("ignore")  # TRL's own
def test_grpo_takes_an_exported_model_by_its_path(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaForCausalLM

    torch.manual_seed(0)
    base = Component("causal-lm", {"model": str(tiny.save_causal_lm(tmp_path / "base"))})
    model = RewardModel.build(backbone=base, head=Component("linear", {"bias": False}))
    model.paradigm.eval()
    export_model(model, tmp_path / "reward")
    LlamaForCausalLM.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "policy")
    AutoTokenizer.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "policy")
    prompt = [{"role": "user", "content": "what is it"}]
    trainer = trl.GRPOTrainer(
        model=str(tmp_path / "policy"),
        reward_funcs=str(tmp_path / "reward"),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path / "run"),
            num_generations=2,
            per_device_train_batch_size=2,
            max_completion_length=8,
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt}] * 2),
    )
    responses = ["a cat sits", "the dog"]
    completions = [[{"role": "assistant", "content": response}] for response in responses]
    rewards = trainer._calculate_rewards([{"prompt": prompt}] * 2, [prompt] * 2, completions, [[1], [1]])
    [expected] = model.score([Comparison("what is it", responses)])
    assert rewards[:, 0].tolist() == pytest.approx(expected, abs=TINY_REWARD)
