"""Rewards for ms-swift's GRPO, of a model in the process or of a server.

A file for `--external_plugins`, then `--reward_funcs basereward`:

    from swift.rewards import orms
    from basereward.integrations.ms_swift import orm
    orms["basereward"] = orm("http://127.0.0.1:8000")

Or instead of a reward model that ms-swift loads, `--reward_model PATH --reward_model_plugin basereward`:

    from swift.rewards import rm_plugins
    from basereward.integrations.ms_swift import rm_plugin
    rm_plugins["basereward"] = rm_plugin("MODEL_DIR")

Rows are those of ms-swift 4.6.0, `swift/rl_core/grpo_algorithm.py`: `messages` that end with the completion,
`images`, and the data set's columns. The reward of a completion that can't be scored is None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from basereward.integrations.completions import CompletionScorer, answered, completion_text, images_of
from basereward.integrations.reward_source import RewardSource, SourceOptions
from basereward.integrations.shaping import Shape


def orm(
    model: str | Path | RewardSource, *, shapes: Sequence[Shape] = (), **options: Unpack[SourceOptions]
) -> type:
    """Return a class for `swift.rewards.orms`; the arguments are those of `CompletionScorer`."""
    scorer = CompletionScorer(model, shapes=shapes, **options)

    class BaseReward:
        """Rewards of a model; ms-swift's log has them by the class's name."""

        def __init__(self, args: Any = None, **_: Any) -> None:
            self.args = args

        def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
            """Return the rewards [N] of completions [N], None where one can't be scored."""
            return _rewards(scorer, columns)

    return BaseReward


def async_orm(
    model: str | Path | RewardSource, *, shapes: Sequence[Shape] = (), **options: Unpack[SourceOptions]
) -> type:
    """Return an asynchronous class for `swift.rewards.orms`; ms-swift awaits several such together."""
    waiting: Any = orm(model, shapes=shapes, **options)

    class BaseReward(waiting):  # type: ignore[misc]  # a class that is made here
        """Rewards of a model; ms-swift's log has them by the class's name."""

        async def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
            """Return the rewards [N] of completions [N], None where one can't be scored."""
            rewards: list[float | None] = await asyncio.to_thread(super().__call__, completions, **columns)
            return rewards

    return BaseReward


def rm_plugin(
    model: str | Path | RewardSource, *, shapes: Sequence[Shape] = (), **options: Unpack[SourceOptions]
) -> type:
    """Return a class for `swift.rewards.rm_plugins`; the model that ms-swift itself loads is ignored."""
    scorer = CompletionScorer(model, shapes=shapes, **options)

    class BaseReward:
        """Rewards of a model."""

        def __init__(self, model: Any = None, template: Any = None) -> None:
            self.model = model
            self.template = template

        def __call__(self, inputs: Sequence[Mapping[str, Any]], **columns: Any) -> list[float | None]:
            """Return the rewards [N] of rows [N], None where one can't be scored."""
            names = {name for row in inputs for name in row}
            return _rewards(scorer, {name: [row.get(name) for row in inputs] for name in names})

    return BaseReward


def _rewards(scorer: CompletionScorer, columns: Mapping[str, Any]) -> list[float | None]:
    rows: Sequence[Sequence[Mapping[str, Any]]] = columns["messages"]
    _, shaped = scorer.score(
        [answered(list(messages[:-1]), messages) for messages in rows],
        [completion_text(messages) for messages in rows],
        images=images_of(columns, len(rows)),
        lengths=[_length(ids) for ids in columns.get("response_token_ids") or [()] * len(rows)],
        columns=columns,
    )
    return shaped


def _length(ids: Any) -> int:
    """Return the number of tokens of an answer, whose ids may be nested by turn."""
    return sum(map(_length, ids)) if ids and not isinstance(ids[0], int) else len(ids or ())
