"""The calls that are made for one call of a caller's, to one provider or several, maybe at once.

Each has a context of its own, and its attempts are in the ledger however it ends. It must not know
why they are made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from aether.errors import AetherError, ProviderError
from aether.llm.accounting import record_attempt
from aether.llm.call import CallContext
from aether.llm.contracts import LLMProvider
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.sizing import written_beside_text
from aether.llm.wrapper import describe, layers_of

__all__ = ["Branch", "close_all", "for_another_provider", "note", "told_failure"]

LONGEST_WORDS = 300
"""So many characters of an error's message stand in a note."""


class Branch:
    """One of the calls: what is sent to whom, and what became of it."""

    __slots__ = (
        "_accounted",
        "_clock",
        "_first_entry",
        "_started",
        "characters",
        "context",
        "last",
        "provider",
    )

    def __init__(
        self, provider: LLMProvider, context: CallContext, clock: Callable[[], float]
    ) -> None:
        self.provider = provider
        self.context = context
        self.last: StreamChunk | None = None
        """The chunk of its stream that came last."""
        self.characters = 0
        self._accounted = context.accounted  # by a layer further out, if it is now
        self._clock = clock
        self._first_entry = len(context.entries)
        self._started = clock()

    @property
    def is_whole(self) -> bool:
        """Whether its stream's final chunk has come."""
        last = self.last
        return isinstance(last, StreamChunk) and last.is_final

    @property
    def attempts(self) -> int:
        """The entries that were written for it so far."""
        return len(self.context.entries) - self._first_entry

    def see(self, chunk: StreamChunk) -> None:
        """A chunk of its stream has come."""
        self.last = chunk
        self.characters += len(chunk.text) or written_beside_text(chunk)

    def end(
        self,
        request: LLMRequest,
        *,
        answer: LLMResponse | StreamChunk | None = None,
        error: BaseException | None = None,
    ) -> None:
        """It has ended: see to it that it is in the ledger, if its provider keeps none itself."""
        if self.attempts or (self.context.accounted and not self._accounted):
            return
        if isinstance(error, ProviderError) and not error.attempts:
            return  # nothing was sent
        record_attempt(
            self.context,
            request,
            provider=None,
            model=request.model or getattr(self.provider, "default_model", None),
            seconds=self._clock() - self._started,
            answer=self.last if answer is None and self.is_whole else answer,
            error=error,
            characters=self.characters,
        )


def for_another_provider(request: LLMRequest, context: CallContext) -> LLMRequest:
    """The request as another provider gets it, which answers with its own default model.

    `extra_body` and `extra_headers` stay behind: they are in the words of the first one, and a
    header may hold a secret that is for its origin alone.
    """
    return request.replace(context=context, model=None, extra_body={}, extra_headers={})


def note(error: BaseException, text: str) -> None:
    """Add a note, once: the same error may be raised many times."""
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)


def told_failure(provider: LLMProvider, error: AetherError) -> str:
    """Who failed and how, on one line."""
    name = getattr(error, "provider", None) or describe(provider).rpartition(" > ")[2]
    model = getattr(error, "model", None) or getattr(provider, "default_model", None)
    who = name if model is None else f"{name} ({model!r})"
    status = error.status if isinstance(error, ProviderError) else None
    kind = type(error).__name__ if status is None else f"{type(error).__name__} (status {status})"
    words = " ".join(str(error).split())
    if len(words) > LONGEST_WORDS:
        words = f"{words[:LONGEST_WORDS]}..."
    return f"{who}: {kind}: {words}"


async def close_all(providers: Sequence[LLMProvider]) -> None:
    """Close each of them once; one that fails keeps no other open.

    Two stacks around one and the same provider are closed as one.
    """
    seen: set[int] = set()
    closes: list[Callable[[], Awaitable[object]]] = []
    for provider in providers:
        stack = list(layers_of(provider))
        centre = id(stack[-1])
        if id(provider) in seen or (centre in seen and not any(map(_has_others, stack))):
            continue
        seen |= {id(provider), centre}
        close = getattr(provider, "aclose", None)
        if close is not None:
            closes.append(close)
    async with AsyncExitStack() as closing:
        for close in reversed(closes):
            closing.push_async_callback(close)


def _has_others(layer: object) -> bool:
    """Whether it holds providers besides its inner one, which must be closed with it."""
    return bool(getattr(layer, "fallbacks", None) or getattr(layer, "other", None))
