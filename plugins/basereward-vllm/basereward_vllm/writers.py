"""The writer `vllm`: texts by `LLM.chat` in this process, without a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from threading import Lock
from typing import Any, Literal

from basereward.errors import ConfigError, DataError
from basereward.protocols import Writer
from basereward.writers.chat_completions import (
    ENDINGS,
    TOP_LOGPROBS,
    chat_messages,
    choice_log_probabilities,
)
from basereward.writers.request import Completion, Request


class VLLM(Writer):
    """vLLM's offline engine. It batches by itself, and reads what prompts share once.

    Args:
        model: A directory or hub id that vLLM can serve.
        dtype: Type of the weights.
        tensor_parallel_size: GPUs that the model is divided among.
        max_model_len: The longest that prompt and text may be together; None for the model's own limit.
        gpu_memory_utilization: The share of the GPU's memory that is used.
        images_per_prompt: Images of a prompt at most.
        batch_size: Requests that are handed over at once.
        engine: Further arguments of `vllm.LLM`, such as {"enforce_eager": true}.
    """

    def __init__(
        self,
        *,
        model: str,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        tensor_parallel_size: int = 1,
        max_model_len: int | None = None,
        gpu_memory_utilization: float = 0.9,
        images_per_prompt: int = 8,
        batch_size: int = 512,
        engine: dict[str, Any] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is a number of requests >= 1, not {batch_size}")
        if find_spec("vllm") is None:
            raise ConfigError("writer 'vllm' needs vLLM: run pip install 'basereward-vllm[engine]'")
        self.model = model
        self.batch_size = batch_size
        self.counts: Counter[str] = Counter()
        self._arguments = {
            "model": model,
            "dtype": dtype,
            "tensor_parallel_size": tensor_parallel_size,
            "max_model_len": max_model_len,
            "gpu_memory_utilization": gpu_memory_utilization,
            "limit_mm_per_prompt": {"image": images_per_prompt},
            **(engine or {}),
        }
        self._engine: Any = None
        self._lock = Lock()

    @property
    def requests_at_once(self) -> int:
        """The requests that are handed over at once."""
        return self.batch_size

    @property
    def statistics(self) -> Mapping[str, float]:
        """The tokens that were read and written."""
        return dict(self.counts)

    @property
    def facts(self) -> Mapping[str, str]:
        """The model."""
        return {"judge": self.model}

    def write(self, requests: Sequence[Request]) -> list[Completion]:
        """Return a completion for each request, in their order."""
        written: dict[int, Completion] = {}
        conversations: dict[int, list[dict[str, Any]]] = {}
        for number, request in enumerate(requests):
            try:
                conversations[number] = chat_messages(request)
            except DataError as error:
                written[number] = Completion.failed(str(error))
        with self._lock:
            for is_begun in (False, True):
                numbers = [n for n in conversations if bool(requests[n].beginning) == is_begun]
                for start in range(0, len(numbers), self.batch_size):
                    self._chat(
                        requests, conversations, numbers[start : start + self.batch_size], is_begun, written
                    )
        for completion in written.values():
            self.counts["prompt_tokens"] += completion.num_prompt_tokens
            self.counts["tokens"] += completion.num_tokens
        return [written[number] for number in range(len(requests))]

    def _chat(
        self,
        requests: Sequence[Request],
        conversations: Mapping[int, list[dict[str, Any]]],
        numbers: Sequence[int],
        is_begun: bool,
        written: dict[int, Completion],
    ) -> None:
        """Write a batch; a request that keeps the engine from it, such as by its length, fails alone."""
        if not numbers:
            return
        try:
            outputs = self._llm().chat(
                [conversations[number] for number in numbers],
                [self._sampling(requests[number]) for number in numbers],
                use_tqdm=False,
                add_generation_prompt=not is_begun,
                continue_final_message=is_begun,
            )
        except ValueError as error:
            if len(numbers) == 1:
                written[numbers[0]] = Completion.failed(f"vLLM refuses the request: {error}")
                return
            middle = len(numbers) // 2
            for part in (numbers[:middle], numbers[middle:]):
                self._chat(requests, conversations, part, is_begun, written)
            return
        for number, output in zip(numbers, outputs, strict=True):
            written[number] = self._completion(requests[number], output)

    def _llm(self) -> Any:
        if self._engine is None:
            from vllm import LLM

            self._engine = LLM(**self._arguments)
        return self._engine

    @staticmethod
    def _sampling(request: Request) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=request.temperature,
            seed=request.seed if request.temperature else None,
            max_tokens=1 if request.choices else request.max_tokens,
            logprobs=TOP_LOGPROBS if request.choices else None,
        )

    def _completion(self, request: Request, output: Any) -> Completion:
        [text] = output.outputs
        if text.finish_reason not in ENDINGS:
            return Completion.failed(f"vLLM ended the text with finish_reason {text.finish_reason!r}")
        top: list[tuple[str, float]] = []
        if request.choices and text.logprobs:
            top = [(each.decoded_token or "", each.logprob) for each in text.logprobs[0].values()]
        return Completion(
            request.beginning + text.text,
            ENDINGS[text.finish_reason],
            log_probabilities=choice_log_probabilities(top, request.choices) if top else {},
            num_prompt_tokens=len(output.prompt_token_ids or ()),
            num_tokens=len(text.token_ids),
            model=self.model,
        )
