"""Sources of rewards for integrations: a model in this process, or a server."""

from __future__ import annotations

import base64
import json
import math
import threading
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypedDict

from basereward.client import ServerError, response_body
from basereward.comparison import Comparison
from basereward.errors import ConfigError, DataError, shown
from basereward.media.image import Image
from basereward.media.video import Video
from basereward.storage.reading import parse_json

RewardSource = Callable[[Sequence[Comparison]], "list[list[float] | DataError]"]
"""Returns each comparison's rewards, or the error of one that can't be scored."""


class SourceOptions(TypedDict, total=False):
    """The options of `reward_source`, for functions that pass them on."""

    device: str
    precision: str | None
    batch_size: int
    served_name: str | None
    key: str | None
    timeout_seconds: float
    num_tries: int


def reward_source(
    model: str | Path | RewardSource,
    *,
    device: str = "auto",
    precision: str | None = None,
    batch_size: int = 8,
    served_name: str | None = None,
    key: str | None = None,
    timeout_seconds: float = 600.0,
    num_tries: int = 10,
) -> RewardSource:
    """Return a function that gives the rewards of a model directory or a server; several threads may call it.

    Args:
        model: The directory of a model or an ensemble, which is loaded here; a judge's TOML file,
            `judge+http://host:port/v1` or `decisions+http://host:port/v1`; or `http://host:port` of
            `basereward serve`. A function of comparisons is returned as it is.
        device: The device of a directory's model; `auto` for this process's GPU where there is one.
        precision: Its precision, as of `RewardModel.load`.
        batch_size: Comparisons in a forward pass of a directory's model.
        served_name: The name of the server's model; None for its first.
        key: The server's key.
        timeout_seconds: Timeout of each request.
        num_tries: Number of tries while the server is busy or can't be reached.
    """
    if callable(model):
        return model
    if str(model).startswith(("http://", "https://")):
        return _served(str(model), served_name, key, timeout_seconds, num_tries)
    from basereward.scoring.loading import load_scorer
    from basereward.scoring.writer_judge import WriterJudge

    loaded = load_scorer(model, device=device, precision=precision)
    # A judge's questions of several threads are answered side by side; a model has one device.
    one_at_a_time: AbstractContextManager[Any]
    one_at_a_time = nullcontext() if isinstance(loaded, WriterJudge) else threading.Lock()

    def rewards(comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
        with one_at_a_time:
            return [result for _, result in loaded.score_stream(list(comparisons), batch_size=batch_size)]

    return rewards


def _served(
    address: str, model: str | None, key: str | None, timeout_seconds: float, num_tries: int
) -> RewardSource:
    address = address.rstrip("/") + "/v1/rewards"

    def rewards(comparisons: Sequence[Comparison]) -> list[list[float] | DataError]:
        items = [_item(each) for each in comparisons]
        sent = [item for item in items if not isinstance(item, DataError)]
        body: dict[str, Any] = {"items": sent, "on_error": "null"}
        if model is not None:
            body["model"] = model
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            answer = response_body(request, timeout_seconds, num_tries) if sent else b'{"data": []}'
        except ServerError as error:
            said = (
                error.reason if error.status is None else f"{address} answers {error.status}: {error.reason}"
            )
            raise ConfigError(said) from error
        try:
            data = parse_json(answer.decode("utf-8"))["data"]
            entries = [
                _result(entry, len(item["responses"]))
                for item, entry in zip(sent, sorted(data, key=lambda entry: entry["index"]), strict=True)
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{address} answers what are no rewards of ours: {error!r}") from error
        scored = iter(entries)
        return [item if isinstance(item, DataError) else next(scored) for item in items]

    return rewards


def _result(entry: Mapping[str, Any], num_responses: int) -> list[float] | DataError:
    error = entry["error"]
    if error is not None:
        return DataError(str(error["message"]), field=error["param"])
    rewards = [float(reward) for reward in entry["rewards"]]
    if len(rewards) != num_responses or not all(map(math.isfinite, rewards)):
        raise ValueError(f"the rewards {shown(rewards)} of {num_responses} responses")
    return rewards


def _item(comparison: Comparison) -> dict[str, Any] | DataError:
    """Return an item of the server's native API, with its images inline, or why it can't be sent."""
    try:
        prompt = [
            {
                "role": message.role,
                "content": [_part(part) for part in message.content],
                **message.template_fields,
            }
            for message in comparison.prompt
        ]
    except DataError as error:
        return error
    tools = prompt[0].pop("tools", None)
    item = {"prompt": prompt, "responses": list(comparison.responses)}
    return item if tools is None else {**item, "tools": tools}


def _part(part: str | Image | Video) -> dict[str, Any]:
    if isinstance(part, Video):
        raise DataError("videos aren't served; send frames as images", field="videos")
    if isinstance(part, Image):
        return {"type": "image", "image": base64.b64encode(part.encoded()).decode()}
    return {"type": "text", "text": part}
