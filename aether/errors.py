"""The tree of errors: everything that Aether raises on purpose, and nothing else.

It must not know any other module of the package (type hints aside).

    AetherError
    ├── ConfigurationError (ValueError)        a name, key or setting that cannot work
    │   └── UnknownNameError (LookupError)     no such provider, tool, store or transport
    ├── MissingExtraError (ImportError)        an optional dependency is not installed
    ├── ClientClosedError (RuntimeError)       a call on a client that was closed
    ├── InputError (ValueError)                messages, tools or options that no provider can take
    ├── ProviderError                          a call to a provider failed
    │   ├── AuthenticationError                401: the key is wrong
    │   ├── PermissionDeniedError              403: the key may not do this
    │   ├── NotFoundError                      404: no such model or endpoint
    │   ├── BadRequestError                    400, 422...: the request is at fault
    │   │   ├── ContextLengthError             the messages are too long for the model
    │   │   └── ContentFilterError             refused by the provider's content policy
    │   ├── RateLimitError                     429: too many requests for now
    │   ├── QuotaExceededError                 the account has run out; trying again does not help
    │   ├── OverloadedError                    503, 529: the provider has no capacity for now
    │   ├── ServerError                        another 5xx
    │   ├── RequestTimeoutError (TimeoutError) no answer within the time limit
    │   │   └── DeadlineExceededError          the time that the caller gave is over
    │   ├── ProviderConnectionError (ConnectionError)
    │   ├── StreamInterruptedError             a stream broke off after it had begun
    │   └── ProtocolError                      an answer that the protocol does not allow
    ├── CircuitOpenError                       not sent: the provider failed too often just now
    ├── BudgetExceededError                    not sent: a budget does not have that much left
    ├── OutputError                            the answers were not of the type that was asked for
    ├── ToolError                              a tool cannot be registered or run
    │   └── ToolLoopError                      the model kept calling tools
    └── SessionError                           a session cannot do this
        ├── SessionConflictError               somebody else wrote to the session
        └── SessionSaveError                   the answer is there, the store failed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from aether.llm.messages import LLMResponse, Message
    from aether.llm.usage import TokenUsage

__all__ = [
    "AetherError",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "CircuitOpenError",
    "ClientClosedError",
    "ConfigurationError",
    "ContentFilterError",
    "ContextLengthError",
    "DeadlineExceededError",
    "InputError",
    "MissingExtraError",
    "NotFoundError",
    "OutputError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProtocolError",
    "ProviderConnectionError",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitError",
    "RequestTimeoutError",
    "ServerError",
    "SessionConflictError",
    "SessionError",
    "SessionSaveError",
    "StreamInterruptedError",
    "ToolError",
    "ToolLoopError",
    "UnknownNameError",
]


class AetherError(Exception):
    """The root of every error that Aether raises."""


class ConfigurationError(AetherError, ValueError):
    """A setting, key or name that cannot work. The message says what to set."""


class UnknownNameError(ConfigurationError, LookupError):
    """Nothing is registered under this name. The message lists what is."""


class MissingExtraError(AetherError, ImportError):
    """An optional dependency cannot be imported. The message has the command that installs it."""


class ClientClosedError(AetherError, RuntimeError):
    """A call on a client, session or provider after it was closed."""


class InputError(AetherError, ValueError):
    """Messages, tools or options that cannot be sent. Raised before anything is."""


class ProviderError(AetherError):
    """A call to a provider failed.

    `retryable` says whether the same request may succeed when sent again; `retry_after` is in
    seconds, as the server asked for it. `attempts` counts the HTTP requests (or, for a provider
    without HTTP, the calls) that were made for this one call. `partial` is what had arrived of a
    stream before it broke.
    """

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        attempts: int = 1,
        retryable: bool | None = None,
        retry_after: float | None = None,
        partial: LLMResponse | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id
        self.attempts = attempts
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.partial = partial
        self.kind = kind
        """A finer distinction in the server's or the transport's word: `dns`, `tls`, `idle`..."""


class AuthenticationError(ProviderError):
    """The provider does not accept the key (401)."""


class PermissionDeniedError(ProviderError):
    """The key is known but may not do this (403)."""


class NotFoundError(ProviderError):
    """No such model or endpoint (404)."""


class BadRequestError(ProviderError):
    """The provider refuses the request as it is (400, 413, 422...)."""


class ContextLengthError(BadRequestError):
    """The messages are longer than the model's context."""


class ContentFilterError(BadRequestError):
    """The provider refuses the content."""


class RateLimitError(ProviderError):
    """Too many requests or tokens for now (429)."""

    default_retryable = True


class QuotaExceededError(ProviderError):
    """The account's quota or credit is used up. Sending again does not help."""


class OverloadedError(ProviderError):
    """The provider has no capacity for now (503, 529)."""

    default_retryable = True


class ServerError(ProviderError):
    """The provider failed (5xx)."""

    default_retryable = True


class RequestTimeoutError(ProviderError, TimeoutError):
    """No answer within the time limit. The provider may have billed the call all the same."""

    default_retryable = True


class DeadlineExceededError(RequestTimeoutError):
    """The time that the caller gave the call (`timeout=`) is over.

    What was under way was cancelled. `partial` is what had arrived of a stream; `attempts` is how
    many requests were made, 0 if none was.
    """

    default_retryable = False


class ProviderConnectionError(ProviderError, ConnectionError):
    """The connection could not be made, or broke before the answer was complete."""

    default_retryable = True


class StreamInterruptedError(ProviderError):
    """A stream ended before its end mark. `partial` holds what had arrived."""

    default_retryable = True


class ProtocolError(ProviderError):
    """An answer that the provider's protocol does not allow."""


class BudgetExceededError(AetherError):
    """Not sent: the call might use more than a budget has left.

    The figures are those of the budget that refused it, `None` where it has no such limit: what
    was left, calls under way taken off.
    """

    def __init__(
        self,
        message: str,
        *,
        remaining_usd: float | None = None,
        remaining_tokens: int | None = None,
        remaining_requests: int | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(message)
        self.remaining_usd = remaining_usd
        self.remaining_tokens = remaining_tokens
        self.remaining_requests = remaining_requests
        self.provider = provider
        self.model = model


class CircuitOpenError(AetherError):
    """Not sent: this provider failed too often just now. Come back in `retry_after` seconds."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.provider = provider
        self.model = model

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


class OutputError(AetherError):
    """No answer was of the type that was asked for.

    The model was shown what was wrong as often as `output_retries` allows; after an answer that
    was cut off or refused it was not asked again.
    `text` is the last answer and `response` the whole of it; `problems` says what is wrong with
    it. `messages` is the transcript, that answer included, and `usage` is what the run has used.
    """

    def __init__(
        self,
        message: str,
        *,
        response: LLMResponse | None = None,
        problems: Sequence[str] = (),
        messages: Sequence[Message] = (),
        usage: TokenUsage | None = None,
    ) -> None:
        super().__init__(message)
        self.response = response
        self.text = "" if response is None else response.text
        self.problems = list(problems)
        self.messages = list(messages)
        self.usage = usage


class ToolError(AetherError):
    """A tool cannot be registered, described or run."""


class ToolLoopError(ToolError):
    """The model still called tools after the last allowed turn.

    `messages` is the whole transcript, results of the last turn included, so that the run can be
    continued from it; `usage` is what the run has used.
    """

    def __init__(
        self,
        message: str,
        *,
        messages: Sequence[Message] = (),
        usage: TokenUsage | None = None,
    ) -> None:
        super().__init__(message)
        self.messages = list(messages)
        self.usage = usage


class SessionError(AetherError):
    """A session cannot do what was asked."""


class SessionConflictError(SessionError):
    """Another process kept writing to this session. Nothing of this turn was stored.

    `response` is the model's answer to the turn, where there was one.
    """

    def __init__(self, message: str, *, response: LLMResponse | None = None) -> None:
        super().__init__(message)
        self.response = response


class SessionSaveError(SessionError):
    """The model answered, but the store failed. `response` is the answer; history is unchanged."""

    def __init__(self, message: str, *, response: LLMResponse | None = None) -> None:
        super().__init__(message)
        self.response = response


def _rebuild(
    cls: type[AetherError], args: tuple[object, ...], state: dict[str, object]
) -> AetherError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error
