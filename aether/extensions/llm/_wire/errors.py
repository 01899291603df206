"""Errors as providers write them: from a status and a body, of any shape, to the tree of errors.

It must not know HTTP, nor one provider's protocol: their words are told apart in one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import from_json

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)

__all__ = ["MAX_MESSAGE", "Source", "clean", "refusal", "reported_error"]

MAX_MESSAGE = 500
"""Characters of an error's message."""

E = TypeVar("E", bound=ProviderError)


@dataclass(slots=True)
class Source:
    """Whom one call is made to: what each of its errors carries."""

    provider: str
    model: str
    redact: Callable[[str], str]
    """Takes the key out of a text."""
    request_id: str | None = None
    """Known once the answer has begun."""
    host: str | None = None
    """Where the provider's name does not say which server it is: the one that its state is for."""

    def error(self, error_class: type[E], message: str, /, **facts: Any) -> E:
        """An error of this call. The message loses the key, control characters and its excess."""
        return error_class(
            clean(self.redact(message)),
            provider=self.provider,
            model=self.model,
            request_id=self.request_id,
            **facts,
        )

    def sign(self, error: ProviderError) -> None:
        """Fill in what a transport could not know, and take out the key, which it may have been
        told in an answer's head.
        """
        error.args = tuple(self.redact(str(each)) for each in error.args)
        error.provider = error.provider or self.provider
        error.model = error.model or self.model
        error.request_id = error.request_id or self.request_id


@dataclass(slots=True)
class _Report:
    """What an error object says, whatever its shape."""

    message: str
    words: frozenset[str]
    """Its types, codes and reasons, in lower case."""
    code: str | None
    """The most telling of them, as it was written."""
    status: int | None
    retry_after: float | None = None
    """In seconds, where the body says it."""


_QUOTA = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "insufficient_credits",
    "quota_per_day",  # Google's: it comes again, but not soon
}
_QUOTA_PHRASES = ("credit balance", "credits are depleted")
_DURATION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?s")
_CONTEXT = {"context_length_exceeded", "exceed_context_size_error", "too_many_prompt_tokens"}
_CONTEXT_PHRASES = (
    "maximum context length",
    "max context length",
    "prompt is too long",
    "prompt too long",
    "total length of all messages is too long",
    "exceeds the maximum number of tokens",
    "exceed context limit",
)
_FILTER = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "bio_policy",
    "misalignment_policy_violation",
    "image_content_policy_violation",
}
_KEY = {"invalid_api_key", "api_key_invalid"}
_KEY_PHRASES = ("incorrect api key", "invalid api key", "api key not valid")
_MODEL = {"model_not_found"}
_MODEL_PHRASES = ("model not exist",)

_STATUS_OF_WORD = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "invalid_argument": 400,
    "failed_precondition": 400,
    "authentication_error": 401,
    "unauthenticated": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "server_error": 500,
    "vector_store_timeout": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "internal": 500,
    "unavailable": 503,
    "timeout_error": 504,
    "deadline_exceeded": 504,
    "overloaded_error": 529,
}
"""For an error inside an answer of status 200."""

_ADVICE: dict[type[ProviderError], str] = {
    AuthenticationError: "Check the API key.",
    PermissionDeniedError: "The key may not do this: check its rights and its region.",
    NotFoundError: "Check the model's name and the base URL.",
    ContextLengthError: "Shorten the messages, or choose a model with a longer context.",
    ContentFilterError: "The provider's content policy refused it.",
    QuotaExceededError: "Check the account's plan and billing; trying again does not help.",
}


def refusal(
    status: int,
    body: bytes,
    *,
    source: Source,
    retry_after: float | None = None,
    should_retry: bool | None = None,
) -> ProviderError:
    """The error that an answer of a status other than 200 stands for.

    The status decides where the body says nothing that is known. `should_retry` is the server's
    own word on it; an exhausted quota is never tried again.
    """
    text = body.decode("utf-8", "replace")
    report = _read(text)
    report.status = status
    if status < 400:
        where = " Redirects are not followed: check the base URL." if 300 <= status < 400 else ""
        return source.error(
            ProtocolError, f"{source.provider} answered with status {status}.{where}", status=status
        )
    return _build(report, source, retry_after=retry_after, should_retry=should_retry)


def reported_error(value: object, *, source: Source) -> ProviderError:
    """The error that stands inside an answer of status 200, as decoded JSON.

    It is classed by the status that it names, else by its type. One that names neither is not
    tried again.
    """
    report = _understand(value)
    if report.status is None:
        statuses = sorted(_STATUS_OF_WORD[word] for word in report.words if word in _STATUS_OF_WORD)
        if statuses:
            report.status = statuses[-1]
    return _build(report, source)


def clean(text: str) -> str:
    """On one line, without control characters, at most `MAX_MESSAGE` characters long."""
    text = " ".join(text[: 8 * MAX_MESSAGE].split())
    if len(text) > MAX_MESSAGE:
        text = text[: MAX_MESSAGE - 3] + "..."
    if text.isprintable():
        return text
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return escaped[:MAX_MESSAGE]


def _build(
    report: _Report,
    source: Source,
    *,
    retry_after: float | None = None,
    should_retry: bool | None = None,
) -> ProviderError:
    error_class, retryable = _classify(report)
    if should_retry is not None and error_class is not QuotaExceededError:
        retryable = should_retry
    answered = "reported an error" if report.status is None else f"answered {report.status}"
    subject = f"{source.provider} ({source.model}) {answered}"
    advice = _ADVICE.get(error_class, "")
    wait = report.retry_after if retry_after is None else retry_after
    if wait is not None:
        advice = f"{advice} It asks to wait {wait:g} s.".lstrip()
    said = clean(source.redact(report.message))
    room = MAX_MESSAGE - len(subject) - len(advice) - len(": ... ")
    if len(said) > room:
        said = said[: max(room, 0)] + "..."
    elif said and said[-1].isalnum():
        said += "."
    return source.error(
        error_class,
        f"{subject}: {said} {advice}" if said else f"{subject}. {advice}",
        status=report.status,
        retryable=retryable,
        retry_after=wait,
        kind=None if report.code is None else clean(source.redact(report.code)),
    )


def _classify(report: _Report) -> tuple[type[ProviderError], bool | None]:
    """The class, and whether to try again where that is not the class's default."""
    status, words, message = report.status, report.words, report.message.lower()
    if status == 402 or words & _QUOTA or any(phrase in message for phrase in _QUOTA_PHRASES):
        return QuotaExceededError, None
    if status == 529 or "overloaded_error" in words:
        return OverloadedError, None
    if words & _CONTEXT or (
        status in (400, 413, 422) and any(phrase in message for phrase in _CONTEXT_PHRASES)
    ):
        return ContextLengthError, None
    if words & _FILTER:
        return ContentFilterError, None
    if status is None:
        return ServerError, False
    if status == 401 or (
        status == 400 and (words & _KEY or any(phrase in message for phrase in _KEY_PHRASES))
    ):
        return AuthenticationError, None
    if status == 403:
        return PermissionDeniedError, None
    if status in (404, 405, 410) or (
        status == 400 and (words & _MODEL or any(phrase in message for phrase in _MODEL_PHRASES))
    ):
        return NotFoundError, None
    if status == 408:
        return RequestTimeoutError, None
    if status == 429:
        return RateLimitError, None
    if status == 503:
        return OverloadedError, None
    if status >= 500:
        return ServerError, None
    return BadRequestError, status in (409, 425)


def _read(text: str) -> _Report:
    try:
        value = from_json(text)
    except ValueError:  # HTML, plain text, or nothing
        return _Report(text, frozenset(), None, None)
    return _understand(value)


def _understand(value: object) -> _Report:
    """Find the message and the words in any of the shapes that were seen.

    `{error: {message, type, code}}`, `{error: "text", code}`, `{message, type, code}`,
    `{detail: "text" or list}`, a list of the first, or bare text.
    """
    if isinstance(value, list) and value:
        value = value[0]
    outer = value if isinstance(value, dict) else {}
    inner = outer.get("error", value)
    facts = inner if isinstance(inner, dict) else outer
    message = inner if isinstance(inner, str) else _message(facts)
    metadata = facts.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("raw"), str):
        message = f"{message} {metadata['raw']}"  # a router's: what the host behind it said
    if isinstance(facts.get("failed_generation"), str):  # Groq's: a call that it did not accept
        message = f"{message} The model wrote: {facts['failed_generation']}"
    words = [word for found in (outer, facts) for word in _words(found)]
    telling = [facts.get("code"), facts.get("type"), facts.get("status")]
    code = next((word for word in telling if isinstance(word, str) and word), None)
    return _Report(message, frozenset(words), code, _status(outer, facts), _retry_delay(facts))


def _message(facts: dict[str, Any]) -> str:
    for name in ("message", "detail", "error"):
        found = facts.get(name)
        if isinstance(found, str) and found:
            return found
    for name in ("message", "detail", "errors"):
        if facts.get(name):
            return str(facts[name])
    return ""


def _words(facts: dict[str, Any]) -> Iterator[str]:
    for name in ("type", "code", "status", "reason"):
        word = facts.get(name)
        if isinstance(word, str):
            yield word.lower()
    cause = facts.get("innererror")  # Azure's
    if isinstance(cause, dict) and isinstance(cause.get("code"), str):
        yield cause["code"].lower()
    for detail in _details(facts):
        if isinstance(detail.get("reason"), str):
            yield detail["reason"].lower()
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            quota = violation.get("quotaId") if isinstance(violation, dict) else None
            if isinstance(quota, str) and "PerDay" in quota:
                yield "quota_per_day"


def _details(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Google's `google.rpc` objects: ErrorInfo, QuotaFailure, RetryInfo and others."""
    details = facts.get("details")
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, dict))


def _retry_delay(facts: dict[str, Any]) -> float | None:
    for detail in _details(facts):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and _DURATION.fullmatch(delay):
            return float(delay[:-1])
    return None


def _status(outer: dict[str, Any], facts: dict[str, Any]) -> int | None:
    for found in (facts, outer):
        for name in ("status_code", "raw_status_code", "code", "status"):
            status = found.get(name)
            if isinstance(status, str) and status.isascii() and status.isdecimal():
                status = int(status[:4])
            if type(status) is int and 400 <= status <= 599:
                return status
    return None
