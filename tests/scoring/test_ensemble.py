"""Ensembles: they score as their members do, once for what these share, and load as strictly."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import statistics
import types
from pathlib import Path
from typing import Any

import ensembles
import pytest
import tiny
import torch
from rounding import TINY_REWARD

from basereward import (
    Comparison,
    ConfigError,
    DataError,
    Ensemble,
    ModelError,
    RewardModel,
    hookimpl,
    load_model,
)
from basereward.config import Component
from basereward.ensemblers import Mean
from basereward.errors import ScaleWarning
from basereward.paradigms.scalar import Scalar
from basereward.plugins import PluginManager

ROWS = tiny.comparisons()
TEXTS = tiny.comparisons(images=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensembles.save(tmp_path_factory.mktemp("models"))


def of(models: Path, names: str, ensembler: Component | None = None, **options: Any) -> Ensemble:
    """Return an ensemble of the models with these names, told apart by spaces."""
    return Ensemble.of([models / name for name in names.split()], ensembler, **options)


@pytest.fixture
def saved(models: Path, tmp_path: Path) -> Path:
    of(models, "a other").save(tmp_path / "ensemble")
    return tmp_path / "ensemble"


def test_rewards_are_the_mean_of_what_the_members_give(models: Path) -> None:
    alone = [RewardModel.load(models / name).score(ROWS) for name in ("a", "other")]
    for joined, first, second in zip(of(models, "a other").score(ROWS), *alone, strict=True):
        means = [(x + y) / 2 for x, y in zip(first, second, strict=True)]
        assert joined == pytest.approx(means, abs=TINY_REWARD)
        assert joined.members == {"a": first, "other": second}
        # of two, the deviation is half their distance
        expected = [abs(x - y) / 2 for x, y in zip(first, second, strict=True)]
        assert joined.disagreement == pytest.approx(expected, abs=TINY_REWARD)


def test_members_on_one_backbone_run_it_once_and_give_what_they_give_alone(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = of(models, "a b c d other")
    shared, *rest = (model.backbone for model in ensemble.members.models)
    assert [backbone is shared for backbone in rest] == [True, True, True, False]
    calls = {"forward": 0, "encode": 0}
    for name in calls:
        original = getattr(shared, name)

        def count(*arguments: Any, _name: str = name, _original: Any = original) -> Any:
            calls[_name] += 1
            return _original(*arguments)

        monkeypatch.setattr(shared, name, count)
    found = ensemble.score(ROWS, batch_size=2)
    assert calls == {"forward": 2, "encode": 4}  # 4 comparisons in 2 batches
    for name in "abcd":
        alone = RewardModel.load(models / name).score(ROWS, batch_size=2)
        for joined, expected in zip(found, alone, strict=True):
            assert joined.members[name] == pytest.approx(expected, abs=TINY_REWARD)


def test_a_backbone_is_shared_only_where_it_is_the_same(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    source = {"model": str(tiny_models["llama"])}
    for name, options, head in (
        ("plain", {}, {}),
        ("last", {}, {"layer": 3}),  # of three layers: it reads the last one's output before the norm
        ("middle", {}, {"layer": 2}),
        ("dense", {"attention": "dense"}, {}),
        ("again", {}, {"num_layers": 1}),
    ):
        backbone = Component("causal-lm", {**source, **options})
        RewardModel.build(backbone=backbone, head=Component("mlp", head)).save(tmp_path / name)
    names = ["plain", "last", "middle", "dense", "again"]
    ensemble = Ensemble.of([tmp_path / name for name in names])
    backbones = [model.backbone for model in ensemble.members.models]
    assert [backbones.index(backbone) for backbone in backbones] == [0, 1, 2, 3, 0]
    found = ensemble.score(TEXTS)
    for name in names:
        for joined, expected in zip(found, RewardModel.load(tmp_path / name).score(TEXTS), strict=True):
            assert joined.members[name] == pytest.approx(expected, abs=TINY_REWARD)


def test_subclasses_of_scalar_share_backbone_and_prompt_unless_they_score_in_their_own_way() -> None:
    class Trains(Scalar):
        def loss_of(self, batch: Any) -> Any:
            return super().loss_of(batch)

    class Bounded(Scalar):
        def rewards_of(self, hidden: torch.Tensor, forest: Any) -> torch.Tensor:
            return super().rewards_of(hidden, forest).tanh()

    class Doubled(Scalar):
        def score_of(self, batch: Any) -> torch.Tensor:
            return 2 * super().score_of(batch)

    class Says(Doubled):
        shares_prefix = True

        def score_of(self, batch: Any) -> torch.Tensor:
            return super().score_of(batch)

    shared = {
        cls.__name__: (cls.shares_backbone, cls.shares_prefix) for cls in (Trains, Bounded, Doubled, Says)
    }
    assert shared == {
        "Trains": (True, True),
        "Bounded": (True, False),
        "Doubled": (False, False),
        "Says": (False, True),
    }


def test_a_paradigm_of_another_class_runs_by_itself(models: Path) -> None:
    class Doubled(Scalar):
        """Twice the rewards."""

        def score_of(self, batch: Any) -> torch.Tensor:
            return 2 * super().score_of(batch)

    ensemble = of(models, "a b")
    ensemble.members.by_name["b"].paradigm.__class__ = Doubled
    from basereward.scoring.ensemble_members import EnsembleMembers

    again = EnsembleMembers(ensemble.members.by_name)
    [found] = again.score(TEXTS[:1])
    [alone] = RewardModel.load(models / "b").score(TEXTS[:1])
    assert found[1].tolist() == pytest.approx([2 * reward for reward in alone], abs=TINY_REWARD)


@pytest.mark.parametrize("name", ["mean", "rank-mean", "routed"])
def test_saved_and_loaded_gives_the_same_rewards_bit_for_bit(models: Path, tmp_path: Path, name: str) -> None:
    ensemble = of(models, "a b other", Component(name))
    expected = ensemble.score(ROWS)
    ensemble.save(tmp_path / "one", note="kept")
    loaded = load_model(tmp_path / "one")
    assert isinstance(loaded, Ensemble)
    assert loaded.score(ROWS) == expected
    assert loaded.record == {"note": "kept"}
    loaded.save(tmp_path / "one")  # in its own place
    again = Ensemble.load(tmp_path / "one").score(ROWS)
    assert again == expected
    assert [each.members for each in again] == [each.members for each in expected]


@pytest.mark.parametrize("name", ["accuracy-weighted", "confidence-weighted", "z-mean", "stacked"])
def test_what_was_learned_is_saved_and_loaded(models: Path, tmp_path: Path, name: str) -> None:
    ensemble = of(models, "a d other", Component(name))
    with pytest.raises(ConfigError, match=f"^ensembler '{name}' learns from comparisons; fit it first$"):
        ensemble.save(tmp_path / "one")
    with pytest.raises(ConfigError, match=f"^ensembler '{name}' learns from comparisons; fit it first$"):
        ensemble.score(TEXTS)
    ensemble.fit(ensembles.pairs(12))
    expected = ensemble.score(ROWS)
    ensemble.save(tmp_path / "one")
    loaded = Ensemble.load(tmp_path / "one")
    again = loaded.score(ROWS)
    assert again == expected
    assert [each.disagreement for each in again] == [each.disagreement for each in expected]
    assert (loaded.state, loaded.measured) == (ensemble.state, ensemble.measured)


def test_fitting_measures_the_members_and_counts_what_is_left_out(models: Path) -> None:
    rows = ensembles.pairs(10)
    unranked = Comparison("p", ["x", "y"])
    illustrated = Comparison("p", ["x", "y"], images=[tiny.image()], ranks=[0, 1])
    ensemble = of(models, "a text", Component("z-mean"))
    ensemble.fit([*rows, unranked, illustrated])
    fit = ensemble.record["fit"]
    assert {name: fit[name] for name in ("num_comparisons", "num_left_out")} == {
        "num_comparisons": 10,
        "num_left_out": 2,
    }
    assert (ensemble.calibration.temperature, ensemble.calibration.mean) == (
        fit["temperature"],
        fit["reward_mean"],
    )
    rewards = RewardModel.load(models / "a").score(rows)
    margins = [better - worse for better, worse in rewards]
    measured = ensemble.measured["a"]
    assert measured.mean == pytest.approx(
        statistics.fmean(reward for both in rewards for reward in both), abs=TINY_REWARD
    )
    # Both of a pair deviate by half its margin, with one degree of freedom: 2 * (m / 2)^2 / 1.
    assert measured.scale == pytest.approx((sum(m * m / 2 for m in margins) / 10) ** 0.5, abs=TINY_REWARD)
    assert measured.accuracy == sum(m > 0 for m in margins) / 10


def test_nothing_to_learn_from_says_why(models: Path) -> None:
    ensemble = of(models, "a", Component("stacked"))
    with pytest.raises(DataError) as error:
        ensemble.fit([Comparison("p", ["x", "y"])])
    assert str(error.value) == (
        "none of 1 comparisons can be learned of, the first: the comparison has no ranks, so no response is "
        "known to be better"
    )


def test_disagreement_is_on_one_scale_where_the_members_were_measured(models: Path) -> None:
    ensemble = of(models, "a other")
    ensemble.fit(ensembles.pairs(10))
    [found] = ensemble.score(TEXTS[:1])
    first, second = (ensemble.measured[name] for name in ("a", "other"))
    each = zip(found.members["a"], found.members["other"], strict=True)
    expected = [abs((x - first.mean) / first.scale - (y - second.mean) / second.scale) / 2 for x, y in each]
    assert found.disagreement == pytest.approx(expected, rel=1e-5)


def test_rewards_keep_their_members_through_pickling(models: Path) -> None:
    [found] = of(models, "a b").score(TEXTS[:1])
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.members, again.disagreement) == (found, found.members, found.disagreement)


def test_texts_go_to_the_text_model_and_images_to_those_that_see(models: Path) -> None:
    ensemble = of(models, "a text b", Component("routed"))
    for comparison, found in zip(ROWS, ensemble.score(ROWS), strict=True):
        asked = ["a", "b"] if comparison.images else ["text"]
        assert list(found.members) == asked
        alone = [RewardModel.load(models / name).score([comparison])[0] for name in asked]
        expected = [statistics.fmean(rewards) for rewards in zip(*alone, strict=True)]
        assert found == pytest.approx(expected, abs=TINY_REWARD)
        assert (found.disagreement == []) == (len(asked) == 1)


def test_a_comparison_that_a_member_cannot_score_is_its_error(models: Path) -> None:
    ensemble = of(models, "a text")
    found = [result for _, result in ensemble.score_stream(ROWS)]
    assert [isinstance(result, DataError) for result in found] == [bool(row.images) for row in ROWS]
    assert str(found[1]) == (
        "images: member 'text': the model reads text only; take the images out of the row"
    )
    with pytest.raises(
        DataError, match=r"^comparison row-1: images: member 'text': the model reads text only"
    ):
        ensemble.score(ROWS)


def test_a_reward_that_is_not_finite_names_the_member(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = of(models, "a other")
    last = ensemble.members.by_name["other"].head.layers[-1]
    monkeypatch.setattr(last, "bias", torch.nn.Parameter(torch.tensor([float("inf")])))
    [(_, error)] = ensemble.score_stream(TEXTS[:1])
    assert str(error) == "responses: member 'other': the model gives a reward that is not finite"


def test_an_ensembler_without_a_reward_says_why(models: Path) -> None:
    rows = [Comparison("p", ["alone"]), Comparison("p", ["one", "two"])]
    [(_, error), (_, found)] = of(models, "a b", Component("rank-mean")).score_stream(rows)
    assert str(error) == "responses: rank-mean compares responses; there is only one"
    assert sorted(found) == [0.0, 1.0] or found == [0.5, 0.5]


def test_members_of_different_scales_are_warned_about_once(models: Path, tmp_path: Path) -> None:
    ensembles.enlarge(models / "b", tmp_path / "large", 1000.0)
    directories = {"small": models / "a", "large": tmp_path / "large"}
    rows = ensembles.pairs(20)
    with pytest.warns(ScaleWarning) as caught:
        Ensemble.of(directories).score(rows, batch_size=4)
    [warning] = caught
    number = r"\d[\d.e+-]*"
    assert re.fullmatch(
        r"the members' rewards are on different scales, so that under 'mean' those of large decide "
        rf"\(standard deviation within comparisons: small {number}, large {number}\); z-mean, rank-mean and "
        "stacked count all alike",
        str(warning.message),
    )
    Ensemble.of(directories, Component("rank-mean")).score(rows)  # warns of nothing


def test_other_rewards_in_a_batch_change_none(models: Path) -> None:
    ensemble = of(models, "a b text", Component("routed"))
    whole = ensemble.score(ROWS)
    for comparison, expected in zip(ROWS, whole, strict=True):
        assert ensemble.score(iter([comparison]))[0] == pytest.approx(expected, abs=TINY_REWARD)


@pytest.mark.parametrize("name", ["head.safetensors", "model.safetensors", "reward_config.json"])
def test_a_damaged_or_missing_file_of_a_member_is_named(saved: Path, name: str) -> None:
    path = saved / "members/other" / name
    content = path.read_bytes()
    path.unlink()  # rather than write through a link
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError) as error:
        load_model(saved)
    assert str(error.value) == f"{path} is not the file that was saved: its SHA-256 differs"
    path.unlink()
    with pytest.raises(ModelError) as error:
        load_model(saved)
    assert str(error.value) == f"{saved} lacks the file members/other/{name}"


def test_a_missing_member_and_one_too_many_are_named(saved: Path) -> None:
    (saved / "members/third").mkdir()
    (saved / "members/third/model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError) as error:
        load_model(saved)
    path = saved / "members/third/model.safetensors"
    assert str(error.value) == f"{path} is not among the model's files; remove it"
    shutil.rmtree(saved / "members/third")
    shutil.rmtree(saved / "members/a")
    with pytest.raises(ModelError) as error:
        load_model(saved)
    assert str(error.value).startswith(f"{saved} lacks the file members/a/")


def test_notes_may_lie_beside_members(saved: Path) -> None:
    for place in (saved, saved / "members/a"):
        for name in ("README.md", "LICENSE", ".gitattributes"):
            (place / name).write_text("a note")
    assert load_model(saved).score(TEXTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "has schema version 9; this BaseReward reads version 1"),
        ({"components": {}}, "is damaged: components.ensembler is missing"),
        ({"members": ["a"]}, "is damaged: members: TypeError('string indices must be integers, not 'str'')"),
        ({"members": [{"name": "a"}]}, "is damaged: members: KeyError('measured')"),
        ({"members": []}, "is damaged: members: ValueError([])"),
        (
            {"members": [{"name": "../../model", "measured": None}]},
            "is damaged: members: ValueError(['../../model'])",
        ),
        (
            {"members": [{"name": "a", "measured": None}] * 2},
            "is damaged: members: ValueError(['a', 'a'])",
        ),
    ],
)
def test_a_damaged_config_is_refused(saved: Path, change: dict[str, Any], message: str) -> None:
    path = saved / "reward_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError) as error:
        load_model(saved)
    assert str(error.value).replace('"', "'") == f"{path} {message}"


def test_a_damaged_state_is_refused(models: Path, tmp_path: Path) -> None:
    ensemble = of(models, "a b", Component("stacked"))
    ensemble.fit(ensembles.pairs(4))
    ensemble.save(tmp_path / "one")
    path = tmp_path / "one/reward_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": {"weights": [1, 2]}}))
    with pytest.raises(ModelError) as error:
        load_model(tmp_path / "one")
    assert str(error.value) == f"{path} is damaged: state: KeyError('offset')"


def test_a_missing_plugin_is_named_with_what_to_install(saved: Path) -> None:
    missing = {
        "name": "gated",
        "plugin": "multi-objective",
        "version": "0.3.1",
        "distribution": "basereward-multi-objective",
    }
    said = (
        "is 'gated' of plugin 'multi-objective' 0.3.1, which is not there; "
        "install basereward-multi-objective==0.3.1"
    )
    path = saved / "members/other/reward_config.json"
    config = json.loads(path.read_text())
    config["components"]["head"] |= missing
    path.unlink()
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        load_model(saved, verify=False)
    assert str(error.value) == f"member 'other': the model's head {said}"
    path = saved / "reward_config.json"
    config = json.loads(path.read_text())
    config["components"]["ensembler"] |= missing
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        load_model(saved, verify=False)
    assert str(error.value) == f"the model's ensembler {said}"


def test_a_plugins_ensembler_is_named_by_its_plugin(models: Path, tmp_path: Path) -> None:
    class Twice(Mean):
        """Twice the mean."""

        def __call__(self, members: torch.Tensor, comparisons: Any) -> torch.Tensor:
            return 2 * super().__call__(members, comparisons)

    module: Any = types.ModuleType("twice")
    module.basereward_ensemblers = hookimpl(specname="basereward_ensemblers")(lambda: {"mean": Twice})
    plugins = PluginManager([module])
    ensemble = of(models, "a b", Component("twice/mean"), plugins=plugins)
    expected = ensemble.score(TEXTS)
    assert expected[0] == pytest.approx([2 * reward for reward in of(models, "a b").score(TEXTS)[0]])
    ensemble.save(tmp_path / "one")
    assert load_model(tmp_path / "one", plugins=plugins).score(TEXTS) == expected


def test_a_model_and_an_ensemble_are_not_taken_for_each_other(saved: Path, models: Path) -> None:
    assert isinstance(load_model(models / "a"), RewardModel)
    with pytest.raises(ModelError) as error:
        RewardModel.load(saved)
    assert str(error.value) == (
        f"{saved} is an ensemble; basereward.load_model(DIR) loads models and ensembles"
    )
    with pytest.raises(ModelError) as error:
        Ensemble.load(models / "a")
    assert str(error.value) == (
        f"{models / 'a'} is a model, no ensemble; basereward.load_model(DIR) loads both"
    )
    with pytest.raises(ModelError) as error:
        Ensemble.of([saved])
    assert str(error.value) == (
        f"member 'ensemble': {saved} is an ensemble itself; name its members, in {saved}/members"
    )
    with pytest.raises(ModelError, match="is no model directory: it has no reward_config.json$"):
        load_model(saved.parent)


def test_files_that_members_have_in_common_are_there_once(models: Path, tmp_path: Path) -> None:
    of(models, "a b").save(tmp_path / "one")
    first, second = (tmp_path / f"one/members/{name}/model.safetensors" for name in "ab")
    assert first.samefile(second)
    assert first.read_bytes() == (models / "a/model.safetensors").read_bytes()


def test_a_file_system_without_links_gets_copies(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    ensemble = of(models, "a b")
    ensemble.save(tmp_path / "one")
    assert load_model(tmp_path / "one").score(TEXTS) == ensemble.score(TEXTS)


def test_a_member_that_changed_since_it_was_loaded_is_refused(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "a", tmp_path / "a")
    ensemble = Ensemble.of([tmp_path / "a", models / "b"])
    ensembles.enlarge(tmp_path / "a", tmp_path / "a", 2.0)
    with pytest.raises(ModelError) as error:
        ensemble.save(tmp_path / "one")
    assert str(error.value) == f"{tmp_path / 'a'} has changed since it was loaded; load it again"
    assert not (tmp_path / "one").exists()


def test_members_are_called_by_what_tells_them_apart(models: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(models / "a", tmp_path / name / "model")
    shutil.copytree(models / "a", tmp_path / "second/last")
    run = [tmp_path / "first/model", tmp_path / "second/model"]
    assert Ensemble.of(run).members.names == ["first", "second"]
    assert Ensemble.of([*run, tmp_path / "second/last"]).members.names == [
        "first-model",
        "second-model",
        "second-last",
    ]
    assert Ensemble.of(run[:1]).members.names == ["model"]
    assert Ensemble.of({"x": run[0]}).members.names == ["x"]


@pytest.mark.parametrize(
    ("directories", "message"),
    [
        ([], "an ensemble needs at least one member; give model directories"),
        (["a", "./a"], "a is a member twice; once is enough"),
        ({"../x": "a"}, "a member's name is that of a directory, not '../x'"),
        ({"": "a"}, "a member's name is that of a directory, not ''"),
    ],
)
def test_members_that_cannot_be_are_refused(directories: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Ensemble.of(directories)
    assert str(error.value) == message


def test_members_of_all_paradigms_score_and_report_together(models: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = Component(
        "causal-lm", {"model": str(tiny.add_language_head(tiny.save_causal_lm(tmp_path / "lm")))}
    )
    critic = Component("critic", {"max_critique_tokens": 4})
    for name, paradigm in (("critic", critic), ("judge", Component("generative", {}))):
        RewardModel.build(backbone=base, paradigm=paradigm).save(tmp_path / name)
    directories = [models / "a", tmp_path / "critic", tmp_path / "judge"]
    Ensemble.of(directories, Component("rank-mean", {})).save(tmp_path / "ensemble")
    found = load_model(tmp_path / "ensemble")
    rewards = found.score(TEXTS)
    for directory in directories:
        alone = RewardModel.load(directory).score(TEXTS)
        for joined, expected in zip(rewards, alone, strict=True):
            assert joined.members[directory.name] == pytest.approx(expected, abs=TINY_REWARD)
    num_orders = sum(len(row.responses) * (len(row.responses) - 1) for row in TEXTS)
    assert found.statistics["judge answers"] == num_orders
    assert found.statistics["judge parse_failure_rate"] == 0
    assert found.statistics["critic critiques_written"] == sum(len(row.responses) for row in TEXTS)
