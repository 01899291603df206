"""What is wrong with a reading: the response or the error, beside what the recording expects.

It must not know how the reading was made. A difference is a line; none is a right reading.

`expect` counts tokens with 0 both where a server said 0 and where it said nothing. The server's own
object, `usage_raw`, tells them apart: what it does not name is unknown, and `None`. Only Gemini's
JSON leaves out zeros, so there both are right. Where the reported total is more than input and
output, a field hides a part: audio belongs to the input, the rest to the output.

Where `finish_raw` says that tools are called, and `expect` has no call, the call came in a form
that was given up, such as `function_call`: it may be read or refused, but not lost.
So may a list of answers, which Gemini sends to who asks for a stream without naming its form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from aether.errors import (
    AuthenticationError,
    BadRequestError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from aether.llm.messages import LLMResponse, ToolCall
from tests.recordings.cases import Case
from tests.recordings.reading import Outcome

__all__ = ["response_faults", "whole_faults"]

COUNTS = ("input", "output", "cache_read", "cache_write", "reasoning")

_DELAY = re.compile(r'"retryDelay": *"([0-9.]+)s"')
_NAMES = {
    "cache_read": (
        "cached_tokens",
        "prompt_cache_hit_tokens",
        "cache_read_input_tokens",
        "cachedContentTokenCount",
    ),
    "cache_write": ("cache_write_tokens", "cache_creation_input_tokens"),
    "reasoning": ("reasoning_tokens", "thinking_tokens", "thoughtsTokenCount"),
}
_CLASSES: dict[int, tuple[type[ProviderError], ...]] = {
    400: (BadRequestError,),
    401: (AuthenticationError,),
    402: (QuotaExceededError,),
    403: (PermissionDeniedError,),
    404: (NotFoundError,),
    413: (BadRequestError, ContextLengthError),
    422: (BadRequestError,),
    429: (RateLimitError, QuotaExceededError),
    503: (OverloadedError,),
    529: (OverloadedError,),
}
_SPECIAL: dict[type[ProviderError], tuple[str, ...]] = {
    ContextLengthError: (
        "context length",
        "context_length",
        "exceed_context",
        "prompt too long",
        "too_many_prompt_tokens",
    ),
    AuthenticationError: ("incorrect api key", "api_key_invalid", "invalid_api_key"),
    NotFoundError: ("model_not_found", "model not exist"),
}


def whole_faults(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong where the whole answer was there to be read."""
    faults = list(outcome.faults)
    if not case.ok:
        return faults + _error_faults(case, outcome)
    if _lost_calls(case):
        called = outcome.response is not None and outcome.response.tool_calls
        if outcome.error is None and not called:
            faults.append("the calls of which the finish reason speaks were lost without an error")
        return faults
    if outcome.error is not None:
        if (case.document or "").startswith("["):
            return faults
        return [*faults, f"raised {_shown(outcome.error)}"]
    if outcome.response is not None:
        faults += response_faults(case, outcome.response)
    return faults


def response_faults(
    case: Case, response: LLMResponse, *, counts_may_lack: bool = False, prefix: bool = False
) -> list[str]:
    """Where the response differs from `expect`.

    The end of a stream may hold the counts alone: without it they may be unknown, but never other
    ones. A `prefix` has less text, too.
    """
    expect = case.expect
    faults = []
    if response.text != expect["text"] and not (
        prefix and expect["text"].startswith(response.text)
    ):
        faults.append(_differ("text", response.text, expect["text"]))
    reasoning = response.reasoning or ""
    if reasoning != expect["reasoning_text"]:
        faults.append(_differ("reasoning", reasoning, expect["reasoning_text"]))
    if response.finish_reason_raw != expect["finish_raw"]:
        faults.append(
            _differ("finish_reason_raw", response.finish_reason_raw, expect["finish_raw"])
        )
    if expect.get("model") and response.model != expect["model"]:
        faults.append(_differ("model", response.model, expect["model"]))
    faults += _refusal_faults(expect.get("refusal") or "", response)
    if not (prefix and not response.tool_calls):
        faults += _call_faults(response.tool_calls, expect["tool_calls"])
    if not prefix:
        faults += _usage_faults(case, response, counts_may_lack=counts_may_lack)
    return faults


def _lost_calls(case: Case) -> bool:
    calls = ("tool_calls", "function_call", "tool_use")
    return case.expect["finish_raw"] in calls and not case.expect["tool_calls"]


def _refusal_faults(expected: str, response: LLMResponse) -> list[str]:
    if not expected:
        return []
    faults = []
    if response.finish_reason != "content_filter":
        faults.append(
            _differ("finish_reason of a refusal", response.finish_reason, "content_filter")
        )
    if json.dumps(expected)[1:-1] not in json.dumps(response.message.model_dump(mode="json")):
        faults.append(f"the refusal {expected!r} is nowhere in the message")
    return faults


def _call_faults(calls: list[ToolCall], expected: list[dict[str, Any]]) -> list[str]:
    names = [call.name for call in calls]
    if names != [call["name"] for call in expected]:
        return [_differ("tool calls", names, [call["name"] for call in expected])]
    faults = []
    if len({call.id for call in calls}) < len(calls) or not all(call.id for call in calls):
        faults.append(f"ids of tool calls {[call.id for call in calls]} do not tell them apart")
    for call, wanted in zip(calls, expected, strict=True):
        if wanted["id"] and call.id != wanted["id"]:
            faults.append(_differ(f"id of {call.name}", call.id, wanted["id"]))
        if wanted["arguments"] is None:
            if call.invalid_arguments is None or call.arguments:
                faults.append(f"{call.name} was cut off, but can be run with {call.arguments}")
        elif call.invalid_arguments is not None or call.arguments != wanted["arguments"]:
            found = call.invalid_arguments or call.arguments
            faults.append(_differ(f"arguments of {call.name}", found, wanted["arguments"]))
    return faults


def _usage_faults(case: Case, response: LLMResponse, *, counts_may_lack: bool) -> list[str]:
    expected = _expected_counts(case)
    faults = []
    for name in COUNTS:
        found = getattr(response, f"{name}_tokens")
        allowed = expected[name]
        if found not in allowed and not (counts_may_lack and found is None):
            wanted = " or ".join(map(str, allowed))
            faults.append(f"{name} tokens are {found}, expected {wanted}")
    return faults


def _expected_counts(case: Case) -> dict[str, tuple[int | None, ...]]:
    counts = case.expect.get("usage")
    if not counts:
        return dict.fromkeys(COUNTS, (None,))
    named = dict(_numbers(case.expect.get("usage_raw") or {}))
    expected: dict[str, tuple[int | None, ...]] = {}
    for name in COUNTS:
        count = counts[name]
        if name in _NAMES and not any(spelling in named for spelling in _NAMES[name]):
            may_be_zero = case.protocol == "gemini.generate"
            expected[name] = (None, 0) if may_be_zero else (None,)
        else:
            expected[name] = (count,)
    total = counts.get("total_reported")
    if total is not None and None not in (counts["input"], counts["output"]):
        hidden = total - counts["input"] - counts["output"]
        if hidden > 0:
            name = "input" if hidden == named.get("audio_tokens") else "output"
            expected[name] = (counts[name] + hidden,)
    return expected


def _numbers(value: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _numbers(inner)
        elif isinstance(inner, int):
            yield name, inner


def _error_faults(case: Case, outcome: Outcome) -> list[str]:
    error = outcome.error
    if error is None:
        return [f"no error, but text {outcome.text[:80]!r}"] if outcome.response else []
    chain = [error]
    while isinstance(chain[-1].__cause__, Exception):
        chain.append(chain[-1].__cause__)
    found = next((e for e in reversed(chain) if isinstance(e, ProviderError)), None)
    if found is None:
        return [f"raised {_shown(error)}, which is no ProviderError"]
    words, message = _reported(case)
    faults = []
    if case.status >= 400:
        if found.status != case.status:
            faults.append(_differ("status of the error", found.status, case.status))
        classes = _classes(case.status, " ".join([message, *words]).lower())
        if type(found) not in classes:
            wanted = " or ".join(cls.__name__ for cls in classes)
            faults.append(_differ("error", _shown(found), wanted))
    wait = _wait_asked(case)
    if wait is not None and found.retry_after != wait:
        faults.append(_differ("retry_after", found.retry_after, wait))
    if words and found.kind not in words:
        faults.append(f"kind of the error is {found.kind!r}, expected one of {sorted(words)}")
    start = " ".join(message.split())[:50]
    if start not in " ".join(str(error).split()):
        faults.append(f"the error does not say {start!r}: {error}")
    return faults


def _classes(status: int, said: str) -> tuple[type[ProviderError], ...]:
    if status in (400, 413, 422):
        for special, phrases in _SPECIAL.items():
            if any(phrase in said for phrase in phrases):
                return (special,)
    return _CLASSES.get(status, (ServerError,))


def _wait_asked(case: Case) -> float | None:
    """How many seconds the server asks to wait: in a header, or in Google's details."""
    asked = {name.lower(): value for name, value in case.headers.items()}.get("retry-after", "")
    found = _DELAY.search(case.body)
    if asked.isdecimal():
        return float(asked)
    return float(found[1]) if found else None


def _reported(case: Case) -> tuple[set[str], str]:
    """The server's own words for the kind of error, and its message.

    A body that was not understood stands in `expect` as the message: then it is read here.
    """
    error = case.expect["error"]
    message = error.get("message") or ""
    try:
        body = json.loads(case.body)
    except ValueError:
        body = {}
    body = body[0] if isinstance(body, list) else body
    facts = body.get("error", body)
    facts = facts if isinstance(facts, dict) else {}
    said = [error.get("type"), error.get("code")]
    said += [detail.get("reason") for detail in facts.get("details") or []]
    if message.lstrip().startswith("{"):
        said += [facts.get("status"), facts.get("type")]
        message = facts.get("message") or message
    return {word for word in said if isinstance(word, str)}, message


def _differ(what: str, found: object, expected: object) -> str:
    if isinstance(found, str) and isinstance(expected, str):
        same = 0
        while same < min(len(found), len(expected)) and found[same] == expected[same]:
            same += 1
        start = max(0, same - 20)
        if start or max(len(found), len(expected)) > 100:
            return (
                f"{what} differs at {same}: {found[start : same + 60]!r} of {len(found)}, "
                f"expected {expected[start : same + 60]!r} of {len(expected)}"
            )
    return f"{what} is {found!r}, expected {expected!r}"


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
