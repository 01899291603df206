"""What a server answers instead of an answer: refusals, failures, and how long to wait."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

ROWS = [
    Row(
        "H1",
        "400, 413 or 422",
        "One attempt and a `BadRequestError`, or a `ContextLengthError` where the body says that "
        "the messages are too long. The circuit breaker takes no notice.",
    ),
    Row(
        "H2",
        "401 or 403",
        "One attempt, and an `AuthenticationError` or a `PermissionDeniedError`. The circuit "
        "breaker takes no notice. A key is a text: there is nothing to fetch a new one from.",
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
        "It is tried again at that time, and not before. Until then every other call of the client "
        "to that endpoint and model waits too; calls to other models and providers do not.",
    ),
    Row(
        "H6",
        "`Retry-After` in any spelling: seconds, milliseconds, any form of date, nonsense",
        "Milliseconds stand above seconds, dates are measured by the server's own clock, and of "
        "several values the longest counts. A time that has passed, or what is no time, is none: "
        "then the usual wait is taken. It is never early.",
    ),
    Row(
        "H7",
        "`Retry-After` beyond two minutes, or beyond the call's deadline",
        "The error is raised at once and carries `retry_after`. Further calls to that model fail "
        "in the same way, without a request, while they would have to wait as long as that; with "
        "less left they wait. After an hour they are sent, whatever was asked for.",
    ),
    Row(
        "H8",
        "429 without a time",
        "Three attempts, after random waits between 0 and 0.5 s, and 0 and 1 s.",
    ),
    Row(
        "H9",
        "429 because the account's quota or credit is used up",
        "One attempt and a `QuotaExceededError`: trying again would not help.",
    ),
    Row(
        "H10",
        "500, 502, 503 or 504",
        "Three attempts; a time that the server names is waited for.",
    ),
    Row(
        "H11",
        "529, or an overload in the body of any status, 200 included",
        "Three attempts and an `OverloadedError` (a `ServerError` where the protocol has no word "
        "for it), which the circuit breaker counts.",
    ),
    Row(
        "H12",
        "`x-should-retry` says otherwise than the status",
        "The header counts, but for an exhausted quota and a wait that is too long.",
    ),
    Row(
        "H13",
        "The body of an error is a page, noise, 10 MB long, without an end, or never comes",
        "The status decides. At most 64 KiB are read, for at most 2 s; the message has at most 500 "
        "characters, and the key is taken out of it.",
    ),
    Row(
        "H14",
        "The JSON of an error has any other shape, or characters that turn or hide text",
        "An error of the tree all the same, on one line; what cannot be printed is escaped.",
    ),
    Row(
        "H15",
        "An answer after one or two failures",
        "It is the answer; its `attempts`, also in the event, say how many requests were made.",
    ),
    Row(
        "H16",
        "Every call fails",
        "The circuit breaker opens after five failed calls. Without it n calls are at most n + 20 "
        "requests: the budget for retries is 20, and earns one for each ten calls that succeed. "
        "Agents and tools around a call add no retries of their own.",
    ),
    Row(
        "H17",
        "The caller changes messages or options between two attempts",
        "Every attempt of a call sends the same bytes as the first.",
    ),
    Row(
        "H18",
        "The answer names another model than was asked for",
        "It is priced as that model; the ledger and the events have both names.",
    ),
]
