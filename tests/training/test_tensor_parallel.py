"""Layers that processes divide among them: the rewards, gradients and weights of one process."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import runs
import tiny
import torch
from ranks import in_ranks
from rounding import SMOOTH_EPS, adamw_bound, within
from safetensors.torch import load_file
from sharded import refused, trained_gradients

from basereward.config import LoraConfig, RunConfig
from basereward.config.conversion import ValidationError
from basereward.config.run import TrainConfig
from basereward.errors import ConfigError
from basereward.training.distributed import ProcessGroup

pytestmark = pytest.mark.external

in_child = partial(runs.in_child, adamw_eps=SMOOTH_EPS)


@pytest.mark.parametrize(
    ("kind", "num_ranks", "settings"),
    [
        ("llama", 2, {}),
        ("qwen2_5_vl", 2, {"activation_checkpointing": True}),
        # Norms of single heads, whose gradients each process has for its own heads.
        ("qwen3_vl", 2, {}),
        ("qwen3_vl", 2, {"freeze": ("vision",)}),
        ("internvl-qwen2", 2, {}),
        # Two groups of two: each has half of the comparisons, and of its part of a layer half the rows.
        ("qwen3_vl", 4, {}),
        ("qwen3_vl", 4, {"shard_ranks": 1}),
    ],
)
def test_rewards_and_gradients_are_those_of_one_process(
    tiny_models: dict[str, Path], kind: str, num_ranks: int, settings: dict[str, Any]
) -> None:
    comparisons = tiny.comparisons(images=kind != "llama")
    rewards, gradients = trained_gradients(ProcessGroup(), tiny_models[kind], comparisons, settings)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    settings = {**settings, "tensor_ranks": 2}
    for found, found_gradients in in_ranks(
        trained_gradients, tiny_models[kind], comparisons, settings, num_ranks=num_ranks
    ):
        for one, other in zip(found, rewards, strict=True):
            assert one == pytest.approx(other, abs=1e-5, rel=1e-5)
        # What no comparison uses has no gradient in one process, and may have zeros in several.
        for name in gradients.keys() | found_gradients.keys():
            gradient = gradients.get(name, torch.zeros(()))
            other = found_gradients.get(name, torch.zeros(()))
            torch.testing.assert_close(
                *torch.broadcast_tensors(other, gradient), atol=1e-5 * max(1.0, largest), rtol=1e-5, msg=name
            )


def test_a_run_ends_with_the_weights_of_one_process_and_is_gone_on_with_by_any_number(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    rows = runs.write_rows(tmp_path / "train.jsonl", runs.rows(9, seed=3))
    held_out = runs.write_rows(tmp_path / "eval.jsonl", runs.rows(5, seed=4))

    def config(name: str, **settings: Any) -> RunConfig:
        own: dict[str, Any] = {
            "batch_size": 3,
            "log_every": 1,
            "save_every": 1,
            "ema_decay": 0.9,
            "epochs": 2,
        }
        return runs.config(tmp_path / name, tiny_models["llama"], rows, held_out, **own, **settings)

    alone = config("alone")
    assert in_child(alone)[0] == 0
    divided = config("divided", parallel="fsdp", tensor_ranks=2)
    status, num_moments = in_child(divided, num_ranks=2)
    assert status == 0
    # Killed after its first checkpoint, by one process as by two, and gone on with by the other number.
    ways = {"first": (divided, 2, alone, 1), "second": (alone, 1, divided, 2)}
    ended = [divided]
    for name, (before, num_before, after, num_after) in ways.items():
        run = runs.dataclasses.replace(before, output=str(tmp_path / name))
        moments = num_moments if num_before == 2 else in_child(config("counted"))[1]
        status, _ = in_child(run, num_ranks=num_before, kill_at=int(0.6 * moments))
        assert status
        assert list((tmp_path / name / "checkpoint").glob("step-*"))
        run = runs.dataclasses.replace(after, output=str(tmp_path / name))
        assert in_child(run, num_ranks=num_after, resume=True)[0] == 0
        ended.append(run)
    bound = adamw_bound(6, alone.train.lr)
    wanted = {key: load_file(Path(alone.output) / key / "model.safetensors") for key in ("model", "last")}
    losses = [record["loss"] for record in runs.records(Path(alone.output), "step")]
    for run in ended:
        found = [record["loss"] for record in runs.records(Path(run.output), "step")]
        assert found == pytest.approx(losses, rel=1e-4, abs=1e-4)
        for key, weights in wanted.items():
            for name, value in load_file(Path(run.output) / key / "model.safetensors").items():
                torch.testing.assert_close(value, weights[name], **within(bound), msg=name)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            "qwen3_moe",
            {},
            "train.tensor_ranks: layers.0.mlp.experts of qwen3_moe would be divided by the style "
            "'moe_tp_experts'; allowed: colwise, rowwise, replicated_with_grad_allreduce; leave it out",
        ),
        (
            "llama",
            {"lora": LoraConfig(rank=2)},
            "train.tensor_ranks: layers.0.self_attn.q_proj has adapters, or weights of another kind than a "
            "linear layer's, which can't be divided; leave it out",
        ),
        (
            "llama",
            {"tensor_ranks": 4},
            "train.tensor_ranks is 4, and the decoder has 2 key heads, which can't be divided by it; allowed "
            "for these: 1, 2",
        ),
    ],
)
def test_layers_that_cannot_be_divided_are_refused_by_every_process(
    tiny_models: dict[str, Path], tmp_path: Path, kind: str, settings: dict[str, Any], message: str
) -> None:
    model = tmp_path / kind
    shutil.copytree(tiny_models[kind], model)
    settings = {"tensor_ranks": 2, **settings}
    number = settings["tensor_ranks"]
    assert in_ranks(refused, model, settings, num_ranks=number) == [message] * number


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="is for parallel = 'fsdp'; set that, or leave it out"):
        TrainConfig(tensor_ranks=2)
    with pytest.raises(ValidationError, match="doesn't go with compile; leave one of them out"):
        TrainConfig(tensor_ranks=2, parallel="fsdp", compile=True)
    message = (
        "train.tensor_ranks is 2, which doesn't divide the number of processes, 1; have torchrun start more, "
        "or leave it out"
    )
    with pytest.raises(ConfigError, match=message):
        ProcessGroup(0, 1, torch.device("cpu")).with_tensor_ranks(2)
