"""Problems of requests and their items (RFC 9457): stable codes with fixed texts.

No text of a library, no path and nothing of a request's contents is ever part of one.
"""

from __future__ import annotations

import logging
import traceback

from basereward.errors import DataError, TooLongError

logger = logging.getLogger(__name__)

PROBLEMS = {
    "body_not_json": (400, "the body is not JSON"),
    "key_missing_or_wrong": (401, "send a key as Authorization: Bearer KEY"),
    "host_not_allowed": (403, "without a key, requests must name this machine in their Host header"),
    "path_not_found": (404, "no such path; GET /openapi.json lists all"),
    "model_not_found": (404, "no such model; GET /v1/models lists all"),
    "method_not_allowed": (405, "the path doesn't have this method; GET /openapi.json lists all"),
    "body_too_slow": (408, "the body took too long to arrive"),
    "body_too_large": (413, "the body has more bytes than allowed"),
    "content_type_not_json": (415, "send Content-Type: application/json"),
    "body_not_valid": (
        422,
        "the body doesn't follow the schema; see GET /openapi.json",
    ),
    "argument_not_allowed": (
        422,
        "a request can't change how the model processes it; leave it out",
    ),
    "token_ids_not_allowed": (422, "tokens depend on the tokenizer; send texts"),
    "too_many_values": (422, "the body has more JSON values than allowed"),
    "too_many_items": (422, "the request has more items than allowed"),
    "too_many_responses": (422, "the prompt has more responses than allowed"),
    "too_many_messages": (422, "the prompt has more messages and pieces of content than allowed"),
    "too_many_images": (422, "the prompt or the request has more images than allowed"),
    "too_many_pixels": (422, "the images have more pixels than allowed"),
    "too_many_characters": (422, "prompt and responses have more characters than allowed"),
    "too_many_tokens": (422, "prompt and responses have more tokens than allowed; nothing is cut"),
    "prompt_empty": (422, "there is no prompt"),
    "prompt_not_usable": (422, "the model can't read the prompt"),
    "role_unknown": (422, "roles are system, user, assistant and tool"),
    "response_missing": (422, "there is no response to score"),
    "response_empty": (422, "the response is empty"),
    "response_with_image": (422, "a response is a text; images belong to the prompt"),
    "response_not_text": (422, "a response is a text; its calls of tools, name or reasoning can't be scored"),
    "response_not_usable": (422, "the model can't read the response"),
    "response_not_separable": (
        422,
        "the end of the prompt is ambiguous; send messages, or prompt and response separately",
    ),
    "prompt_of_unknown_template": (
        422,
        "the prompt looks rendered by a chat template that isn't known; send messages, or the plain prompt",
    ),
    "image_url_not_allowed": (422, "images are sent inline, as base64 or a data: URL; none is fetched"),
    "image_not_base64": (422, "the image is no base64 and no data: URL of it"),
    "image_not_usable": (422, "the image can't be read as PNG, JPEG, WEBP, GIF, BMP, TIFF or PPM"),
    "image_placeholder_without_image": (422, "the prompt has a place for an image that was not sent"),
    "image_without_placeholder": (422, "more images were sent than the prompt has places for"),
    "images_not_read": (422, "the model reads no images"),
    "question_missing": (422, "there is no question to answer"),
    "instructions_missing": (422, "the question doesn't say what it asks"),
    "too_few_options": (422, "a question needs two options or more"),
    "option_repeated": (422, "the question has the option twice"),
    "mean_reward_unknown": (
        422,
        "the model's mean reward was not measured, so that a response alone is neither good nor bad",
    ),
    "video_not_allowed": (422, "videos are not served; send frames as images"),
    "no_score": (422, "the model gives no finite score for the item"),
    "no_verdict": (502, "the judge has not answered, or its answer could not be read; the log says why"),
    "too_many_requests": (429, "the server is at its limit; try again later"),
    "engine_failed": (500, "the model failed on the item"),
    "internal_error": (500, "the server failed; its log says where"),
    "draining": (503, "the server is shutting down; try again later"),
    "deadline_passed": (504, "the answer took longer than allowed"),
}
"""The status and text of each code."""


class Problem(Exception):
    """The reason why a request, or an item of one, gets no reward.

    Args:
        code: One of `PROBLEMS`.
        param: The part of the request at fault, such as `items[2].responses[0]`.
    """

    def __init__(self, code: str, param: str | None = None) -> None:
        self.code = code
        self.status, self.message = PROBLEMS[code]
        self.param = param
        super().__init__(code if param is None else f"{code}: {param}")

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response: when to retry, or how to authenticate."""
        if self.status in (429, 503):
            return {"Retry-After": "1"}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}

    def at(self, param: str) -> Problem:
        """Return the problem with its param below a part of the request."""
        return Problem(self.code, param if self.param is None else f"{param}.{self.param}")


def problem_of(error: DataError) -> Problem:
    """Return the problem of an item that a model can't encode."""
    if isinstance(error, TooLongError):
        return Problem("too_many_tokens")
    field = error.field or ""
    if field.startswith("responses"):
        return Problem("response_not_usable", field)
    if field.startswith("images"):
        return Problem("image_not_usable", "images")
    return Problem("prompt_not_usable")


def log_failure(what: str, error: Exception) -> None:
    """Log a failure's type and traceback, without the error's text, which may quote a request."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed with %s\n%s", what, type(error).__name__, frames)
