"""LLaVA-OneVision as a backbone, in the form that transformers has it (`-hf`).

Shapes: T tiles, C channels, S the side of a tile, P patches of a tile, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from basereward.backbones.chat_template import Chat
from basereward.backbones.image_places import put_at
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

Tiling = Literal["anyres", "whole"]


class LlavaOnevision(TransformersBackbone):
    """A LLaVA-OneVision model (arXiv 2408.03326) without its language-model head.

    An image is read whole, in small, and then in tiles that keep its shape; a video in frames of a quarter of
    the tokens each.

    Args:
        model: A directory with model, tokenizer and image processor, or a hub id such as
            `llava-hf/llava-onevision-qwen2-7b-ov-hf`.
        tiling: `anyres` reads an image as described above; `whole` reads it in small alone, without the token
            that ends it, as the released evaluation of MM-RLHF-Reward does.
        max_frames: Frames that are read of a video, evenly from its first to its last; of one whose frames a
            benchmark chose all are.
    """

    unquantized = ("vision_tower", "multi_modal_projector")
    read_on_cpu = frozenset({"image_sizes", "num_tiles", "num_frames"})

    def __init__(
        self,
        *,
        model: str,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantize: Quantization | None = None,
        tiling: Tiling = "anyres",
        max_frames: int = 32,
        max_tokens: int | None = None,
        on_long: Literal["refuse", "truncate"] = "refuse",
        attention: Literal["forest", "dense"] = "forest",
        chat_template: str = "default",
        template_date: str = DATE,
    ) -> None:
        if max_frames < 1:
            raise ConfigError(f"backbone option max_frames is {max_frames}; allowed: 1 or more")
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
        self.tiling = tiling
        self.max_frames = max_frames
        self.image_processor = _load_image_processor(model)
        config = self.model.config
        vision = config.vision_config
        layer, patches = config.vision_feature_layer, config.vision_feature_select_strategy
        if not isinstance(layer, int) or patches != "full":
            raise ModelError(
                f"{model}: the features of all patches of one layer are read, not {patches!r} of {layer!r}"
            )
        if layer == -1:  # read before the tower's last norm, which then learns nothing
            self.model.vision_tower.post_layernorm.requires_grad_(False)
        size = self.image_processor.size
        self.side = int(vision.image_size)
        if (size["height"], size["width"]) != (self.side, self.side):
            raise ModelError(
                f"{model}: the image processor makes tiles of {size['height']} x {size['width']} pixels, but "
                f"the vision tower reads {self.side} x {self.side}"
            )
        self._num_patches = (self.side // vision.patch_size) ** 2  # P

    @classmethod
    def check_model(cls, model: Any, source: str) -> None:
        """Refuse models that are no LLaVA-OneVision in transformers' form."""
        if (kind := model.config.model_type) != "llava_onevision":
            raise ConfigError(
                f"{source} is a {kind!r} model; llava-onevision reads 'llava_onevision', published under "
                "names that end in -hf"
            )

    def image_tokens(self) -> Sequence[int]:
        """Return the tokens of images and of videos."""
        return self.model.config.image_token_id, self.model.config.video_token_id

    @staticmethod
    def decoder_of(model: Any) -> Any:
        """Return the language model."""
        return model.language_model

    @staticmethod
    def parts_of(model: Any) -> Mapping[str, nn.Module]:
        """Return the vision tower, the projector with the embedding that ends an image's rows, and the
        decoder.
        """
        return {
            "vision": model.vision_tower,
            "projector": nn.ModuleList(
                [model.multi_modal_projector, nn.ParameterList([model.image_newline])]
            ),
            "language": model.language_model,
        }

    def make_chat(self) -> Chat:
        """Return the chat template, which writes marks of its own for images and videos."""
        return Chat(self.tokenizer, marks(self.tokenizer, self.model.config))

    def image_bytes(self, width: int, height: int) -> int:
        """Return the bytes of an image's tiles."""
        return 3 * 4 * self.side**2 * self._num_tiles(height, width)

    def encode(self, comparison: Comparison) -> Tree:
        """Turn a comparison into tokens and tiles."""
        config = self.model.config
        images = self._images(comparison.images)
        videos = [self._video(video) for video in comparison.videos]
        media: dict[str, Tensor] = {}
        if images:
            media |= {
                "pixel_values": torch.cat([tiles for tiles, _ in images]),
                "image_sizes": torch.tensor([size for _, size in images]),
                "num_tiles": torch.tensor([len(tiles) for tiles, _ in images]),
            }
        if videos:
            media |= {
                "pixel_values_videos": torch.cat(videos),
                "num_frames": torch.tensor([len(frames) for frames in videos]),
            }
        ids = {
            Image: [[config.image_token_id] * self._num_tokens(len(tiles), size) for tiles, size in images],
            Video: [[config.video_token_id] * self._num_video_tokens(len(frames)) for frames in videos],
        }
        prompt, responses, leads = self.chat.encoding(
            comparison.prompt, comparison.responses, ids[Image], ids[Video]
        )
        num_tiles = sum(len(tiles) for tiles, _ in images) + sum(map(len, videos))
        return replace(
            Tree.of_text(prompt, self.cut(prompt, responses), leads),
            media=media,
            patches=num_tiles * self._num_patches,
        )

    def forward(self, forest: Forest) -> Tensor:
        """Return hidden states [B, L, D]; the vision tower runs once, on all tiles and frames."""
        embedded = self.model.get_input_embeddings()(forest.input_ids)
        images, videos = self._features(forest.media)
        if images or videos:
            embedded = put_at(embedded, forest.media["image_places"], torch.cat([*images, *videos]))
        elif self.always_runs_vision:
            nothing = torch.zeros(1, 3, self.side, self.side, device=embedded.device)
            embedded = embedded + 0.0 * (self._tower(nothing).sum() + self.model.image_newline.sum())
        arguments = self.decoder.arguments(forest)
        return self.decoder.hidden(
            lambda: self.model.language_model(
                inputs_embeds=embedded, position_ids=forest.positions[0], **arguments
            )
        )

    def settings(self) -> Mapping[str, Any]:
        """Return those of the image processor and of videos."""
        return {
            "images": self.image_processor.to_json_string(),
            "tiling": self.tiling,
            "frames": self.max_frames,
        }

    def save(self, directory: Path) -> None:
        """Write model, tokenizer and image processor in the hub's layout."""
        super().save(directory)
        self.image_processor.save_pretrained(directory)

    def _images(self, images: Sequence[Image]) -> list[tuple[Tensor, tuple[int, int]]]:
        """Return the tiles [T, C, S, S] and the size (height, width) of each image.

        Of several images each is one tile, padded to a square, as transformers' processor makes them.
        """
        opened = [image.open() for image in images]
        if not opened:
            return []
        is_alone = len(opened) == 1 or self.tiling == "whole"
        tiles = self.image_processor(images=opened if is_alone else [opened], return_tensors="pt")[
            "pixel_values"
        ]
        sizes = [(image.height, image.width) for image in opened]
        counts = [self._num_tiles(*size) if is_alone else 1 for size in sizes]
        return [(each[:count], size) for each, count, size in zip(tiles, counts, sizes, strict=True)]

    def _video(self, video: Video) -> Tensor:  # [frames, C, S, S]
        """Return the frames, each resized to a tile whatever its shape, as transformers' processor does."""
        frames = [frame.open() for frame in video.limited(self.max_frames).frames]
        resized = [frame.resize((self.side, self.side), self.image_processor.resample) for frame in frames]
        # Several images together are one tile each; of one, of a tile's size, the first is the image itself.
        pixels: Tensor = self.image_processor(images=[resized], return_tensors="pt")["pixel_values"]
        return pixels[:, 0]

    def _num_tiles(self, height: int, width: int) -> int:
        from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

        if self.tiling == "whole":
            return 1
        points = self.model.config.image_grid_pinpoints
        return int(image_size_to_num_patches((height, width), points, self.side))

    def _num_tokens(self, num_tiles: int, size: tuple[int, int]) -> int:
        """Return the tokens of an image: as many as features of it are packed, here of width 1."""
        return len(self._packed(torch.zeros(num_tiles, self._num_patches, 1), size, torch.zeros(1)))

    def _num_video_tokens(self, num_frames: int) -> int:
        side = -(-(self.side // int(self.model.config.vision_config.patch_size)) // 2)
        return num_frames * side**2 + 1

    def _packed(self, features: Tensor, size: tuple[int, int], newline: Tensor) -> Tensor:  # [T, P, D]
        """Return the features [tokens, D] of an image's tiles, the ends of rows among them."""
        if self.tiling == "whole":
            return features[0]
        config = self.model.config
        packed, _ = self.model.pack_image_features(
            [features], [size], image_newline=newline, vision_aspect_ratio=config.vision_aspect_ratio
        )
        return packed[0]  # type: ignore[no-any-return]

    def _features(self, media: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the features [tokens, D] of each image and of each video.

        All go through the tower together: whatever a batch holds, there is one pass, or none.
        """
        pixels = [media[name] for name in ("pixel_values", "pixel_values_videos") if name in media]
        if not pixels:
            return [], []
        tiles = self._tower(torch.cat(pixels))
        newline = self.model.image_newline.to(tiles.dtype)
        nothing = torch.empty(0, dtype=torch.long)
        counts = [media.get(name, nothing).tolist() for name in ("num_tiles", "num_frames")]
        sizes = media.get("image_sizes", nothing).tolist()
        parts = tiles.split([*counts[0], *counts[1]])
        images = [self._packed(part, size, newline) for part, size in zip(parts, sizes, strict=False)]
        videos = [
            torch.cat([self.model.apply_pooling(part).flatten(0, 1), newline[None]])
            for part in parts[len(sizes) :]
        ]
        return images, videos

    def _tower(self, pixels: Tensor) -> Tensor:  # [T, C, S, S] -> [T, P, D]
        weight: Tensor = next(self.model.vision_tower.parameters())
        outputs = self.model.vision_tower(pixels.to(weight.dtype), output_hidden_states=True)
        hidden = outputs.hidden_states[self.model.config.vision_feature_layer]
        features: Tensor = self.model.multi_modal_projector(hidden)
        return features


def marks(tokenizer: Any, config: Any) -> dict[type, str]:
    """Return the texts that the chat template writes for an image and for a video."""
    image, video = tokenizer.convert_ids_to_tokens([config.image_token_id, config.video_token_id])
    return {Image: image, Video: video}


def _load_image_processor(model: str) -> Any:
    # The Pillow backend everywhere: torchvision's resizing differs, and scores would with it.
    from transformers import AutoImageProcessor

    with reading(model, "the image processor (preprocessor_config.json)"):
        return AutoImageProcessor.from_pretrained(**source_arguments(model), backend="pil")
