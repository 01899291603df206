"""The network: connections that cannot be made, break, stall, or are not what they seem."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "N1",
        "Nobody listens",
        "Three attempts, then a `ProviderConnectionError` of the kind `connect`. Nothing was "
        "billed, and the circuit breaker counts one failure.",
    ),
    Row(
        "N2",
        "The host's name has no address",
        "As N1, with the kind `dns`. The message names the host.",
    ),
    Row(
        "N3",
        "The server is silent in TLS, speaks none, or has a certificate that nobody trusts",
        "A refused certificate is not tried again; the rest is, within the limit for connecting. "
        "Nothing was billed.",
    ),
    Row(
        "N4",
        "The connection breaks before the answer",
        "The same bytes are sent again over another connection, and no tool is run again. The "
        "broken attempt may have been billed: `unknown`.",
    ),
    Row(
        "N5",
        "The server has closed a kept connection, or has said something unasked on it",
        "It is seen before anything is sent, and replaced without an attempt or a ledger entry. "
        "What was sent is never sent again by the transport.",
    ),
    Row(
        "N6",
        "No answer begins",
        "A `RequestTimeoutError` after the read limit; the call's deadline holds over all "
        "attempts together. The attempt is `unknown`.",
    ),
    Row(
        "N7",
        "The head or the body of an answer drips",
        "Each byte restarts the read limit. The total limit and the deadline do not move.",
    ),
    Row(
        "N8",
        "A body is shorter than its length says",
        "It is asked for again, and its attempt is `unknown`. After the last attempt it is a "
        "`ProviderConnectionError`.",
    ),
    Row(
        "N9",
        "A stream is reset after any number of events, or its reader leaves it",
        "Before the first content it is begun again; after it, `StreamInterruptedError` has what "
        "was handed out, and no tool is run. A stream that is left closes its connection at once.",
    ),
    Row(
        "N10",
        "A connection ends without the end of the body",
        "As N9. An answer is whole if the server has said why it stopped and no event was under "
        "way (Anthropic's: if its last event has come).",
    ),
    Row(
        "N11",
        "The peer is gone without a word, in the middle of a stream",
        "After the read limit, in which any byte counts, the connection is closed. Then as N9, "
        "with the kind `read`.",
    ),
    Row(
        "N12",
        "A stream sends comments for ever, and no event",
        "It is given up after ten minutes without an event, or the read limit if that is longer. "
        "Then as N9, with the kind `idle`.",
    ),
    Row(
        "N13",
        "An answer comes byte by byte",
        "It is the same answer, and the work grows as its length. However many chunks come at "
        "once, the rest of the loop has its turns.",
    ),
    Row(
        "N14",
        "A reader is slower than the server",
        "The server is held back. Less than 1 MiB is kept for each stream.",
    ),
    Row(
        "N15",
        "An answer is compressed, which nobody has asked for",
        "gzip and deflate are undone piece by piece, up to 64 MiB (16 MiB for an event). Beyond "
        "that, and for other codings, it is a `ProtocolError`.",
    ),
    Row(
        "N16",
        "Headers, trailers or other parts of HTTP without end",
        "A `ProtocolError`, and less than 10 MiB of memory. What a library reads and throws away "
        "ends at the total limit.",
    ),
    Row(
        "N17",
        "A redirect",
        "It is not followed, and the key goes nowhere. The `ProtocolError` speaks of the base URL.",
    ),
    Row(
        "N18",
        "More calls at once than there may be connections",
        "With `max_connections` they wait their turn within their total limit, and none is lost. "
        "Without it a process that runs out of files is told of it.",
    ),
    Row(
        "N19",
        "The clock on the wall jumps, or the machine sleeps",
        "Limits are measured by the monotonic clock, so a jump changes nothing. A stream during "
        "which time went by is given up as in N11.",
    ),
    Row(
        "N20",
        "Proxies in the environment, right or wrong",
        "They are used, and get their password but, over TLS, no key. A wrong one is an error "
        "that does not show the password, but for hosts that `NO_PROXY` exempts.",
    ),
]
