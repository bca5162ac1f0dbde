"""Our own format: a prompt, N responses, and their ranks or ratings, in one row."""

from __future__ import annotations

from pathlib import Path

from basereward.data.dataset import FileDataset
from basereward.data.fields import refuse_conversation_text
from basereward.data.reading.row import Row


class NativeDataset(FileDataset):
    """Rows of JSONL or Parquet in our own format.

    - `prompt`, needed: a text, or messages `{"role", "content"}`, whose content is a text or typed parts.
    - `responses`, needed: texts; one is enough to be scored, two are to be compared.
    - `images`: paths relative to the file, `{"path"}` or `{"bytes"}`; for the prompt's `<image>` marks, or
      to stand before its first user message.
    - `videos`: folders of frames, lists of images, video files, or `{"video", "fps"}`; for the prompt's
      `<video>` marks, or to stand before its first user message.
    - `ranks`, smaller is better; `ratings`, larger is better; one number a response, equal ones are ties.
    - `id`, `source`, `weight`, and an object `meta`, or its JSON text, for anything else.
    """

    detected_by = ("prompt", "responses")

    def convert_row(self, row: Row, directory: Path) -> Row:
        """Return the row as it is.

        Raises:
            DataError: When its prompt is a conversation as JSON text.
        """
        if isinstance(row.get("prompt"), str):
            refuse_conversation_text(row["prompt"], "prompt")
        return row
