"""crfm-helm's client and tokenizer for models that jaxft loads; needs crfm-helm 0.5.16 (`pip install jaxft[helm]`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from helm.clients.client import CachingClient, truncate_sequence
from helm.common.request import (
    EMBEDDING_UNAVAILABLE_REQUEST_RESULT,
    ErrorFlags,
    GeneratedOutput,
    Request,
    RequestResult,
    Token,
    wrap_request_time,
)
from helm.tokenizers.caching_tokenizer import CachingTokenizer

from jaxft.errors import Error
from jaxft.evaluation.helm.plugin.batching import Batcher
from jaxft.evaluation.helm.plugin.engine import Ask, Engine, Said, engine


class JaxftClient(CachingClient):
    """Answers HELM's requests, which come one at a time from its threads, in batches.

    source, adapter, chat: the model, as `jaxft generate` takes it. batch_size: requests computed together; give
    `helm-run -n` as many threads. wait: seconds that a batch waits for more.
    """

    def __init__(
        self,
        cache_config: Any,
        source: str,
        adapter: str | None = None,
        chat: bool = False,
        batch_size: int = 16,
        wait: float = 0.05,
    ):
        super().__init__(cache_config=cache_config)
        self._identity = {"source": source, "adapter": adapter, "chat": chat}
        self._settings = (source, adapter, chat, batch_size)
        self._batcher: Batcher[Ask, list[Said]] = Batcher(self._answer, batch_size, wait)

    def _answer(self, asked: Sequence[Ask]) -> list[list[Said]]:
        return engine(*self._settings)(asked)

    def make_request(self, request: Request) -> RequestResult:
        """Return the completions of a request, from HELM's cache or the model.

        What does not fit the model fails at once, without HELM's retries.
        """
        if request.embedding:
            return EMBEDDING_UNAVAILABLE_REQUEST_RESULT
        ask = Ask(
            prompt=request.prompt,
            messages=tuple(request.messages or ()),
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            samples=request.num_completions,
            echo=request.echo_prompt,
            random=request.random,
        )

        def compute() -> dict[str, Any]:
            done = self._batcher(ask)
            texts = [{"text": said.text, "tokens": said.tokens} for said in done.value]
            return {"completions": texts, "batch_size": done.batch_size, "batch_seconds": done.seconds}

        asked = {name: value for name, value in ask._asdict().items() if name != "random"}  # HELM adds its own
        key = self.make_cache_key({**self._identity, **asked}, request)
        try:
            response, cached = self.cache.get(key, wrap_request_time(compute))
        except Error as error:
            flags = ErrorFlags(is_retriable=False, is_fatal=True)
            return RequestResult(False, [], [], False, error=f"jaxft: {error}", error_flags=flags)
        return RequestResult(
            success=True,
            cached=cached,
            request_time=response["request_time"],
            request_datetime=response.get("request_datetime"),
            completions=[_output(one, request) for one in response["completions"]],
            embedding=[],
            batch_size=response["batch_size"],
            batch_request_time=response["batch_seconds"],
        )


def _output(one: dict[str, Any], request: Request) -> GeneratedOutput:
    tokens = [Token(text=text, logprob=value) for text, value in one["tokens"]]
    output = GeneratedOutput(one["text"], sum(token.logprob for token in tokens), tokens)
    return truncate_sequence(output, request, print_warning=False)


class JaxftTokenizer(CachingTokenizer):
    """The tokenizer of the same model: HELM cuts prompts and counts tokens by it."""

    def __init__(self, cache_config: Any, source: str, adapter: str | None = None, chat: bool = False,
                 batch_size: int = 16):  # fmt: skip
        super().__init__(cache_config)
        self._settings = (source, adapter, chat, batch_size)

    @property
    def _engine(self) -> Engine:
        return engine(*self._settings)

    def _tokenization_request_to_cache_key(self, request: Any) -> dict[str, Any]:
        return {**dataclasses.asdict(request), "source": self._settings[0]}

    def _decode_request_to_cache_key(self, request: Any) -> dict[str, Any]:
        return {**dataclasses.asdict(request), "source": self._settings[0]}

    def _tokenize_do_it(self, request: dict[str, Any]) -> dict[str, Any]:
        ids = self._engine.tokenize(request["text"])
        tokenizer = self._engine.model.tokenizer
        return {"tokens": ids if request["encode"] else [tokenizer.decode([i]) for i in ids]}

    def _decode_do_it(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"text": self._engine.model.tokenizer.decode(request["tokens"])}
