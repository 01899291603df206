"""Fallback: where a provider cannot answer, another one is asked.

It must not know a provider's protocol, nor how often a call was tried: it asks the error's class.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from aether.errors import (
    AetherError,
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    ProviderError,
    StreamInterruptedError,
)
from aether.extensions.llm._blame import speaks_against_provider
from aether.extensions.llm._branches import (
    Branch,
    close_all,
    for_another_provider,
    note,
    told_failure,
)
from aether.extensions.llm._seam import Beginning
from aether.llm.contracts import LLMProvider
from aether.llm.failures import broken_stream, check_response, translate
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk
from aether.llm.policies import AfterContent, Fallbacks
from aether.llm.streaming import open_stream
from aether.llm.wrapper import ProviderWrapper, with_context

__all__ = ["FallbackProvider"]

_log = logging.getLogger("aether.llm")


class FallbackProvider(ProviderWrapper):
    """Asks `inner`, and where it cannot answer each of `fallbacks`, in their order.

    The next one is asked after an error that speaks against a provider or the state of its account:
    connection, timeout, overload, 5xx, a rate limit, an exhausted quota, an open circuit, an answer
    that the protocol does not allow, a stream that broke off, an exception that nobody has
    foreseen. What is the caller's own matter is raised at once, as it is: a request that is refused
    (400, its content, its length), a wrong key, no permission, no such model, `InputError`,
    `ConfigurationError`, `BudgetExceededError`, a deadline that has come, a closed client; and a
    cancellation. `on`, if given, says for each other error than the last three whether the next
    one is asked, in place of this rule. It gets the error as an `AetherError`.

    A fallback gets the same messages and options, but for `model` (it answers with its own default
    model) and for `extra_body` and `extra_headers`, which were meant for the first provider. It has
    a context of its own (`CallContext.branch`), whose attempts are appended to the call's, in
    order, when it has ended, however it ends. `attempts` of the response and of the error counts
    all of them; `provider` and `model` of the response say who answered.

    If the last one fails too, its error is raised, with notes that say how each before it failed.

    A stream falls back in silence until it has content (text, reasoning, a piece of a tool call).
    `after_content` says what happens to one that breaks off later:

    - `raise`: the caller gets the error, whose `partial` is what had come;
    - `restart`: the next one is asked, and when it has content, there is first a chunk whose
      `restart` is true, and then its whole answer;
    - `continue`: the next one whose model is known to go on with an answer that was begun (its
      profile's `prefill`) gets the part as the beginning of the answer, and the deltas go on. The
      final response has the whole text, and the tokens of the last call: those of the first are in
      the ledger. An answer with a schema, with a forced tool or of which a tool call or nothing but
      reasoning has come is not continued. Where nobody can go on, it is as with `raise`.

    One of the providers may fall back itself, and begin its answer anew: then its own part alone is
    void, and the chunk that says so has as its text what the provider was to go on with.

    If no other can take over, the error is that of the last one, if it is a provider's, else that
    of the stream that broke; its `partial` is what the reader has got.

    `aclose` closes all of the providers. `clock` is monotonic, in seconds, as is the deadline.
    """

    def __init__(
        self,
        inner: LLMProvider,
        fallbacks: Sequence[LLMProvider],
        *,
        after_content: AfterContent = "raise",
        on: Callable[[AetherError], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self.fallbacks = _providers(Fallbacks(fallbacks, after_content, on).targets)
        self._after_content: AfterContent = after_content
        self._on = speaks_against_provider if on is None else on
        self._clock = clock

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        call = self._begin(request)
        while True:
            call.ask_next()
            try:
                response = await call.branch.provider.complete(call.sent)
                check_response(response, call.sent)
            except BaseException as error:
                call.end(error=error)
                if not isinstance(error, Exception):
                    raise
                if not call.passes_on(error):
                    raise call.final(error)  # noqa: B904 - it has its cause
            else:
                told = call.told(response)
                call.end(answer=response)
                return told

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        call = self._begin(request)
        try:
            while True:
                call.ask_next()
                try:
                    async with open_stream(call.branch.provider, call.sent) as chunks:
                        async for chunk in chunks:
                            if call.broken is not None and call.must_restart(chunk):
                                yield StreamChunk(restart=True)
                            yield call.passed_on(chunk)
                    call.check_ended()
                except BaseException as error:
                    call.end(error=error)
                    if call.branch.is_whole or not isinstance(error, Exception):
                        raise
                    if not call.passes_on(error):
                        raise call.final(error)  # noqa: B904 - it has its cause
                else:
                    call.end()
                    return
        finally:
            call.broken = None  # it holds this frame, and the frame it

    def settings(self) -> str:
        rule = "" if self._on is speaks_against_provider else "; a rule of its own"
        return f"after content: {self._after_content}{rule}"

    async def aclose(self) -> None:
        await close_all((self.inner, *self.fallbacks))

    def _begin(self, request: LLMRequest) -> _Call:
        return _Call(
            request, (self.inner, *self.fallbacks), self._after_content, self._on, self._clock
        )


class _Call:
    """One call on its way from one provider to the next."""

    def __init__(
        self,
        request: LLMRequest,
        providers: Sequence[LLMProvider],
        after_content: AfterContent,
        on: Callable[[AetherError], bool],
        clock: Callable[[], float],
    ) -> None:
        self.sent, self._context = with_context(request)
        self._request = self.sent
        self._reservation = self._context.reservation  # an inner layer puts its own in its place
        self._first_entry = len(self._context.entries)
        self._providers = providers
        self._place = 0
        self._after_content: AfterContent = after_content
        self._on = on
        self._clock = clock
        self._failures: list[str] = []
        self._stopped = ""
        """Why no other provider was asked that might have been."""
        self.branch: Branch
        self._shown = Beginning()
        """What the reader has got of the answer."""
        self._resumed = False
        """Whether what is coming goes on with what another provider has begun."""
        self.broken: AetherError | None = None
        """How the stream broke off of which the reader has a part, until another takes over."""
        self._broken_place = 0
        """At which place the failure of that one stands among the failures."""

    def ask_next(self) -> None:
        """Make the call of the provider whose turn it is."""
        provider = self._providers[self._place]
        context = self._context
        if self._place:
            context = context.branch()
            context.reservation = self._reservation
            self.sent = for_another_provider(self._request, context)
            if self._shown and self._after_content == "continue":
                self._resumed = True
                self.sent = self._shown.as_part_of(self.sent)
        self.branch = Branch(provider, context, self._clock)

    def end(self, *, answer: LLMResponse | None = None, error: BaseException | None = None) -> None:
        """The call of that provider has ended. The first one's stands in the caller's context."""
        if self._place:
            self.branch.end(self.sent, answer=answer, error=error)
            self._context.entries += self.branch.context.entries

    def told(self, response: LLMResponse) -> LLMResponse:
        """The response that the caller gets, with the attempts of those who were asked before: of
        the ledger, in which those of its own call are when that has ended.
        """
        before = self._attempts() if self._place else 0
        if not before:
            return response
        return response.model_copy(update={"attempts": before + response.attempts})

    def must_restart(self, chunk: StreamChunk) -> bool:
        """Whether the reader must be told that the answer begins anew with this chunk."""
        if self._after_content != "restart" or not (chunk.has_content or chunk.is_final):
            return False
        self.broken = None
        self._shown = Beginning()
        return True

    def passed_on(self, chunk: StreamChunk) -> StreamChunk:
        """The chunk as the reader gets it."""
        if chunk.response is not None:
            check_response(chunk.response, self.sent)
        self.branch.see(chunk)
        # The provider may fall back itself: its answer begins anew, but not what it goes on with.
        kept = self._shown.begin_anew() if chunk.restart else None
        if self._resumed:
            chunk = self._shown.joined(chunk)
            if chunk.has_content or chunk.is_final:
                self.broken = None
        elif chunk.has_content:
            self._shown.add(chunk)
        if kept is not None and kept.has_content:
            reasoning = f"{kept.reasoning or ''}{chunk.reasoning or ''}" or None
            chunk = dataclasses.replace(chunk, text=kept.text + chunk.text, reasoning=reasoning)
        told = None if chunk.response is None else self.told(chunk.response)
        return chunk if told is chunk.response else dataclasses.replace(chunk, response=told)

    def check_ended(self) -> None:
        if not self.branch.is_whole:
            raise StreamInterruptedError(
                "The provider's stream ended without its final chunk: the answer is not complete.",
                model=self._model(),
                kind="truncated",
            )

    def passes_on(self, raised: Exception) -> bool:
        """Whether another provider is to be asked now. It is the next one's turn then."""
        judged = self._translated(raised)
        following = self._following(judged)
        if following is None:
            return False
        if not self._place:
            self.branch.end(self.sent, error=raised)
        self._context.accounted = True
        if self._shown and self.broken is None:
            self.broken = self._with_partial(judged)
            self._broken_place = len(self._failures)
        self._failures.append(told_failure(self.branch.provider, judged))
        _log.info("another provider is asked, after %s", type(judged).__name__)
        self._place = following
        return True

    def final(self, raised: Exception) -> AetherError:
        """The error that the caller gets, which tells of the providers before."""
        error = self._with_partial(self._translated(raised))
        failures = self._failures.copy()
        broken = self.broken
        if broken is not None and not isinstance(error, ProviderError):
            failures[self._broken_place :] = failures[self._broken_place + 1 :]
            failures.append(told_failure(self.branch.provider, error))
            note(broken, f"No other could answer: {'; '.join(failures)}")
            error = broken
        elif failures:
            note(error, f"Asked before, and failed: {'; '.join(failures)}")
        if self._stopped:
            note(error, f"No other provider was asked: {self._stopped}.")
        if isinstance(error, ProviderError) and self._place:
            error.attempts = self._attempts()
        return error

    def _translated(self, raised: Exception) -> AetherError:
        return translate(raised, model=self._model())

    def _model(self) -> str | None:
        """Of the provider whose turn it is."""
        model: str | None = getattr(self.branch.provider, "default_model", None)
        return self.sent.model or model

    def _following(self, error: AetherError) -> int | None:
        """Who is asked next, if anybody."""
        if isinstance(error, DeadlineExceededError | ClientClosedError):
            return None
        if self._shown and self._after_content == "raise":
            return None
        if not self._on(error):
            return None
        place = self._place + 1
        if self._shown and self._after_content == "continue":
            if not self._shown.can_be_continued(self._request):
                return None
            while place < len(self._providers) and not _goes_on(self._providers[place]):
                place += 1
        if place == len(self._providers):
            return None
        deadline = self._context.deadline
        if deadline is not None and self._clock() >= deadline:
            self._stopped = "the call's deadline has come"
        elif self._reservation is not None and not self._reservation.extend():
            self._stopped = "a budget does not have enough left for it"
        else:
            return place
        return None

    def _with_partial(self, error: AetherError) -> AetherError:
        """The error of a stream with what the reader has got, which may be of several answers."""
        if not self._shown:
            return error
        error = broken_stream(error, self._shown.text, model=self._model())
        broken = self.broken
        if isinstance(error, ProviderError) and (self._resumed or broken is not None):
            known = broken.partial if isinstance(broken, ProviderError) else error.partial
            error.partial = self._shown.as_response(known, model=self._model() or "")
        return error

    def _attempts(self) -> int:
        return len(self._context.entries) - self._first_entry


def _goes_on(provider: LLMProvider) -> bool:
    """Whether its model goes on with an answer that was begun."""
    from aether.llm.profiles import profile_for

    model = getattr(provider, "default_model", None)
    return isinstance(model, str) and profile_for(model).prefill is True


def _providers(targets: Sequence[str | LLMProvider]) -> tuple[LLMProvider, ...]:
    providers: list[LLMProvider] = []
    for target in targets:
        if isinstance(target, str):
            raise ConfigurationError(
                f"FallbackProvider takes providers, not names such as {target!r}: give those to "
                "Aether(fallbacks=[...]), which builds them."
            )
        providers.append(target)
    return tuple(providers)
