"""The snippets of docs/python.md run, one after the other, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny
from stand_in_hub import Hub

from basereward import RewardModel

TEXT = (Path(__file__).parents[2] / "docs/python.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_snippets_run(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub = Hub.put_in_place(tmp_path / "hub", monkeypatch)
    RewardModel.build("qwen-vl", model=str(tiny_models["qwen2_vl"])).save("runs/demo/model")
    tiny.image().save("cat.png")
    row = '{"prompt": "What is it?", "responses": ["a cat", "a dog"], "ranks": [0, 1]}\n'
    Path("pairs.jsonl").write_text(row * 3)
    namespace: dict[str, object] = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "docs/python.md", "exec"), namespace)
    assert (hub.root / "OWNER/NAME/README.md").is_file()
    assert Path("my-model/README.md").is_file()
    assert Path("margins.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("training.svg").read_text()
