"""Images and videos of a prompt, from files, bytes, archives and objects, within limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from basereward import _exports

if TYPE_CHECKING:
    from basereward.media.image import Image as Image
    from basereward.media.video import Video as Video

__getattr__, __dir__, __all__ = _exports.lazy(__name__, {"image": ("Image",), "video": ("Video",)})
