"""A head of several layers for vLLM: its files hold the head, and vLLM's own code reads it from them.

vLLM is no dependency. Where its sources are (`VLLM_SOURCES`, the directory that holds `vllm/`, of a wheel
unpacked), the functions that read an export are taken out of them and run; else these tests are skipped.
"""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from basereward import RewardModel
from basereward.cli import main
from basereward.config import Component
from basereward.interop.exporting import export_model

ROWS = tiny.comparisons(images=False)
SOURCES = os.environ.get("VLLM_SOURCES", "")
needs_sources = pytest.mark.skipif(not SOURCES, reason="VLLM_SOURCES names no sources of vLLM")


def build(directory: Path, kind: str, **head: Any) -> RewardModel:
    torch.manual_seed(0)
    save = tiny.save_qwen_vl if kind in tiny.VL_KINDS else tiny.save_causal_lm
    return RewardModel.build(
        backbone=Component(tiny.backbone_of(kind), {"model": str(save(directory, kind))}),
        head=Component("mlp", head),
    )


def modules_of(directory: Path) -> list[dict[str, Any]]:
    return json.loads((directory / "modules.json").read_text())


def dense_layers(directory: Path) -> nn.Sequential:
    """Return the dense layers of a checkpoint as sentence-transformers documents their files."""
    layers: list[nn.Module] = []
    for module in modules_of(directory):
        if not module["type"].endswith(".Dense"):
            continue
        config = json.loads((directory / module["path"] / "config.json").read_text())
        layer = nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
        tensors = load_file(directory / module["path"] / "model.safetensors")
        layer.load_state_dict({name.removeprefix("linear."): value for name, value in tensors.items()})
        layers += [layer, getattr(nn, config["activation_function"].rpartition(".")[2])()]
    return nn.Sequential(*layers)


def last_states(directory: Path, row: Any) -> Tensor:
    """Return the states [N, D] at the last token of the template's text, by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model, report = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert set(report["missing_keys"]) <= {"lm_head.weight"}
    assert not report["unexpected_keys"]
    states = []
    for response in row.responses:
        turns = [{"role": "user", "content": row.prompt[0].text}, {"role": "assistant", "content": response}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            states.append(model.eval().model(ids).last_hidden_state[0, -1])
    return torch.stack(states)


@pytest.mark.parametrize(
    "head", [{}, {"activation": "tanh", "num_layers": 3, "width": 12}, {"activation": "relu"}], ids=str
)
@pytest.mark.parametrize("kind", tiny.LM_KINDS)
def test_dense_layers_on_the_last_state_give_the_rewards(
    kind: str, head: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build(tmp_path / "base", kind, **head)
    model.save(tmp_path / "model")
    out = tmp_path / "out"
    for _ in range(2):  # an earlier export is replaced
        assert main(["export", str(tmp_path / "model"), "--format", "vllm", "--output", str(out)]) == 0
    name = type(model.backbone.model).__name__.replace("Model", "ForCausalLM")
    assert capsys.readouterr().out.splitlines()[0] == f"{name}: {out}"
    assert json.loads((out / "config.json").read_text())["architectures"] == [name]
    assert "--convert embed" in (out / "README.md").read_text()
    with torch.no_grad():
        found = dense_layers(out)(last_states(out, ROWS[0]))
    assert found[:, 0].tolist() == pytest.approx(model.score([ROWS[0]])[0], abs=TINY_REWARD)


def test_a_vision_language_model_has_its_layers_beside_its_weights(tmp_path: Path) -> None:
    model = build(tmp_path / "base", "qwen2_5_vl")
    assert export_model(model, tmp_path / "out", "vllm").architecture == (
        "Qwen2_5_VLForConditionalGeneration"
    )
    kinds = [module["type"].rpartition(".")[2] for module in modules_of(tmp_path / "out")]
    assert kinds == ["Transformer", "Pooling", "Dense", "Dense"]
    for mine, theirs in zip(model.head.layers, dense_layers(tmp_path / "out")[::2], strict=True):
        assert torch.equal(mine.weight, theirs.weight)
        assert torch.equal(mine.bias, theirs.bias)


def taken(module: str, names: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Run the definitions of some names of one of vLLM's modules, without its imports, and return them."""
    path = Path(SOURCES, *module.split(".")).with_suffix(".py")
    path = path if path.is_file() else path.with_suffix("") / "__init__.py"
    wanted = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        defined = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined = [node.target.id]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined = [node.name]
        if set(defined) & set(names):
            wanted.append(node)
    found = {**given}
    body = ast.Module([ast.ImportFrom("__future__", [ast.alias("annotations")], 0), *wanted], [])
    exec(compile(ast.fix_missing_locations(body), str(path), "exec"), found)
    missing = [name for name in names if name not in found]
    assert not missing, f"{module} has no {missing} any more"
    return found


class Log:
    """Takes what vLLM logs; a failure that it would pass over is one here."""

    def info(self, *parts: object) -> None:
        """Take a note."""

    debug = info

    def exception(self, *parts: object) -> None:
        """Fail with the error that is handled."""
        raise


class Settings:
    """The settings of vLLM that its reading of dense layers looks at."""

    def __init__(self, model: Path) -> None:
        self.model = str(model)
        self.revision = None
        self.head_dtype = torch.float32  # the default of pooling models


@needs_sources
@pytest.mark.parametrize("head", [{}, {"activation": "tanh", "num_layers": 3, "width": 12}], ids=str)
def test_vllm_reads_the_layers_of_an_export(head: dict[str, Any], tmp_path: Path) -> None:
    model = build(tmp_path / "base", "qwen2", **head)
    out = tmp_path / "out"
    export_model(model, out, "vllm")

    def read_json(name: str, directory: str, revision: object) -> Any:
        path = Path(directory, name)
        return json.loads(path.read_text()) if path.is_file() else None

    config = taken(
        "vllm.transformers_utils.config",
        (
            "_DENSE_MODULE_TYPES",
            "_ST_POOLING_MODULE_TYPES",
            "_ST_NORMALIZE_MODULE_TYPES",
            "try_get_dense_modules",
            "parse_pooling_type",
        ),
        {"get_hf_file_to_dict": read_json, "cache": lambda function: function, "logger": Log()},
    )
    dense = config["try_get_dense_modules"](str(out))
    assert dense[-1]["out_features"] == 1  # which is the embedding's size for vLLM
    activations = {"silu": nn.SiLU(), "tanh": nn.Tanh(), "relu": nn.ReLU()}
    act = taken(
        "vllm.model_executor.layers.activation",
        ("get_act_fn",),
        {"nn": nn, "_ACTIVATION_REGISTRY": activations},
    )
    registry = Path(SOURCES, "vllm", "model_executor", "layers", "activation.py").read_text()
    for name, module in activations.items():
        assert f'"{name}": lambda: nn.{type(module).__name__}(),' in registry
    adapters = taken(
        "vllm.model_executor.models.adapters",
        ("_load_st_projector", "_load_dense_weights"),
        {
            "nn": nn,
            "torch": torch,
            "logger": Log(),
            "try_get_dense_modules": config["try_get_dense_modules"],
            "get_act_fn": act["get_act_fn"],
            "get_hf_file_bytes": lambda name, directory, revision: (
                Path(directory, name).read_bytes() if Path(directory, name).is_file() else None
            ),
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        weight_utils = type(ast)("vllm.model_executor.model_loader.weight_utils")
        weight_utils.default_weight_loader = lambda target, value: target.data.copy_(value)  # type: ignore[attr-defined]
        for name in ("vllm", "vllm.model_executor", "vllm.model_executor.model_loader"):
            patch.setitem(__import__("sys").modules, name, type(ast)(name))
        patch.setitem(__import__("sys").modules, weight_utils.__name__, weight_utils)
        projector = adapters["_load_st_projector"](Settings(out))
    with torch.no_grad():
        found = projector(last_states(out, ROWS[0]))
    assert found[:, 0].tolist() == pytest.approx(model.score([ROWS[0]])[0], abs=TINY_REWARD)
    assert config["parse_pooling_type"]("pooling_mode_lasttoken") == "LAST"
    pooling = modules_of(out)[1]
    assert pooling["type"] in config["_ST_POOLING_MODULE_TYPES"]
    kinds = {module["type"] for module in modules_of(out)}
    assert not kinds & config["_ST_NORMALIZE_MODULE_TYPES"]
