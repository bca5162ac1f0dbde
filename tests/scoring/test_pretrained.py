"""Models by name: from and to the hub, here a directory that stands in for it; and the model card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from stand_in_hub import Hub

from basereward import Comparison, Ensemble, RewardConfig, RewardModel, RewardTrainer, load_model
from basereward.errors import ConfigError, ModelError

ROW = {"prompt": "What is it?", "responses": ["a cat", "a small dog"]}
PAIRS = [{"prompt": f"question {number}", "chosen": "yes yes", "rejected": "no"} for number in range(8)]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.chdir(tmp_path)
    return Hub.put_in_place(tmp_path / "hub", monkeypatch)


def card_of(directory: Path) -> ModelCard:
    """Return a card whose metadata the hub's own library understands, else an error."""
    return ModelCard.load(directory / "README.md", ignore_metadata_errors=False)


def test_a_model_comes_back_from_the_hub_with_the_same_rewards(hub: Hub) -> None:
    model = RewardModel.build("tiny")
    assert model.push_to_hub("me/first", license="apache-2.0") == "https://hub/me/first/commit/1"
    expected = model.score(ROW)
    assert RewardModel.from_pretrained("me/first").score(ROW) == expected
    assert load_model("me/first@main").score(ROW) == expected
    card = card_of(hub.root / "me/first")
    assert card.data.license == "apache-2.0"
    assert 'basereward.load_model("me/first")' in card.text


def test_a_newer_model_replaces_the_older_ones_files_and_no_others(hub: Hub) -> None:
    RewardModel.build("tiny").push_to_hub("me/first")
    place = hub.root / "me/first"
    (place / "notes.md").write_text("mine\n")
    (place / "README.md").write_text("edited\n")
    config = json.loads((place / "reward_config.json").read_text())
    config["files"]["older.safetensors"] = "0" * 64
    (place / "reward_config.json").write_text(json.dumps(config))
    (place / "older.safetensors").touch()
    model = RewardModel.build("tiny", dim=16)
    model.push_to_hub("me/first")
    assert not (place / "older.safetensors").exists()
    assert (place / "notes.md").read_text() == "mine\n"
    assert (place / "README.md").read_text() == "edited\n"
    assert RewardModel.from_pretrained("me/first").score(ROW) == model.score(ROW)

    (place / "tool.py").touch()
    with pytest.raises(ConfigError, match=r"me/first has files that BaseReward has not written \(tool.py\)"):
        model.push_to_hub("me/first")


def test_names_that_are_no_model_say_what_to_do(hub: Hub) -> None:
    hub.create_repo("me/llm")
    with pytest.raises(ModelError, match=r'RewardModel.build\(BACKBONE, model="me/llm"\)'):
        RewardModel.from_pretrained("me/llm")
    with pytest.raises(ModelError, match="me/none is no directory, and can't be downloaded from the hub"):
        load_model("me/none")
    with pytest.raises(ModelError, match="nowhere is no model directory"):
        RewardModel.from_pretrained("nowhere")


def test_a_card_that_somebody_has_edited_is_theirs(tmp_path: Path) -> None:
    model = RewardModel.build("tiny")
    model.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model", license="mit")
    assert card_of(tmp_path / "model").data.license == "mit"
    (tmp_path / "model/README.md").write_text("My own words.\n")
    assert RewardModel.from_pretrained(tmp_path / "model").score(ROW) == model.score(ROW)
    with pytest.raises(ConfigError, match=r"holds files that BaseReward has not written \(README.md\)"):
        model.save_pretrained(tmp_path / "model")
    (tmp_path / "model/README.md").unlink()
    assert RewardModel.load(tmp_path / "model").record["license"] == "mit"


def test_a_trained_models_card_has_metrics_data_recipe_and_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = RewardConfig(output_dir="run", max_steps=2, disable_tqdm=True, learning_rate=1e-3, head="linear")
    trainer = RewardTrainer({"name": "tiny"}, args, train_dataset=PAIRS, eval_dataset=PAIRS[:4])
    result = trainer.train()
    card = card_of(result.model_dir)
    [metric] = card.data.eval_results
    assert metric.metric_value == round(result.best["accuracy"], 4)
    assert metric.dataset_name == "eval.jsonl (trl)"
    low, high = (f"{result.best[name]:.3f}" for name in ("low", "high"))
    assert f"| pair accuracy (0.5 is chance) | {result.best['accuracy']:.3f} | {low} to {high} |" in card.text
    assert "- train.jsonl (trl)" in card.text
    assert "2 steps in fp32, seed 42." in card.text
    assert "lr = 0.001, " in card.text
    assert "| head | linear (" in card.text
    assert str(tmp_path) not in card.content


def test_an_ensemble_has_the_same_calls(hub: Hub, tmp_path: Path) -> None:
    for name in ("a", "b"):
        RewardModel.build("tiny").save_pretrained(tmp_path / name)
    ensemble = Ensemble.of([tmp_path / "a", tmp_path / "b"], {"name": "mean"}).to("cpu")
    assert repr(ensemble) == "Ensemble(a, b; ensembler='mean')"
    ensemble.push_to_hub("me/both")
    rewards = ensemble.score(Comparison(ROW["prompt"], ROW["responses"]))
    assert Ensemble.from_pretrained("me/both").score(ROW) == rewards
    assert "| member | a |" in card_of(hub.root / "me/both").text
