"""Reinforcement learning of a generative judge with verifiable reward, by TRL's GRPOTrainer.

from trl import GRPOConfig
from basereward.integrations import judge_grpo
from basereward.integrations.filtered_grpo import FilteredGRPOTrainer

policy, tokenizer = judge_grpo.load_policy("runs/judge-sft/model")
trainer = FilteredGRPOTrainer(
    policy,
    reward_funcs=judge_grpo.r1_reward(judge_grpo.stated_preference),
    args=GRPOConfig("runs/judge-grpo", scale_rewards="batch"),
    train_dataset=judge_grpo.judge_prompts(comparisons, tokenizer),
    processing_class=tokenizer,
)
trainer.train()
trainer.save_model("runs/judge-grpo/policy")
judge_grpo.save_judge("runs/judge-grpo/policy", "runs/judge-grpo/model")

The right verdict follows from a comparison's ranks, so that rewards need no model (arXiv 2505.02835).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basereward.backbones.opened_turn import opening_of, whole_turn
from basereward.backbones.untrusted_settings import check_settings
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError, ModelError
from basereward.integrations.completions import completion_text
from basereward.media.image import Image
from basereward.message import Message

if TYPE_CHECKING:
    from datasets import Dataset

Consistency = Callable[[str, int], float]
"""Returns whether a reasoning and the verdict after it agree (1), disagree (-1), or neither (0)."""

RewardFunc = Callable[..., "list[float]"]

BETTER = re.compile(
    r"\b(?:response|answer)\s+([12])\s+(?:is|seems|was)\s+(?:(?!not\b|no\b|never\b|less\b)\w+\s+){0,4}?"
    r"(?:better|best|preferable|superior)\b",
    re.IGNORECASE,
)


def judge_prompts(
    comparisons: Iterable[Comparison], tokenizer: Any, *, template: str = "reasoned"
) -> Dataset:
    """Return TRL's prompts for a judge: each pair that is no tie, in both orders.

    Columns are `prompt`, the judge template's message; `verdict`, 1 or 2, the number of the better response;
    `turn_opening`, what the policy's chat template itself writes of an answer, such as "<think>"; and, where
    the comparisons have images, `images`, which stand in the prompt where the template has them.

    Args:
        comparisons: Comparisons with ranks.
        tokenizer: The policy's tokenizer or processor.
        template: A judge template of reasoned verdicts.

    Raises:
        ConfigError: When the template asks for something else, the chat template ignores
            `add_generation_prompt`, or every pair is a tie.
        DataError: When a comparison has no ranks, a video, or a text with a control token of the policy.
    """
    from datasets import Dataset, Image

    from basereward.paradigms.judge_template import JudgeTemplate

    judge = JudgeTemplate.load(template)
    if judge.answer != "reasoned":
        raise ConfigError(
            f"judge template {template!r} asks for a {judge.answer}; give one of reasoned verdicts"
        )
    opening = _opening(tokenizer)
    control = _control_tokens(tokenizer)
    rows: list[dict[str, Any]] = []
    for comparison in comparisons:
        for pair in comparison.pairs():
            if pair.tie:
                continue
            for verdict, shown in ((1, (pair.chosen, pair.rejected)), (2, (pair.rejected, pair.chosen))):
                texts = [comparison.responses[number] for number in shown]
                try:
                    [message] = judge.messages(comparison.prompt, texts)
                    rows.append({**_question(message, control), "verdict": verdict, "turn_opening": opening})
                except DataError as error:
                    raise error.at(file=f"comparison {comparison.id}" if comparison.id else None) from error
    if not rows:
        raise ConfigError("there is no pair with a better response to ask about")
    if not any(row["images"] for row in rows):
        # Plain texts, so that policies without images can take them.
        prompts = [[{"role": "user", "content": _joined(row["parts"])}] for row in rows]
        return Dataset.from_dict({"prompt": prompts, **_answers(rows)})
    columns = {
        "prompt": [[{"role": "user", "content": row["parts"]}] for row in rows],
        "images": [[{"bytes": image.encoded(), "path": None} for image in row["images"]] for row in rows],
        **_answers(rows),
    }
    return Dataset.from_dict(columns).cast_column("images", [Image()])


def format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """Return 1 for each completion of the form <think>...</think><answer>1</answer>, 0 for others.

    The whole turn of the assistant is read, with what the chat template wrote of it.
    """
    return [float(verdict is not None) for _, verdict in _read(completions, columns)]


def verdict_reward(completions: Sequence[Any], verdict: Sequence[int], **columns: Any) -> list[float]:
    """Return 1 for each completion whose verdict is right, 0 where it is wrong or can't be parsed."""
    return [
        float(stated == right)
        for (_, stated), right in zip(_read(completions, columns), verdict, strict=True)
    ]


def r1_reward(consistency: Consistency | None = None, *, num_threads: int = 8) -> RewardFunc:
    """Return R1-Reward's reward, Result * (1 + 0.5 * Consistency) + 0.5 * Format.

    arXiv 2505.02835, section 4. A text whose form is wrong has no verdict, so that its Result is 0.

    Args:
        consistency: Rates reasonings: a call of a judge, or `stated_preference`; None for 0 everywhere.
            Called only where the verdict is right, since the product is 0 elsewhere.
        num_threads: Number of concurrent calls of it.
    """

    def reward(completions: Sequence[Any], verdict: Sequence[int], **columns: Any) -> list[float]:
        parsed = _read(completions, columns)
        agreements = [0.0] * len(parsed)
        right = [number for number, (_, stated) in enumerate(parsed) if stated == verdict[number]]
        if consistency is not None:
            with ThreadPoolExecutor(num_threads) as threads:
                ratings = threads.map(lambda number: consistency(parsed[number][0], verdict[number]), right)
                for number, rating in zip(right, ratings, strict=True):
                    agreements[number] = rating
        return [
            float(stated == wanted) * (1 + 0.5 * agreement) + 0.5 * (stated is not None)
            for (_, stated), wanted, agreement in zip(parsed, verdict, agreements, strict=True)
        ]

    reward.__name__ = "r1_reward"
    return reward


def stated_preference(reasoning: str, verdict: int) -> float:
    """Return 1 if a reasoning calls the verdict's response better, -1 if the other, 0 if neither.

    The last statement counts. No model is asked, so that other phrasings are missed.
    """
    stated = BETTER.findall(reasoning)
    if not stated:
        return 0.0
    return 1.0 if int(stated[-1]) == verdict else -1.0


def load_policy(directory: str | Path, **options: Any) -> tuple[Any, Any]:
    """Return the model and the tokenizer or processor of a directory, for GRPOTrainer.

    Args:
        directory: A transformers model, or the model directory of a generative reward model.
        options: Of transformers' `from_pretrained`, such as `dtype`.

    Raises:
        ModelError: When a tensor of the model isn't in the directory.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

    from basereward.backbones.hub_kernels import without_kernels
    from basereward.backbones.transformers_model import transformers_bars

    directory = Path(directory)
    check_settings(directory)
    is_vision = "vision_config" in AutoConfig.from_pretrained(directory).sub_configs
    kind: Any = AutoModelForImageTextToText if is_vision else AutoModelForCausalLM
    with transformers_bars(), without_kernels():
        model, report = kind.from_pretrained(
            directory, output_loading_info=True, use_safetensors=True, **{"dtype": "float32", **options}
        )
    # Directories of reward models used to say that the model keeps no keys and values; a policy that did so
    # would read everything before it again for each token that it writes.
    for config in (model.config, model.config.get_text_config(), model.generation_config):
        config.use_cache = True
    missing = set(report["missing_keys"])
    head = model.get_output_embeddings()
    path = directory / "head.safetensors"
    if "lm_head.weight" in missing and path.is_file():
        from basereward.backbones.lm_head import LanguageHead
        from basereward.storage.model_directory import load_tensors

        load_tensors({"head": LanguageHead(model.get_input_embeddings(), head.weight)}, path)
        missing.remove("lm_head.weight")
    if missing:
        raise ModelError(f"{directory} lacks the tensor {min(missing)}")
    return model, AutoProcessor.from_pretrained(directory, padding_side="left")


def save_judge(
    policy: str | Path,
    directory: str | Path,
    *,
    backbone: str = "causal-lm",
    template: str = "reasoned",
    **options: Any,
) -> None:
    """Write the model directory of a judge whose backbone is a policy that TRL has trained.

    Args:
        policy: The directory that `trainer.save_model` wrote.
        directory: The directory to write.
        backbone: The backbone for the policy's kind of model: `causal-lm`, `qwen-vl`, ...
        template: The judge template of its training.
        options: Options of the paradigm `generative`, such as `max_answer_tokens`.
    """
    from basereward.config.conversion import Component
    from basereward.scoring.reward_model import RewardModel

    model = RewardModel.build(
        backbone=Component(backbone, {"model": str(policy)}),
        paradigm=Component("generative", {"template": template, **options}),
    )
    model.save(directory)


def _read(completions: Sequence[Any], columns: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """Return the reasoning and the verdict of each completion; no verdict where it isn't in the form.

    Args:
        completions: What the policy wrote.
        columns: With `turn_opening`, as of `judge_prompts`. Without, an end of thinking that was never begun
            tells that the template has begun it.
    """
    from basereward.paradigms.verdicts import ANSWER

    openings = columns.get("turn_opening")
    parsed: list[tuple[str, int | None]] = []
    for number, completion in enumerate(completions):
        opening = None if openings is None else openings[number]
        match = ANSWER.fullmatch(whole_turn(completion_text(completion), opening).strip())
        parsed.append(("", None) if match is None else (match["reasoning"], int(match["verdict"])))
    return parsed


def _answers(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the columns that rewards are given."""
    return {name: [row[name] for row in rows] for name in ("verdict", "turn_opening")}


def _question(message: Message, control: re.Pattern[str] | None) -> dict[str, Any]:
    """Return a message's parts in TRL's form, and its images."""
    parts: list[dict[str, str]] = []
    for part in message.content:
        if isinstance(part, Image):
            # With a text, since Arrow would make a missing one None, which some templates would render.
            parts.append({"type": "image", "text": ""})
        elif isinstance(part, str):
            parts.append({"type": "text", "text": part})
        else:
            raise DataError("TRL's trainer shows no videos; take them out of the row", field="videos")
    if control is not None and (match := control.search(_joined(parts))):
        raise DataError(
            f"has the text {match.group()!r}, which the policy would read as a control token; remove it",
            field="prompt or responses",
        )
    return {"parts": parts, "images": message.images}


def _joined(parts: Sequence[Mapping[str, str]]) -> str:
    return "".join(part["text"] for part in parts)


def _opening(tokenizer: Any) -> str:
    """Return what a chat template itself writes of an answer.

    Raises:
        ConfigError: When it can't open the assistant's turn.
    """
    messages = [{"role": "user", "content": "-"}]
    plain, opened = (
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens)
        for opens in (False, True)
    )
    if plain == opened:
        raise ConfigError(
            "the policy's chat template doesn't know add_generation_prompt, so that the policy would be "
            "prompted without an open turn for its answer; add it to the template"
        )
    return opening_of(opened)


def _control_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Return a pattern of the control tokens of a tokenizer or a processor; None where there are none."""
    from transformers import ProcessorMixin

    if isinstance(tokenizer, ProcessorMixin):
        tokenizer = tokenizer.tokenizer
    added = tokenizer.added_tokens_decoder.values()
    literals = [re.escape(str(token)) for token in added if token.special and str(token)]
    return re.compile("|".join(literals)) if literals else None
