"""One HTTP attempt in the ledger of its call, settled on every way out.

It must not know a protocol, nor how tokens are counted where a provider does not tell.
"""

from __future__ import annotations

from typing import Protocol

from aether.errors import AetherError, InputError, ProviderError, StreamInterruptedError
from aether.extensions.llm._wire.errors import Source
from aether.llm.accounting import settle_answer, settle_failure
from aether.llm.failures import translate
from aether.llm.messages import LLMRequest, LLMResponse

__all__ = ["Attempt"]


class _Assembly(Protocol):
    """A streamed answer as far as it has come."""

    @property
    def characters(self) -> int: ...

    def partial(self) -> LLMResponse: ...


class Attempt:
    """To be made before anything is sent, and told how it ended: `answered` or `failed`.

    A request without a context has no ledger, and then this does nothing.
    """

    accepted = False
    """Whether the server has begun to answer, with a status of success: what it does not say then
    may have been billed."""
    _assembly: _Assembly | None = None

    def __init__(self, request: LLMRequest, source: Source) -> None:
        context = request.context
        self._request = request
        self._entry = (
            None
            if context is None
            else context.open_entry(provider=source.provider, model=source.model)
        )

    def watch(self, assembly: _Assembly) -> None:
        """Where to look, if the attempt ends early, for what had come and its characters. The
        server has begun to answer.
        """
        self.accepted = True
        self._assembly = assembly

    def answered(self, response: LLMResponse) -> None:
        """The answer is whole."""
        if self._entry is not None:
            settle_answer(self._entry, response, self._request)

    def failed(self, error: BaseException) -> None:
        """It ended with this error, if it had not been answered."""
        entry = self._entry
        if entry is None or entry.state != "pending":
            return
        if isinstance(error, InputError):
            error = translate(error)  # it may be the answer that does not fit
        if isinstance(error, ProviderError):
            entry.request_id = error.request_id
        elif isinstance(error, AetherError) and not self.accepted:
            entry.error = type(error).__name__  # nothing was sent
            entry.state = "not_billed"
            return
        assembly = self._assembly
        judged: BaseException | None = error
        if isinstance(error, StreamInterruptedError) and error.__cause__ is not None:
            judged = error.__cause__  # what broke it off: it may be a refusal of a later part
        settle_failure(
            entry,
            judged,
            self._request,
            characters=0 if assembly is None else assembly.characters,
            partial=self._partial(error),
            accepted=self.accepted,
        )
        entry.error = type(error).__name__

    def _partial(self, error: BaseException) -> LLMResponse | None:
        """What had come. A stream's error may hold what came before this attempt, too."""
        if self._assembly is not None:
            return self._assembly.partial()
        if self.accepted and isinstance(error, ProviderError):
            return error.partial
        return None
