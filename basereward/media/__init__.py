"""Images and videos of a prompt, from files, bytes, archives and objects, within limits."""

from basereward.media.image import Image
from basereward.media.video import Video

__all__ = ["Image", "Video"]
