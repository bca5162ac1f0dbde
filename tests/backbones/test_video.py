"""Videos: what the tower and the decoder see of them is what transformers' own processing gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from rounding import TINY_REWARD, within

from basereward.backbones.internvl import InternVL
from basereward.backbones.qwen_vl import QwenVL
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError
from basereward.heads import MLP
from basereward.media import Image, Video

KINDS = ["qwen2_vl", "qwen2_5_vl"]


def video(num_frames: int, fps: float | None = None, width: int = 84, height: int = 56) -> Video:
    """Return frames of coloured noise, each another."""
    return Video([tiny.image(width, height, seed=number) for number in range(num_frames)], fps)


def comparison(*contents: object, responses: tuple[str, ...] = ("a cat", "a red dog runs")) -> Comparison:
    """Return a comparison whose prompt holds these contents."""
    return Comparison([{"role": "user", "content": list(contents)}], responses, ranks=range(len(responses)))


@pytest.fixture(params=KINDS)
def backbone(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> QwenVL:
    """Return a tiny model that reads videos, with frames as small as they come."""
    return QwenVL(model=str(tiny_models[request.param]), min_pixels=28 * 28, max_pixels=28 * 28 * 16)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_patches_span_two_frames_and_a_last_one_is_doubled(backbone: QwenVL, num_frames: int) -> None:
    given = video(num_frames)
    tree = backbone.encode(comparison(given, "what is it"))
    frames = [*given.frames, *given.frames[-1:] * (num_frames % 2)]
    pairs = len(frames) // 2
    assert tree.media["video_grid_thw"].tolist() == [[pairs, 4, 6]]

    # The size is kept. Rescaled, normalized, and cut as Qwen2-VL has it: [t, 2, C, h, m, p, w, m, p].
    processor = backbone.image_processor
    pixels = np.stack([np.asarray(frame.open(), dtype=np.float64) for frame in frames]) / 255
    normed = (pixels - np.array(processor.image_mean)) / np.array(processor.image_std)
    blocks = normed.transpose(0, 3, 1, 2).reshape(pairs, 2, 3, 2, 2, 14, 3, 2, 14)
    wanted = blocks.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(pairs * 24, 3 * 2 * 14 * 14)
    found = tree.media["pixel_values_videos"]
    torch.testing.assert_close(found.double(), torch.from_numpy(wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fps", [None, 2.0, 0.5, 3.0])
def test_positions_are_transformers_own(backbone: QwenVL, fps: float | None) -> None:
    tree = backbone.encode(comparison("first", Image(tiny.image()), "then", video(6, fps), "what is it"))
    config = backbone.model.config
    ids = torch.tensor([tree.prompt])
    kinds = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
    # Without a rate transformers takes a second for each pair of frames.
    seconds = None if fps is None else torch.tensor([2 / fps])
    given = {"second_per_grid_ts": seconds} if config.model_type == "qwen2_5_vl" else {}
    wanted, delta = backbone.model.get_rope_index(
        ids, kinds, tree.media["image_grid_thw"], tree.media["video_grid_thw"], **given
    )
    assert torch.equal(tree.positions, wanted[:, 0])
    if config.model_type == "qwen2_vl":
        assert tree.start == len(tree.prompt) + int(delta)


def test_patches_equal_those_of_transformers_video_processor(backbone: QwenVL) -> None:
    try:
        from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
    except ImportError as error:
        pytest.skip(f"transformers' video processor needs torchvision: {error}")
    given = video(5)
    tree = backbone.encode(comparison(given))
    processor = Qwen2VLVideoProcessor(size=dict(backbone.frame_bounds))
    frames = np.stack([np.asarray(frame.open()) for frame in given.frames])
    wanted = processor(videos=[frames], return_tensors="pt")
    assert torch.equal(tree.media["video_grid_thw"], wanted["video_grid_thw"])
    torch.testing.assert_close(
        tree.media["pixel_values_videos"], wanted["pixel_values_videos"], atol=1e-5, rtol=1e-5
    )


def test_sharing_videos_is_exact(backbone: QwenVL) -> None:
    torch.manual_seed(0)
    head = MLP(backbone.dim)
    mixed = [
        comparison(video(5, 2.0), "what is it", responses=("a cat", "a red dog", "blue")),
        comparison("just text"),
        comparison(Image(tiny.image(seed=9)), video(2), "and", video(3), "which one"),
    ]
    with torch.no_grad():
        shared = backbone.forest(mixed)
        together = head(backbone(shared), shared)
        alone = []
        for one in mixed:
            forest = backbone.forest([one], shared=False)
            alone.append(head(backbone(forest), forest))
    torch.testing.assert_close(together, torch.cat(alone), **within(TINY_REWARD))


def test_a_video_is_not_its_frames_as_images(backbone: QwenVL) -> None:
    moving = video(4)
    with torch.no_grad():
        hidden = [
            backbone(backbone.forest([comparison(*contents, responses=("a cat",))]))
            for contents in ([moving], [*moving.frames], [Video(moving.frames[::-1])])
        ]
    assert hidden[0].shape[1] < hidden[1].shape[1]
    assert not torch.allclose(hidden[0][0, -1], hidden[2][0, -1], atol=1e-4)


def test_a_benchmark_that_asks_for_more_frames_than_a_model_reads_gets_them(
    backbone: QwenVL, tiny_models: dict[str, Path]
) -> None:
    assert backbone.max_frames == 16
    asked = video(40).sampled(32)
    # Two frames are one patch in time, and a data set's own video is cut to 16.
    for given, pairs in ((asked, 16), (video(40), 8)):
        [[time, *_]] = backbone.encode(comparison(given)).media["video_grid_thw"].tolist()
        assert time == pairs
    tiles = InternVL(model=str(tiny_models["internvl-qwen2"]), max_tiles=1)
    counts = [len(tiles.encode(comparison(given)).media["pixel_values"]) for given in (asked, video(40))]
    assert counts == [32, 16]


def test_long_videos_are_sampled_evenly(tiny_models: dict[str, Path]) -> None:
    options = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 16}
    backbone = QwenVL(model=str(tiny_models["qwen2_5_vl"]), max_frames=4, **options)
    long = video(10, fps=3.0)
    tree = backbone.encode(comparison(long))
    # 0, 3, 6, 9 of ten frames; three of them a second become one.
    few = Video([long.frames[number] for number in (0, 3, 6, 9)], fps=1.0)
    wanted = backbone.encode(comparison(few))
    assert torch.equal(tree.media["pixel_values_videos"], wanted.media["pixel_values_videos"])
    assert torch.equal(tree.positions, wanted.positions)


def test_frames_are_bounded_like_those_of_qwens_video_processor(tiny_models: dict[str, Path]) -> None:
    assert QwenVL(model=str(tiny_models["qwen2_vl"])).frame_bounds == {
        "shortest_edge": 128 * 28 * 28,
        "longest_edge": 768 * 28 * 28,
    }


def test_what_cannot_be_read_is_named(tiny_models: dict[str, Path]) -> None:
    backbone = QwenVL(model=str(tiny_models["qwen2_vl"]))
    uneven = Video([tiny.image(56, 56), tiny.image(84, 56)])
    with pytest.raises(DataError, match="^videos: the frames of a video differ in size: 56 x 56, 84 x 56$"):
        backbone.encode(comparison(uneven))
    with pytest.raises(DataError, match="^videos: the image processor refuses a frame: "):
        backbone.encode(comparison(Video([tiny.image(1500, 4)])))
    stamps = "videos of qwen3_vl have time stamps in the text, which is not supported; give frames as images"
    with pytest.raises(DataError, match=f"^videos: {stamps}$"):
        QwenVL(model=str(tiny_models["qwen3_vl"])).encode(comparison(video(2)))
    with pytest.raises(ConfigError, match="^backbone option max_frames is 0; allowed: 1 or more$"):
        QwenVL(model=str(tiny_models["qwen2_vl"]), max_frames=0)
