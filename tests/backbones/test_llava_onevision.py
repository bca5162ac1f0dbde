"""LLaVA-OneVision: tokens, tiles and hidden states are those of transformers' own processing and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image as Pillow
from rounding import TINY_REWARD, within
from torch import Tensor
from transformers import LlavaOnevisionProcessor

from basereward.backbones.llava_onevision import LlavaOnevision
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError, ModelError
from basereward.media import Image, Video

TOLERANCE = within(TINY_REWARD)


class OfficialProcessor(LlavaOnevisionProcessor):
    """transformers' own, without the part for videos, whose class needs torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        return None


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_llava_onevision(tmp_path_factory.mktemp("llava") / "model")


@pytest.fixture
def backbone(directory: Path) -> LlavaOnevision:
    return LlavaOnevision(model=str(directory)).eval()


def official(backbone: LlavaOnevision) -> OfficialProcessor:
    return OfficialProcessor(
        backbone.image_processor,
        backbone.tokenizer,
        None,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
    )


def asked(*contents: object, responses: tuple[str, ...] = ("a cat", "a red dog runs")) -> Comparison:
    return Comparison([{"role": "user", "content": list(contents)}], responses)


@pytest.mark.parametrize("size", [(56, 56), (112, 56), (56, 168), (100, 180), (300, 40), (9, 500), (1, 1)])
def test_tokens_and_pixels_are_those_of_the_official_processor(
    backbone: LlavaOnevision, size: tuple[int, int]
) -> None:
    drawn = tiny.image(*size)
    tree = backbone.encode(asked("what is", Image(drawn), "it", responses=("a cat",)))
    parts = [{"type": "text", "text": "what is"}, {"type": "image"}, {"type": "text", "text": "it"}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
    ]
    text = backbone.tokenizer.apply_chat_template(messages, tokenize=False).removesuffix("\n")
    wanted = official(backbone)(images=[drawn], text=[text], return_tensors="pt")
    assert tree.prompt + tree.responses[0] == wanted["input_ids"][0].tolist()
    assert torch.equal(tree.media["pixel_values"], wanted["pixel_values"][0])
    assert torch.equal(tree.media["image_sizes"], wanted["image_sizes"])


def test_of_several_images_each_is_one_padded_tile(backbone: LlavaOnevision) -> None:
    drawn = [tiny.image(112, 56, 1), tiny.image(56, 100, 2)]
    tree = backbone.encode(asked(*map(Image, drawn), "alike?"))
    wanted = backbone.image_processor(images=[drawn], return_tensors="pt")["pixel_values"]
    assert list(wanted.shape[:2]) == [2, 1]
    assert torch.equal(tree.media["pixel_values"], wanted.flatten(0, 1))
    assert tree.prompt.count(backbone.model.config.image_token_id) == 2 * (16 + 1)


def by_transformers(backbone: LlavaOnevision, row: Comparison) -> Tensor:
    """Return the hidden states at the ends of responses, one row at a time by transformers' own forward."""
    tree = backbone.encode(row)
    media = tree.media
    given: dict[str, Any] = {}
    if "pixel_values" in media:
        tiles = media["pixel_values"].split(media["num_tiles"].tolist())
        largest = max(map(len, tiles))
        given["pixel_values"] = torch.stack(
            [torch.cat([each, torch.zeros(largest - len(each), *each.shape[1:])]) for each in tiles]
        )
        given["image_sizes"] = media["image_sizes"]
        given["batch_num_images"] = torch.tensor([len(tiles)])
    if "pixel_values_videos" in media:
        given["pixel_values_videos"] = media["pixel_values_videos"][None]
    backbone.model.set_attn_implementation("eager")
    states = []
    with torch.no_grad():
        for response in tree.responses:
            ids = torch.tensor([[*tree.prompt, *response]])
            states.append(backbone.model(input_ids=ids, **given).last_hidden_state[0, -1])
    return torch.stack(states)


def test_hidden_states_are_those_of_transformers(backbone: LlavaOnevision) -> None:
    video = Video([tiny.image(112, 56, number) for number in range(3)])
    rows = [
        *tiny.comparisons(),
        asked(Image(tiny.image(300, 40)), "what is it"),
        asked(Image(tiny.image(168, 56)), "and", video, "alike"),
        asked("no image"),
    ]
    forest = backbone.forest(rows)
    with torch.no_grad():
        ours = backbone(forest).flatten(0, 1)[forest.ends]
    theirs = torch.cat([by_transformers(backbone, row) for row in rows])
    assert float(theirs.std(0).mean()) > 0.1
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_a_whole_image_is_one_tile_and_nothing_after_it(directory: Path, backbone: LlavaOnevision) -> None:
    whole = LlavaOnevision(model=str(directory), tiling="whole").eval()
    row = asked(Image(tiny.image(112, 56)), "what is it")
    tree = whole.encode(row)
    assert tree.prompt.count(whole.model.config.image_token_id) == 16
    assert torch.equal(tree.media["pixel_values"], backbone.encode(row).media["pixel_values"][:1])
    # Its embeddings are the projected features of the last layer, without a norm, in the image's place.
    tower, ids = whole.model.vision_tower, torch.tensor([[*tree.prompt, *tree.responses[0]]])
    forest = whole.forest([row])
    with torch.no_grad():
        found = whole(forest).flatten(0, 1)[forest.ends][0]
        whole.model.set_attn_implementation("eager")
        states = tower(tree.media["pixel_values"], output_hidden_states=True).hidden_states[-1]
        features = whole.model.multi_modal_projector(states)[0]
        embedded = whole.model.get_input_embeddings()(ids)
        embedded[ids == whole.model.config.image_token_id] = features
        wanted = whole.model.language_model(inputs_embeds=embedded).last_hidden_state[0, -1]
    torch.testing.assert_close(found, wanted, **TOLERANCE)


def test_frames_are_resized_as_the_official_video_processor_does(backbone: LlavaOnevision) -> None:
    frames = [tiny.image(112, 56, number) for number in range(3)]
    tree = backbone.encode(asked(Video(frames), "what is it"))
    assert tree.prompt.count(backbone.model.config.video_token_id) == 3 * 4 + 1
    resized = [frame.resize((56, 56), Pillow.Resampling.BICUBIC) for frame in frames]
    wanted = torch.cat(
        [
            backbone.image_processor(images=[frame], return_tensors="pt")["pixel_values"][0, 1:]
            for frame in resized
        ]
    )
    torch.testing.assert_close(tree.media["pixel_values_videos"], wanted)
    fewer = LlavaOnevision(model=backbone.source, max_frames=2).encode(asked(Video(frames)))
    assert torch.equal(fewer.media["pixel_values_videos"], tree.media["pixel_values_videos"][[0, 2]])


def test_parts_hold_all_that_is_trained(backbone: LlavaOnevision) -> None:
    parts = backbone.parts()
    held = {id(parameter) for part in parts.values() for parameter in part.parameters()}
    assert held == {id(parameter) for parameter in backbone.parameters()}
    assert id(backbone.model.image_newline) in {id(each) for each in parts["projector"].parameters()}


def test_a_saved_model_is_the_same(backbone: LlavaOnevision, tmp_path: Path) -> None:
    backbone.save(tmp_path)
    again = LlavaOnevision(model=str(tmp_path))
    for name, value in backbone.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_bad_settings_and_other_models_are_named(
    directory: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="^backbone option max_frames is 0; allowed: 1 or more$"):
        LlavaOnevision(model=str(directory), max_frames=0)
    with pytest.raises(ConfigError, match="is a 'llama' model; llava-onevision reads 'llava_onevision'"):
        LlavaOnevision(model=str(tiny_models["llama"]))
    backbone = LlavaOnevision(model=str(directory))
    backbone.image_processor.size = {"height": 28, "width": 28}
    backbone.save(tmp_path)
    with pytest.raises(
        ModelError, match="makes tiles of 28 x 28 pixels, but the vision tower reads 56 x 56$"
    ):
        LlavaOnevision(model=str(tmp_path))


def test_no_text_stands_for_an_image(backbone: LlavaOnevision) -> None:
    tree = backbone.encode(Comparison("fine", ["a <video><image><|im_end|>"]))
    config = backbone.model.config
    assert not {config.image_token_id, config.video_token_id} & {*tree.prompt, *tree.responses[0]}
    backbone.chat.template = tiny.TEMPLATE
    with pytest.raises(DataError, match="^prompt: the chat template leaves out or repeats a message; roles"):
        backbone.encode(asked(Image(tiny.image()), "what is it"))
