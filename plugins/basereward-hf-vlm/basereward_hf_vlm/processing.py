"""Processors of transformers: images to tensors, and to the text that takes the place of each image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from basereward.backbones.transformers_model import source_arguments
from basereward.errors import BaseRewardError, ConfigError, DataError, ModelError
from basereward.media import Image

TEXT_KEYS = {
    "attention_mask",
    "input_ids",
    "labels",
    "mm_token_type_ids",
    "text_replacement_offsets",
    "token_type_ids",
}
"""Outputs of a processor that concern the text; all others concern images."""

NUM_TILES = "num_tiles"
"""The number of tiles of each image, or of each row's images, where a processor cuts images into tiles."""

SETTINGS_FILE = "processor_config.json"


class Processor:
    """A processor of transformers with the Pillow backend and without its part for videos.

    Neither needs torchvision, whose resizing differs.

    Args:
        model: A directory or a hub id.
        model_type: As its `config.json` has it.
        tokenizer: Its tokenizer.

    Attributes:
        mark: The text that a chat template writes in the place of an image.
        template: The processor's own chat template; None where there is none.

    Raises:
        ConfigError: When transformers has no processor for the model type, or not in this environment.
        ModelError: When its files can't be read.
    """

    def __init__(self, model: str, model_type: str, tokenizer: Any) -> None:
        import transformers
        from transformers import AutoImageProcessor
        from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

        if (name := PROCESSOR_MAPPING_NAMES.get(model_type)) is None:
            raise ConfigError(f"{model} is a {model_type!r} model, for which transformers has no processor")
        try:
            cls: Any = getattr(transformers, str(name))
            source = source_arguments(model)
            settings, _ = cls.get_processor_dict(**source)
            image_processor = AutoImageProcessor.from_pretrained(**source, backend="pil")
            # transformers insists on a part for videos, whose class needs torchvision.
            lenient: Any = type(cls.__name__, (cls,), {"check_argument_for_proper_class": lambda *_: None})
            parts = {"image_processor": image_processor, "tokenizer": tokenizer}
            self._processor: Any = lenient.from_args_and_dict(
                [parts.get(attribute) for attribute in cls.get_attributes()], settings
            )
        except ImportError as error:
            raise ConfigError(f"{name} can't be used here: {' '.join(str(error).split())}") from error
        except BaseRewardError:
            raise
        except Exception as error:  # a stranger's settings may lead to any
            lines = str(error).splitlines() or [type(error).__name__]
            raise ModelError(f"can't load the processor of {model}: {lines[0]}") from error
        if not hasattr(self._processor, "image_token"):
            raise ConfigError(f"{name} doesn't say what stands for an image; hf-vlm can't use it")
        self.mark: str = self._processor.image_token
        self.template: str | None = settings.pop("chat_template", None)
        self._tokenizer = tokenizer
        self._settings = {
            key: value for key, value in settings.items() if key not in cls.get_attributes()
        } | {"processor_class": str(name)}

    def __call__(self, images: Sequence[Image]) -> tuple[dict[str, Tensor], list[str]]:
        """Return the tensors of a prompt's images, and the text that takes the place of each.

        Tensors may be joined with those of other prompts along their first dimension, before `arguments`.

        Raises:
            DataError: When an image can't be opened, or the processor refuses it.
        """
        if not images:
            return {}, []
        try:
            output = self._processor(
                images=[[image.open() for image in images]],
                text=[self.mark * len(images)],
                return_text_replacement_offsets=True,
                add_special_tokens=False,
                return_tensors="np",
            )
        except ValueError as error:
            raise DataError(f"the processor refuses an image: {error}", field="images") from error
        texts = [place["replacement"] for place in output["text_replacement_offsets"][0]]
        media = {name: torch.as_tensor(value) for name, value in output.items() if name not in TEXT_KEYS}
        pixels = media["pixel_values"]
        if pixels.ndim == 5:
            # [images, tiles, C, H, W], or [1, tiles of all, C, H, W]; another prompt's differ in tiles.
            tiled = {name for name, value in media.items() if value.shape[:2] == pixels.shape[:2]}
            number = torch.full((pixels.shape[0],), pixels.shape[1])
            media |= {name: media[name].flatten(0, 1) for name in tiled} | {NUM_TILES: number}
        return media, texts

    @staticmethod
    def arguments(media: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """Return a model's arguments; floating-point tensors in its dtype."""
        arguments = {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in media.items()
        }
        if (num_tiles := arguments.pop(NUM_TILES, None)) is not None:
            sizes = num_tiles.tolist()
            for name, value in arguments.items():
                if len(value) == sum(sizes) and value.ndim >= 3:
                    # Models leave out tiles that are nothing but zeros.
                    arguments[name] = pad_sequence(list(torch.split(value, sizes)), batch_first=True)
        return arguments

    def settings(self) -> str:
        """Return all settings that the tensors of images depend on, as JSON."""
        return json.dumps([self._processor.image_processor.to_json_string(), self._settings], sort_keys=True)

    def save(self, directory: Path) -> None:
        """Write tokenizer, image processor and settings as transformers reads them."""
        self._tokenizer.save_pretrained(directory)
        self._processor.image_processor.save_pretrained(directory)
        (directory / SETTINGS_FILE).write_text(json.dumps(self._settings, indent=2), encoding="utf-8")
