"""A working directory in which every recipe finds its data and its model by the paths it names."""

from __future__ import annotations

from pathlib import Path

import hub_benchmarks
import hub_datasets
import original_checkpoints
import pytest
import tiny
import torch
from safetensors.torch import save_file

from basereward.cli import main
from basereward.plugins import PluginManager
from basereward.study import load_study, planned_runs

RECIPES = Path(__file__).parents[2] / "recipes"
TABLE_1 = "recipes/studies/table-1.toml"

MODELS = {
    "qwen2_vl": [f"Qwen/Qwen2-VL-{size}-Instruct" for size in ("2B", "7B", "72B")],
    "qwen2_5_vl": [f"Qwen/Qwen2.5-VL-{size}-Instruct" for size in ("3B", "7B", "32B", "72B")],
    "internvl-qwen2": [f"OpenGVLab/InternVL3-{size}-hf" for size in ("1B", "2B", "8B", "14B", "38B", "78B")],
    "qwen2": ["Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-8B"],
    "llama": ["HuggingFaceTB/SmolLM2-135M-Instruct"],
}
"""The models that recipes name, by the tiny model that stands there for them."""

PUBLISHED = {
    "yifanzhang114/R1-Reward": None,
    "CodeGoat24/UnifiedReward-qwen-7b": None,
    "CodeGoat24/UnifiedReward-Think-qwen-7b": None,
    "Skywork/Skywork-VL-Reward-7B": "v_head.summary",
}
"""Public models on Qwen2.5-VL, and the head in a file beside their weights."""


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with `recipes/`, `data/` as the hubs have it, and the models by their names."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = tmp_path_factory.mktemp("recipes")
    (place / "recipes").symlink_to(RECIPES)
    hub_datasets.write_data_sets(place / "data")
    hub_benchmarks.write_benchmarks(place / "data")
    for kind, names in MODELS.items():
        model = place / "tiny" / kind
        if kind in tiny.INTERNVL_KINDS:
            tiny.save_internvl(model, kind)
        elif kind in tiny.VL_KINDS:
            tiny.save_qwen_vl(model, kind)
        else:
            tiny.save_causal_lm(model, kind)
        tiny.add_language_head(model)
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).symlink_to(model)
    for name, head in PUBLISHED.items():
        model = tiny.add_language_head(tiny.save_qwen_vl(place / name))
        if head is not None:
            tensors = {f"{head}.weight": torch.ones(1, 32), f"{head}.bias": torch.zeros(1)}
            save_file(tensors, model / "value_head.safetensors")
    original_checkpoints.internvl_chat(place / "OpenGVLab" / "InternVL3-8B")
    original_checkpoints.mm_rlhf_reward(place / "yifanzhang114" / "MM-RLHF-Reward-7B-llava-ov-qwen")
    # Wide enough for weights in 4 bits, which come in blocks of 64.
    tiny.save_qwen_vl(place / "tiny" / "wide", "qwen2_5_vl", hidden_size=64, intermediate_size=64)
    _small(place)
    # As the recipe says that it is written, in small.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["data", "mix", "recipes/basereward-7b.toml", "--num-held-out", "12", "--quiet"]) == 0
    return place


@pytest.fixture
def cwd(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the directory of the recipes, as `basereward` would be started there."""
    monkeypatch.chdir(workplace)
    return workplace


@pytest.fixture
def reinforced_judge(cwd: Path) -> Path:
    """Put a judge where table 1 says that reinforcement learning has left one."""
    from basereward.scoring.reward_model import RewardModel

    directory = cwd / "runs" / "rl" / "r1-reward" / "model"
    if not directory.exists():
        [config] = [
            run.config
            for run in planned_runs(load_study(TABLE_1, ["seeds=[0]"]), PluginManager(), path=TABLE_1)
            if run.config.init is not None
        ]
        RewardModel.build(backbone=config.backbone, paradigm=config.paradigm).save(directory)
    return directory


def _small(place: Path) -> None:
    """Write what the recipes for small models read, which installed packages hold, in small."""
    from basereward_mini import assets
    from basereward_mini.backbone import VISION_FILE
    from basereward_mini.encoder import CHANNELS, ImageEncoder

    study = place / ".cache" / "study"
    hub_datasets.small_study(study)
    hub_datasets.ratings(place / assets.RATINGS_DIRECTORY / assets.RATINGS_NAME)
    hub_datasets.texts_of_judge(place / "judgements.jsonl")
    # As many layers as the recipes read of SmolLM2-135M.
    deep = tiny.save_causal_lm(study / "smollm2", "llama", num_hidden_layers=30)
    (place / "smollm2-135m").symlink_to(tiny.add_language_head(deep))
    vlm = tiny.add_language_head(tiny.save_causal_lm(study / "mini-vlm", "llama", num_hidden_layers=4))
    vision = ImageEncoder().state_dict()
    generator = torch.Generator().manual_seed(0)
    projector = {
        "projector.1.weight": 0.1 * torch.randn(32, CHANNELS, generator=generator),
        "projector.1.bias": torch.zeros(32),
    }
    encoder = {f"vision.{name}": value.contiguous() for name, value in vision.items()}
    save_file({**encoder, **projector}, vlm / VISION_FILE)
    for name in ("aligned", "mini-vlm-deep"):
        (study / name).symlink_to(vlm)
