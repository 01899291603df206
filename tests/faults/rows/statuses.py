"""What a server answers instead of an answer: refusals, failures, and how long to wait."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "H1",
        "400, 413 or 422",
        "One attempt and a `BadRequestError`, or a `ContextLengthError` where the body says so. "
        "The circuit breaker takes no notice.",
    ),
    Row(
        "H2",
        "401 or 403",
        "One attempt, and an `AuthenticationError` or a `PermissionDeniedError`. A key is a text, "
        "so no new one is fetched.",
    ),
    Row(
        "H3",
        "404, 405 or 410",
        "One attempt and a `NotFoundError`, which names the model.",
    ),
    Row(
        "H4",
        "408, 409 or 425",
        "Three attempts. For the circuit breaker a 408 is a failure, the others are not.",
    ),
    Row(
        "H5",
        "429 with a time in `Retry-After`",
        "It is tried again at that time, and not before. Other calls of the client to that "
        "endpoint and model wait too.",
    ),
    Row(
        "H6",
        "`Retry-After` in any spelling: seconds, milliseconds, any form of date, nonsense",
        "Milliseconds stand above seconds, dates go by the server's clock, and the longest of "
        "several counts. What is no time, or has passed, is none.",
    ),
    Row(
        "H7",
        "`Retry-After` beyond two minutes, or beyond the call's deadline",
        "The error is raised at once and carries `retry_after`. Further calls to that model fail "
        "likewise, without a request, for at most an hour.",
    ),
    Row(
        "H8",
        "429 without a time",
        "Three attempts, after random waits of up to 0.5 s and 1 s.",
    ),
    Row(
        "H9",
        "429 because the account's quota or credit is used up",
        "One attempt and a `QuotaExceededError`.",
    ),
    Row(
        "H10",
        "500, 502, 503 or 504",
        "Three attempts. A time that the server names is waited for.",
    ),
    Row(
        "H11",
        "529, or an overload in the body of any status, 200 included",
        "Three attempts and an `OverloadedError` (a `ServerError` where the protocol has no word "
        "for it). The circuit breaker counts it.",
    ),
    Row(
        "H12",
        "`x-should-retry` says otherwise than the status",
        "The header counts, but for an exhausted quota and a wait that is too long.",
    ),
    Row(
        "H13",
        "The body of an error is a page, noise, 10 MB long, without an end, or never comes",
        "The status decides; at most 64 KiB are read, for at most 2 s. The message has at most "
        "500 characters, and no key.",
    ),
    Row(
        "H14",
        "The JSON of an error has any other shape, or characters that turn or hide text",
        "An error of the tree all the same, on one line. What cannot be printed is escaped.",
    ),
    Row(
        "H15",
        "An answer after one or two failures",
        "It is the answer. Its `attempts`, also in the event, say how many requests were made.",
    ),
    Row(
        "H16",
        "Every call fails",
        "The circuit breaker opens after five failed calls; without it n calls are at most n + 20 "
        "requests. Agents and tools around a call add no retries.",
    ),
    Row(
        "H17",
        "The caller changes messages or options between two attempts",
        "Every attempt of a call sends the same bytes as the first.",
    ),
    Row(
        "H18",
        "The answer names another model than was asked for",
        "It is priced as that model. The ledger and the events have both names.",
    ),
]
