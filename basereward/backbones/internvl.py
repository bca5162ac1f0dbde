"""InternVL2.5, InternVL3 and InternVL3.5 as backbones, in the form that transformers has them (`-hf`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from basereward.backbones.chat_template import Chat
from basereward.backbones.feature_cache import FeatureCache
from basereward.backbones.image_feature_cache import ImageFeatureCache
from basereward.backbones.image_places import READ_ON_CPU, put_at
from basereward.backbones.quantization import Quantization
from basereward.backbones.template_source import DATE
from basereward.backbones.transformers_backbone import TransformersBackbone
from basereward.backbones.transformers_model import source_arguments
from basereward.backbones.untrusted_settings import reading
from basereward.comparison import Comparison
from basereward.errors import ConfigError, ModelError
from basereward.forest.forest import Forest, Tree
from basereward.media.image import Image
from basereward.media.video import Video

BEGIN, END, VIDEO = "<img>", "</img>", "<video>"
"""The tokens around those of an image, and the chat template's text for a video."""


class InternVL(TransformersBackbone):
    """An InternVL model without its language-model head.

    An image is cut into square tiles of one size, as many as fit its shape best, beside which stands the
    whole image in small. A frame of a video is one tile (arXiv 2404.16821, section 3.3).

    Args:
        model: A directory with model, tokenizer and image processor, or a hub id such as
            `OpenGVLab/InternVL3-8B-hf`.
        max_tiles: Tiles that an image may be cut into, the small whole one aside; None keeps the processor's
            own bound, which is 12 of the published models.
        max_frames: Frames that are read of a video, evenly from its first to its last; of one whose frames a
            benchmark chose all are.
    """

    unquantized = ("vision_tower", "multi_modal_projector")
    read_on_cpu = READ_ON_CPU

    def __init__(
        self,
        *,
        model: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantize: Quantization | None = None,
        max_tiles: int | None = None,
        max_frames: int = 16,
        max_tokens: int | None = None,
        on_long: Literal["refuse", "truncate"] = "refuse",
        attention: Literal["forest", "dense"] = "forest",
        chat_template: str = "default",
        template_date: str = DATE,
    ) -> None:
        for name, value in (("max_tiles", max_tiles), ("max_frames", max_frames)):
            if value is not None and value < 1:
                raise ConfigError(f"backbone option {name} is {value}; allowed: 1 or more")
        super().__init__(
            model=model,
            dtype=dtype,
            quantize=quantize,
            max_tokens=max_tokens,
            on_long=on_long,
            attention=attention,
            chat_template=chat_template,
            template_date=template_date,
        )
        self.max_frames = max_frames
        self.image_processor = _load_image_processor(model, max_tiles)
        config = self.model.config
        vision = config.vision_config
        self.tile = (self.image_processor.size["height"], self.image_processor.size["width"])
        if self.tile != tuple(vision.image_size):
            raise ModelError(
                f"{model}: the image processor makes tiles of {self.tile} pixels, but the vision tower reads "
                f"{tuple(vision.image_size)}"
            )
        self._grid = [side // patch for side, patch in zip(self.tile, vision.patch_size, strict=True)]
        self._merge = round(1 / config.downsample_ratio) ** 2  # patches to a token
        self._token = config.image_token_id
        self._begin, self._end = (self._control_id(token) for token in (BEGIN, END))
        self._cache: ImageFeatureCache | None = None

    @classmethod
    def check_model(cls, model: Any, source: str) -> None:
        """Refuse models that are no InternVL in transformers' form."""
        if (kind := model.config.model_type) != "internvl":
            raise ConfigError(
                f"{source} is a {kind!r} model; internvl reads 'internvl', published under names "
                "that end in -hf"
            )

    def image_tokens(self) -> Sequence[int]:
        """Return the token of images, which frames have too."""
        return (self._token,)

    @staticmethod
    def decoder_of(model: Any) -> Any:
        """Return the language model."""
        return model.language_model

    @staticmethod
    def parts_of(model: Any) -> Mapping[str, nn.Module]:
        """Return the vision tower, the projector into the decoder's width, and the decoder."""
        return {
            "vision": model.vision_tower,
            "projector": model.multi_modal_projector,
            "language": model.language_model,
        }

    def make_chat(self) -> Chat:
        """Return the chat template, which writes marks of its own for images."""
        return Chat(self.tokenizer, marks(self.tokenizer, self.model.config))

    def image_bytes(self, width: int, height: int) -> int:
        """Return the bytes of an image's tiles, upright or not."""
        rows, columns = self.tile
        num_tiles = max(
            self.image_processor.get_number_of_image_patches(*sides, {"crop_to_patches": True})
            for sides in ((height, width), (width, height))
        )
        return 3 * 4 * int(rows * columns * num_tiles)

    def encode(self, comparison: Comparison) -> Tree:
        """Turn a comparison into tokens and tiles."""
        # In the order of the prompt, in which features fill the image tokens of images and frames alike.
        seen: list[tuple[type, list[TiledImage]]] = []
        for part in (part for message in comparison.prompt for part in message.content):
            if isinstance(part, Image):
                seen.append((Image, [TiledImage(part, self.image_processor.max_patches)]))
            elif isinstance(part, Video):
                frames = part.limited(self.max_frames).frames
                seen.append((Video, [TiledImage(frame, 1) for frame in frames]))
        media = self._media([image for _, images in seen for image in images])
        grids = iter(media.get("image_grid_thw", ()))
        ids: dict[type, list[list[int]]] = {Image: [], Video: []}
        for kind, images in seen:
            sizes = [int(next(grids).prod()) // self._merge for _ in images]
            runs = [[self._begin, *[self._token] * size, self._end] for size in sizes]
            ids[kind].append(runs[0] if kind is Image else self._numbered(runs))
        prompt, responses, leads = self.chat.encoding(
            comparison.prompt, comparison.responses, ids[Image], ids[Video]
        )
        patches = sum(int(grid.prod()) for grid in media.get("image_grid_thw", ()))
        return replace(Tree.of_text(prompt, self.cut(prompt, responses), leads), media=media, patches=patches)

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]; the vision tower runs once a tile."""
        embedded = self.model.get_input_embeddings()(forest.input_ids)
        features = self._features(forest.media)
        if features is not None:
            embedded = put_at(embedded, forest.media["image_places"], features)
        elif self.always_runs_vision:
            nothing = torch.zeros(1, 3, *self.tile, device=embedded.device)
            embedded = embedded + 0.0 * self._tower(nothing).sum()
        arguments = self.decoder.arguments(forest)
        return self.decoder.hidden(
            lambda: self.model.language_model(
                inputs_embeds=embedded, position_ids=forest.positions[0], **arguments
            )
        )

    def settings(self) -> Mapping[str, Any]:
        """Return those of the image processor and of videos."""
        return {"images": self.image_processor.to_json_string(), "frames": self.max_frames}

    def attach_feature_cache(self, cache: FeatureCache, precision: str) -> None:
        """Cache the features of images and frames, if the vision tower and the projector are frozen."""
        vision = nn.ModuleList([self.model.vision_tower, self.model.multi_modal_projector])
        if not any(parameter.requires_grad for parameter in vision.parameters()):
            self._cache = ImageFeatureCache(cache, vision, precision, self._vision_settings)

    def save(self, directory: Path) -> None:
        """Write model, tokenizer and image processor in the hub's layout."""
        super().save(directory)
        self.image_processor.save_pretrained(directory)

    def _control_id(self, token: str) -> int:
        if token not in self.tokenizer.get_vocab():
            raise ModelError(f"the tokenizer of {self.source} has no token {token}")
        return int(self.tokenizer.convert_tokens_to_ids(token))

    def _vision_settings(self) -> list[str]:
        return ["pil", self.image_processor.to_json_string(), self.model.config.to_json_string()]

    def _numbered(self, runs: Sequence[list[int]]) -> list[int]:
        """Return the tokens of a video, in which each frame has a line with its number."""
        ids: list[int] = []
        for number, run in enumerate(runs, 1):
            ids += self.chat.text_ids(f"{chr(10) * (number > 1)}Frame{number}: ", "videos") + run
        return ids

    def _media(self, images: Sequence[TiledImage]) -> dict[str, Tensor]:
        """Return `pixel_values` [tiles, 3, H, W] and `image_grid_thw` [images, 3], if there are images;
        with a cache, the tensors of `ImageFeatureCache.media`. A grid is the number of tiles, and the rows
        and columns of patches of one tile.
        """
        if self._cache is None or not images:
            return self._pixels(images)
        keys = [self._cache.key(image, max_tiles) for image, max_tiles in images]
        return self._cache.media(keys, lambda numbers: self._pixels([images[number] for number in numbers]))

    def _pixels(self, images: Sequence[TiledImage]) -> dict[str, Tensor]:
        if not images:
            return {}
        tiles = [
            self.image_processor(
                images=[image.open()], crop_to_patches=True, max_patches=max_tiles, return_tensors="pt"
            )["pixel_values"]
            for image, max_tiles in images
        ]
        grids = [(len(pixels), *self._grid) for pixels in tiles]
        return {"pixel_values": torch.cat(tiles), "image_grid_thw": torch.tensor(grids)}

    def _features(self, media: Mapping[str, Tensor]) -> Tensor | None:  # [tokens, D]
        if "image_keys" in media:
            assert self._cache is not None
            features = self._cache.features(
                media,
                num_pixels=lambda grids: grids[:, 0],
                num_tokens=lambda grids: grids.prod(-1) // self._merge,
                tower=lambda pixels, grid: self._tower(pixels),
            )
            return torch.cat(features)
        return self._tower(media["pixel_values"]) if "pixel_values" in media else None

    def _tower(self, pixels: Tensor) -> Tensor:  # [tiles, 3, H, W] -> [tokens, D]
        features: Tensor = self.model.get_image_features(pixels, return_dict=True).pooler_output
        return features.flatten(0, 1)


def marks(tokenizer: Any, config: Any) -> dict[type, str]:
    """Return the texts that chat templates of InternVL write for an image and for a video."""
    return {Image: tokenizer.convert_ids_to_tokens(config.image_token_id), Video: VIDEO}


class TiledImage(NamedTuple):
    """An image or a frame, and the most tiles that it may be cut into."""

    image: Image
    max_tiles: int


def _load_image_processor(model: str, max_tiles: int | None) -> Any:
    # The Pillow backend everywhere: torchvision's resizing differs, and scores would with it.
    from transformers import AutoImageProcessor

    with reading(model, "the image processor (preprocessor_config.json)"):
        processor: Any = AutoImageProcessor.from_pretrained(**source_arguments(model), backend="pil")
    if max_tiles is not None:
        processor.max_patches = max_tiles
    return processor
