"""The backbone that needs no file; that it keeps a backbone's promises is the conformance kit's to show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import image

from basereward import Comparison, DataError, ModelError
from basereward.backbones.tiny import END, IMAGE, ROLE, Tiny


def test_a_comparison_is_bytes_roles_and_nine_places_an_image() -> None:
    tree = Tiny().encode(Comparison("hi", ["a", "bé"], images=[image()]))
    prompt = [ROLE["user"], *[IMAGE] * 9, *b"hi", END, ROLE["assistant"]]
    assert (tree.prompt, tree.responses) == (prompt, [[*b"a", END], [*"bé".encode(), END]])
    # 3 x 3 patches of 8 x 8 pixels of 3 colours.
    assert tree.media["patches"].shape == (9, 192)


def test_a_patch_is_what_lies_there() -> None:
    import PIL.Image

    drawn = PIL.Image.new("RGB", (24, 24), "white")
    drawn.paste("black", (8, 16, 16, 24))
    patches = Tiny().encode(Comparison("hi", ["a"], images=[drawn])).media["patches"]
    # White is 1 and black -1; the third row's second patch is the one painted over.
    assert patches.mean(1).tolist() == [1, 1, 1, 1, 1, 1, 1, -1, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a\ud800", ["a"]), "prompt: holds a lone surrogate, which is no character; remove it"),
        (("a", ["a", "\ud800"]), "responses[1]: holds a lone surrogate, which is no character; remove it"),
    ],
)
def test_what_is_no_text_is_refused(row: tuple[str, list[str]], message: str) -> None:
    with pytest.raises(DataError) as error:
        Tiny().encode(Comparison(*row))
    assert str(error.value) == message


def test_a_video_is_refused() -> None:
    with pytest.raises(DataError) as error:
        Tiny().encode(Comparison("hi", ["a"], videos=[[image(), image()]]))
    assert str(error.value) == "videos: the model reads no videos; take them out of the row"


def test_a_width_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^dim is a multiple of 4 \* num_heads, which is 8; not 12$"):
        Tiny(dim=12)


def test_a_directory_of_another_shape_names_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    Tiny(dim=16).save(tmp_path)
    with pytest.raises(ModelError, match=rf"^{tmp_path}/model.safetensors: Error\(s\) in loading state_dict"):
        Tiny(model=str(tmp_path))
    with pytest.raises(ModelError, match=rf"^{tmp_path}/none/model.safetensors: No such file or directory"):
        Tiny(model=str(tmp_path / "none"))
