"""Refusals: status, headers and bodies of every shape become one tree of errors."""

from __future__ import annotations

import json
import sys
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from aether.extensions.llm._wire.errors import Source, clean, refusal
from aether.extensions.llm._wire.retry_after import parse_retry_after, parse_should_retry


def refused(status: int, body: object = b"", **facts: Any) -> ProviderError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    source = Source("openai", "gpt-x", lambda text: text.replace("sk-secret", "[key]"))
    return refusal(status, raw, source=source, **facts)


def openai(message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **fields}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, openai(), BadRequestError, False),
        (400, openai(code="context_length_exceeded"), ContextLengthError, False),
        (400, openai("prompt is too long: 9 tokens > 8 maximum"), ContextLengthError, False),
        (413, openai("maximum context length is 8"), ContextLengthError, False),
        (400, {"error": {"type": "exceed_context_size_error", "code": 400}}, ContextLengthError, 0),
        (400, openai(code="content_filter"), ContentFilterError, False),
        (
            400,
            openai(innererror={"code": "ResponsibleAIPolicyViolation"}),
            ContentFilterError,
            False,
        ),
        (400, {"code": "x", "error": "Incorrect API key provided"}, AuthenticationError, False),
        (400, {"error": {"details": [{"reason": "API_KEY_INVALID"}]}}, AuthenticationError, False),
        (400, openai(code="model_not_found"), NotFoundError, False),
        (400, openai("Model Not Exist"), NotFoundError, False),
        (400, openai("Your credit balance is too low"), QuotaExceededError, False),
        (401, openai(), AuthenticationError, False),
        (402, openai(), QuotaExceededError, False),
        (403, openai(), PermissionDeniedError, False),
        (404, openai(), NotFoundError, False),
        (405, b"", NotFoundError, False),
        (408, b"", RequestTimeoutError, True),
        (409, b"", BadRequestError, True),
        (410, b"", NotFoundError, False),
        (413, b"", BadRequestError, False),
        (422, {"detail": [{"loc": ["body"], "msg": "extra"}]}, BadRequestError, False),
        (425, b"", BadRequestError, True),
        (429, openai(type="requests", code="rate_limit_exceeded"), RateLimitError, True),
        (429, openai(type="insufficient_quota"), QuotaExceededError, False),
        (429, openai(code="insufficient_quota"), QuotaExceededError, False),
        (500, openai(), ServerError, True),
        (502, b"<html>Bad Gateway</html>", ServerError, True),
        (503, b"", OverloadedError, True),
        (504, b"", ServerError, True),
        (529, b"", OverloadedError, True),
        (500, {"type": "error", "error": {"type": "overloaded_error"}}, OverloadedError, True),
        (204, b"", ProtocolError, False),
        (307, b"", ProtocolError, False),
        (299, b"{}", ProtocolError, False),
    ],
)
def test_a_refusal_becomes_its_error(
    status: int, body: object, kind: type[ProviderError], retryable: bool
) -> None:
    error = refused(status, body)
    assert type(error) is kind
    assert error.retryable is bool(retryable)
    assert error.status == status
    assert (error.provider, error.model) == ("openai", "gpt-x")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "told"}}, "told"),
        ({"error": "told"}, "told"),
        ({"message": "told", "type": "x"}, "told"),
        ({"detail": "told"}, "told"),
        ({"detail": [{"msg": "told"}]}, "told"),
        ([{"error": {"message": "told"}}], "told"),
        ({"error": {"message": {"nested": "told"}}}, "told"),
        ({"error": {"message": "m", "metadata": {"raw": "told"}}}, "m told"),
        (b"told, in plain text", "told"),
        (b"<html>told</html>", "told"),
        (b"\xfftold", "told"),
    ],
)
def test_the_servers_words_are_found_in_any_shape(body: object, message: str) -> None:
    assert message in str(refused(400, body))


def test_the_message_says_who_what_and_what_to_do() -> None:
    error = refused(404, openai("The model `gpt-x` does not exist", code="model_not_found"))
    assert str(error) == (
        "openai (gpt-x) answered 404: The model `gpt-x` does not exist. "
        "Check the model's name and the base URL."
    )
    assert error.kind == "model_not_found"


def test_a_redirect_is_not_followed_and_says_so() -> None:
    assert "Redirects are not followed" in str(refused(302))


@pytest.mark.parametrize("padding", [0, *range(380, 500, 5), 4000, 70_000])
def test_messages_are_short_and_without_the_key(padding: int) -> None:
    for body in (b"x" * padding + b"sk-secret", openai(" " * padding + "x" * 450 + "sk-secret")):
        text = str(refused(400, body))
        assert len(text) <= 500
        assert "sk-s" not in text


def test_control_and_direction_characters_are_escaped() -> None:
    text = str(refused(400, openai("a\x1b[31m\u202eb\r\nc\x00")))
    assert text.isprintable()
    assert "\\x1b[31m\\u202eb c\\x00" in text


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "message",
                    "type",
                    "code",
                    "detail",
                    "details",
                    "status",
                    "metadata",
                    "raw",
                    "innererror",
                    "reason",
                ]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.integers(201, 599), _JSON | st.binary())
def test_any_refusal_is_an_error_of_ours(status: int, body: object) -> None:
    error = refused(status, body)
    assert isinstance(error, ProviderError)
    assert len(str(error)) <= 500
    assert str(error).isprintable()


@given(st.text())
def test_clean_text_is_short_and_printable(text: str) -> None:
    assert clean(text).isprintable()
    assert len(clean(text)) <= 500


def test_the_servers_word_on_trying_again_counts() -> None:
    assert refused(400, should_retry=True).retryable
    assert not refused(503, should_retry=False).retryable
    assert not refused(429, openai(type="insufficient_quota"), should_retry=True).retryable


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "600"}, 600.0),
        ({"retry-after": "1e300"}, 1e300),
        ({"retry-after": "2, 9"}, 9.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, sys.float_info.max),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "\uff13"}, None),
        ({"retry-after": "Wed, 21 Oct 100000 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
    ],
)
def test_the_wait_is_read_in_all_its_spellings(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert parse_retry_after(headers, now=lambda: NOW) == seconds


@given(st.text(), st.text())
def test_any_wait_is_a_finite_number_or_none(first: str, second: str) -> None:
    found = parse_retry_after({"retry-after": first, "retry-after-ms": second}, now=lambda: NOW)
    assert found is None or 0 <= found < float("inf")


@pytest.mark.parametrize(
    ("raw", "word"), [("true", True), ("False", False), ("", None), ("maybe", None)]
)
def test_the_word_on_trying_again_is_read(raw: str, word: bool | None) -> None:
    assert parse_should_retry({"x-should-retry": raw}) is word


def test_a_call_that_the_server_did_not_accept_is_shown() -> None:
    written = '{"name": "ad"}'
    error = refused(400, openai(code="tool_use_failed", failed_generation=written))
    assert isinstance(error, BadRequestError)
    assert error.kind == "tool_use_failed"
    assert written in str(error)
