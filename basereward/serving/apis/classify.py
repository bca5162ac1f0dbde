"""`POST /classify`: vLLM's (0.33), which verl's reward loop reads too, and SGLang's native one (0.5.23).

A body with `input` or `messages` is vLLM's, one with `text` or `input_ids` SGLang's. Rewards are unbounded,
as those of a model whose `problem_type` is `regression`; `use_activation` changes nothing there or here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from basereward.comparison import Comparison
from basereward.data import rendered_chat
from basereward.serving.apis.base import Answer, Dialect, refuse_given
from basereward.serving.apis.chat import ChatMessage, last_turn, prompt_of
from basereward.serving.apis.openai import Texts, Usage, usage_of
from basereward.serving.problems import Problem
from basereward.serving.request_reader import Call, Reader


class PoolingFields(msgspec.Struct):
    """What vLLM's requests have in common; what would change the reading of messages is refused."""

    model: str | None = None
    input: Texts | None = None
    messages: list[ChatMessage] | None = None
    use_activation: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool = False
    continue_final_message: bool = False


class ClassifyRequest(PoolingFields):
    """Either `input`, rendered conversations, or `messages`, one conversation; or SGLang's `text`."""

    text: str | list[str] | None = None
    input_ids: Any = None
    image_data: str | list[str | list[str]] | None = None
    video_data: Any = None


class Label(msgspec.Struct):
    """The reward of a conversation, as the only one of `probs`."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class ClassifyResponse(msgspec.Struct):
    """vLLM's answer."""

    id: str
    created: int
    model: str
    data: list[Label]
    usage: Usage
    object: str = "list"


class MetaInfo(msgspec.Struct):
    """Beside an embedding of SGLang's."""

    id: str
    prompt_tokens: int


class Embedding(msgspec.Struct):
    """SGLang's answer, or one of several: the reward as an embedding of one number."""

    embedding: list[float]
    meta_info: MetaInfo


class Classify(Dialect):
    """`POST /classify`."""

    paths = ("/classify",)
    summary = "vLLM and SGLang: rewards of whole conversations"
    request = ClassifyRequest
    responses = (ClassifyResponse, Embedding, list[Embedding])

    def read(self, body: ClassifyRequest, reader: Reader) -> Call:
        """Read one conversation of messages, or rendered ones."""
        if body.text is None and body.input_ids is None:
            return Call(pooled(body, reader), body.model)
        if body.input_ids is not None:
            raise Problem("token_ids_not_allowed", "input_ids")
        refuse_video(body.video_data)
        assert body.text is not None
        texts = [body.text] if isinstance(body.text, str) else body.text
        images = _images_of_each(body.image_data, len(texts), is_batch=isinstance(body.text, list))
        rows = list(zip(texts, images, strict=True))
        items = reader.each(
            rows, lambda row: reader.of_turns(rendered_chat.conversation(row[0]), row[1]), "text"
        )
        return Call(items)

    def write(self, body: ClassifyRequest, answer: Answer) -> Any:
        """Write a reward as a class's probability, or as an embedding."""
        if body.text is None:
            data = [Label(index, "LABEL_0", [own], 1) for index, own in enumerate(answer.rewards)]
            return ClassifyResponse(answer.id, answer.created, answer.engine.name, data, usage_of(answer))
        found = [
            Embedding(own.rewards.values, MetaInfo(f"{answer.id}-{index}", own.num_tokens))
            for index, own in enumerate(answer.scored)
        ]
        return found[0] if isinstance(body.text, str) else found


def pooled(body: PoolingFields, reader: Reader) -> list[Comparison | Problem]:
    """Return the conversations of a request to vLLM's `/classify` or `/pooling`.

    Raises:
        Problem: When there is none, or an argument is not allowed.
    """
    refuse_given(
        chat_template=body.chat_template,
        chat_template_kwargs=body.chat_template_kwargs,
        mm_processor_kwargs=body.mm_processor_kwargs,
        media_io_kwargs=body.media_io_kwargs,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
    )
    if (body.input is None) == (body.messages is None):
        raise Problem("body_not_valid")
    if body.messages is not None:
        return reader.each([body.messages], lambda messages: _conversation(messages, reader), "messages")
    return conversations(body.input or [], reader)


def conversations(texts: Texts, reader: Reader) -> list[Comparison | Problem]:
    """Return rendered conversations.

    Raises:
        Problem: When one is token ids.
    """
    if not isinstance(texts, str) and any(not isinstance(text, str) for text in texts):
        raise Problem("token_ids_not_allowed", "input")
    several = [texts] if isinstance(texts, str) else [str(text) for text in texts]
    return reader.each(several, lambda text: reader.of_turns(rendered_chat.conversation(text)), "input")


def refuse_video(video: object) -> None:
    """Refuse a video.

    Raises:
        Problem: When there is one.
    """
    if video is not None:
        raise Problem("video_not_allowed")


def _conversation(messages: list[ChatMessage], reader: Reader) -> Comparison:
    asked, response = last_turn(messages)
    return reader.comparison(prompt_of(asked, reader), [response])


def _images_of_each(
    images: str | list[str | list[str]] | None, count: int, *, is_batch: bool
) -> list[list[str]]:
    """Return the images of each text: of one, an image or several; of a batch, those of each."""
    if images is None:
        return [[]] * count
    if not is_batch:
        found: list[Any] = [[images] if isinstance(images, str) else images]
    else:
        found = [[own] if isinstance(own, str) else own for own in images]
    if len(found) != count or any(not isinstance(image, str) for own in found for image in own):
        raise Problem("body_not_valid", "image_data")
    return found
