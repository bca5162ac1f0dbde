"""The model card, `README.md` of a model directory: for readers, and for the hub's search."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from basereward._version import __version__
from basereward.config.conversion import NONE
from basereward.reporting.tables import Row, Table, markdown_code, markdown_text
from basereward.storage.hub import HUB_ID

PAPER = "https://arxiv.org/abs/2509.16127"

METRICS = {
    "log_loss": "log loss (0.693 is chance)",
    "reward_mean": "mean reward",
    "reward_std": "standard deviation of rewards",
}
"""The titles of metrics beside accuracy, which has its interval."""


def model_card(facts: Mapping[str, Any], *, name: str | None = None) -> str:
    """Return the card as Markdown, with the hub's metadata as YAML before it.

    The same facts give the same text: it has no dates and no paths of the machine.

    Args:
        facts: Those of `reward_config.json`: components, record, and members of an ensemble.
        name: The model's id on the hub, `owner/name`; None before it has one.
    """
    record = facts["record"]
    title = name.rpartition("/")[2] if name else _title(facts)
    sections = [
        f"---\n{_metadata(facts, title)}\n---",
        f"# {title}",
        "A reward model: it scores responses to a prompt, so that better responses get higher rewards. "
        f"Made with BaseReward {__version__} ([the recipe's paper]({PAPER})).",
        _components(facts),
        f"## Use\n\n{_use(name)}",
        *([] if "members" in facts else _sections_of_training(record)),
        f"## Licence\n\n{_licence(record)}",
        "## Limits\n\nA reward model prefers what its training data preferred. Compare rewards of responses "
        "to one prompt; the scale has no zero. `basereward audit MODEL --data PAIRS` measures whether the "
        "model looks at the image, and whether it pays for length, lists or flattery, before a policy is "
        "trained on it.",
    ]
    return "\n\n".join(sections) + "\n"


def _sections_of_training(record: Mapping[str, Any]) -> list[str]:
    return [
        f"## Evaluation\n\n{_evaluation(record)}",
        f"## Training data\n\n{_data(record)}",
        f"## Recipe\n\n{_recipe(record)}",
    ]


def _title(facts: Mapping[str, Any]) -> str:
    if "members" in facts:
        return f"Ensemble of {len(facts['members'])} reward models"
    base = facts["record"].get("base_model")
    return f"Reward model on {PurePath(base).name}" if base else "Reward model"


def _metadata(facts: Mapping[str, Any], title: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    record = facts["record"]
    training, evaluation = record.get("training", {}), record.get("evaluation", {})
    results = []
    if "accuracy" in evaluation:
        results.append(
            EvalResult(
                task_type="reward-modeling",
                task_name="Reward modeling",
                dataset_type="preference-pairs",
                dataset_name=", ".join(_names(training.get("eval_data", ()))) or "held-out pairs",
                metric_type="accuracy",
                metric_name="Pair accuracy",
                metric_value=round(evaluation["accuracy"], 4),
            )
        )
    base = record.get("base_model")
    data = ModelCardData(
        library_name="basereward",
        license=record.get("license"),
        tags=["reward-model", "basereward", "preference"],
        base_model=base if _is_hub_id(base) else None,
        datasets=sorted({path for item in training.get("data", ()) if _is_hub_id(path := item["path"])})
        or None,
        model_name=title,
        eval_results=results or None,
    )
    return data.to_yaml()


def _is_hub_id(name: object) -> bool:
    # Of what was trained on, so that a directory of the owner's name here says nothing.
    return isinstance(name, str) and HUB_ID.fullmatch(name) is not None and not os.path.exists(name)


def _components(facts: Mapping[str, Any]) -> str:
    rows = []
    if base := facts["record"].get("base_model"):
        rows.append(Row.of("base model", base if _is_hub_id(base) else PurePath(base).name))
    for kind, component in facts["components"].items():
        options = {
            key: value
            for key, value in component["options"].items()
            if not (kind == "backbone" and key == "model") and value is not None
        }
        rows.append(Row.of(kind, " ".join([component["name"], f"({_settings(options)})" if options else ""])))
    for member in facts.get("members", ()):
        rows.append(Row.of("member", member["name"]))
    return Table(["part", "choice"], rows, num_labels=2).markdown()


def _use(name: str | None) -> str:
    where = name or "DIRECTORY_OR_HUB_NAME"
    return (
        "```python\nimport basereward\n\n"
        f'model = basereward.load_model("{where}")\n'
        'row = {"prompt": "What is in the image?", "images": ["cat.png"], "responses": ["a cat", "a dog"]}\n'
        "print(model.score(row))  # a reward for each response\n```\n\n"
        f"Or over HTTP: `basereward serve {where}`. A model of text alone takes rows without `images`."
    )


def _evaluation(record: Mapping[str, Any]) -> str:
    evaluation = record.get("evaluation", {})
    if "accuracy" not in evaluation:
        return "Not evaluated on held-out data when it was saved."
    accuracy, low, high = (f"{evaluation[name]:.3f}" for name in ("accuracy", "low", "high"))
    rows = [Row.of("pair accuracy (0.5 is chance)", accuracy, f"{low} to {high}")]
    rows += [
        Row.of(title, f"{evaluation[name]:.3f}", "")
        for name, title in METRICS.items()
        if isinstance(evaluation.get(name), float)
    ]
    names = ", ".join(_names(record.get("training", {}).get("eval_data", ())))
    table = Table(["metric", "value", "95 % interval"], rows, num_labels=1).markdown()
    num = f"{evaluation['num_pairs']:,} held-out pairs" if "num_pairs" in evaluation else "Held-out pairs"
    return f"{num}{f' of {markdown_text(names)}' if names else ''}, at step {evaluation['step']}.\n\n{table}"


def _data(record: Mapping[str, Any]) -> str:
    training = record.get("training", {})
    if not training.get("data"):
        return "Not trained by BaseReward, or not recorded."
    lines = [f"- {markdown_text(name)}" for name in _names(training["data"])]
    return "\n".join([*lines, "", f"SHA-256 of the rows: {markdown_code(training['data_sha256'])}."])


def _names(items: Any) -> list[str]:
    """Return the data sets by format and file, without the directories of the machine."""
    names = []
    for item in items:
        path = item.get("path")
        place = path if path is None or _is_hub_id(path) else PurePath(path).name
        names.append(f"{place} ({item['name']})" if place else item["name"])
    return names


def _recipe(record: Mapping[str, Any]) -> str:
    training = record.get("training", {})
    if not training:
        return "Not trained by BaseReward, or not recorded."
    settings = training.get("settings", {})
    listed = f" Settings other than the defaults: {markdown_code(_settings(settings))}." if settings else ""
    return f"{training['step']:,} steps in {training['precision']}, seed {training['seed']}.{listed}"


def _licence(record: Mapping[str, Any]) -> str:
    if named := record.get("license"):
        return f"{markdown_text(named)}. The base model's and the data's own licences hold besides."
    return (
        "Not stated. The base model's and the data's own licences hold; "
        '`model.push_to_hub(NAME, license="apache-2.0")` states one.'
    )


def _settings(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {_value(value)}" for key, value in options.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{_settings(value)}}}"
    if isinstance(value, bool):
        return str(value).lower()
    return NONE if value is None else str(value)
