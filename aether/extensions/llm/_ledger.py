"""One HTTP attempt in the ledger of its call, settled on every way out.

It must not know a protocol, nor how tokens are counted where a provider does not tell.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from aether.errors import AetherError, ProviderError, StreamInterruptedError
from aether.extensions.llm._wire.errors import Source
from aether.llm.accounting import settle_answer, settle_failure
from aether.llm.messages import LLMRequest, LLMResponse

__all__ = ["Attempt"]


class _Assembly(Protocol):
    """A streamed answer as far as it has come."""

    @property
    def characters(self) -> int: ...

    def partial(self) -> LLMResponse: ...


class Attempt:
    """`with Attempt(request, source) as attempt:` around what is sent and read.

    A request without a context has no ledger, and then this does nothing.
    """

    __slots__ = ("_assembly", "_entry", "_request")

    def __init__(self, request: LLMRequest, source: Source) -> None:
        context = request.context
        self._request = request
        self._assembly: _Assembly | None = None
        self._entry = (
            None
            if context is None
            else context.open_entry(provider=source.provider, model=source.model)
        )

    def watch(self, assembly: _Assembly) -> None:
        """Where to look, if the attempt ends early, for what had come and its characters."""
        self._assembly = assembly

    def answered(self, response: LLMResponse) -> None:
        """The answer is whole."""
        if self._entry is not None:
            settle_answer(self._entry, response, self._request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entry = self._entry
        if entry is None or error is None or entry.state != "pending":
            return
        assembly = self._assembly
        partial = None if assembly is None else assembly.partial()
        characters = 0 if assembly is None else assembly.characters
        if isinstance(error, ProviderError):
            entry.request_id = error.request_id
        if partial is not None and partial.finish_reason is not None:
            settle_answer(entry, partial, self._request)
            entry.error = type(error).__name__
        elif isinstance(error, AetherError) and not isinstance(error, ProviderError):
            entry.error = type(error).__name__  # nothing was sent
            entry.state = "not_billed"
        else:
            judged: BaseException | None = error
            if assembly is None and isinstance(error, StreamInterruptedError):
                judged = error.__cause__  # a later part of an answer was refused, and broke it off
            settle_failure(entry, judged, self._request, characters=characters)
            entry.error = type(error).__name__
            if partial is not None:
                entry.model = partial.model
                entry.request_id = partial.request_id
