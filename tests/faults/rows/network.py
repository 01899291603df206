"""The network: connections that cannot be made, break, stall, or are not what they seem."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

ROWS = [
    Row(
        "N1",
        "Nobody listens",
        "Three attempts, then a `ProviderConnectionError` (`kind` is `connect`). Nothing was "
        "billed, and for the circuit breaker it is one failure.",
    ),
    Row(
        "N2",
        "The host's name has no address",
        "The same, with `kind` `dns`; the message names the host.",
    ),
    Row(
        "N3",
        "The server says nothing in TLS, speaks no TLS, or its certificate is refused",
        "A handshake must be over within the limit for connecting. A refused certificate is not "
        "tried again; all else that goes wrong in TLS is. Nothing was billed.",
    ),
    Row(
        "N4",
        "The connection is reset or closed before the answer",
        "The same request, byte for byte, is sent again over another connection. Tools that have "
        "run are not run again. The attempt may have been billed: the ledger calls it `unknown`.",
    ),
    Row(
        "N5",
        "The server has closed a kept connection just before it is used again",
        "It is seen before anything is sent, and another connection takes its place: no attempt, "
        "no entry in the ledger. The same where the server has said something unasked. What was "
        "sent is never sent again by the transport. Cancelling whoever replaces them leaves none "
        "open.",
    ),
    Row(
        "N6",
        "No answer begins",
        "A `RequestTimeoutError` after the read limit. The deadline of the call holds over all "
        "attempts together. It may have been billed: `unknown`.",
    ),
    Row(
        "N7",
        "An answer drips, its head or its body",
        "Each byte restarts the read limit, but the total limit and the deadline do not move.",
    ),
    Row(
        "N8",
        "A body is shorter than its length says",
        "It is asked for again, as it may have been billed; after the last attempt a "
        "`ProviderConnectionError`.",
    ),
    Row(
        "N9",
        "A stream is reset after any number of events; or its reader leaves it",
        "Before the first content (text, reasoning, a piece of a call) it is begun again. After "
        "it, `StreamInterruptedError` with exactly what was handed out as `partial`, no further "
        "attempt, no tool run, and a failure for the circuit breaker; unless all was said already. "
        "A stream that is left, by whatever way, closes its connection at once.",
    ),
    Row(
        "N10",
        "A stream's connection ends without the end of the body",
        "The same. An answer is whole if the server has said why it stopped and no event was under "
        "way (Anthropic's: if its last event has come).",
    ),
    Row(
        "N11",
        "The peer is gone without a word, in the middle of a stream",
        "After the read limit, in which any byte counts, the connection is closed: as N9, with "
        "`kind` `read`.",
    ),
    Row(
        "N12",
        "A stream sends comments for ever, and no event",
        "After ten minutes without an event (or the read limit, if that is longer) it is given "
        "up: as N9, with `kind` `idle`. The total limit and the deadline hold as well.",
    ),
    Row(
        "N13",
        "An answer comes byte by byte",
        "It is the same answer, and the work grows as its length.",
    ),
    Row(
        "N14",
        "A reader is slower than the server",
        "The server is held back: less than 1 MiB is kept for each stream.",
    ),
    Row(
        "N15",
        "An answer is compressed, which nobody has asked for",
        "gzip and deflate are undone piece by piece, up to 64 MiB (16 MiB for an event), with "
        "turns for the rest of the loop; beyond that, and for other codings, a `ProtocolError`.",
    ),
    Row(
        "N16",
        "Headers, trailers or other parts of HTTP without end",
        "A `ProtocolError`, and less than 10 MiB of memory. What a library reads without keeping "
        "it (lines between answers, early heads) ends at the total limit. Shown over Chat "
        "Completions: the transports, which read HTTP, are the same for every protocol.",
    ),
    Row(
        "N17",
        "A redirect",
        "It is not followed, and the key goes nowhere: a `ProtocolError` that speaks of the base "
        "URL.",
    ),
    Row(
        "N18",
        "Many calls at once, more than there may be connections",
        "With `max_connections` (of the transport) they wait their turn, first come, first served, "
        "as long as their total limit allows; waiting is not connecting. Without it there is no "
        "limit, and a process that runs out of files is told of both. Nothing is lost, doubled or "
        "mixed up, and each call ends as an answer or a typed error.",
    ),
    Row(
        "N19",
        "The clock on the wall jumps, or the machine sleeps",
        "Limits are measured by the monotonic clock, so a jump changes nothing. A stream that was "
        "under way when time went by is given up as in N11.",
    ),
    Row(
        "N20",
        "Proxies in the environment, right or wrong",
        "They are used, and get their password but no key of a provider over TLS. One that "
        "refuses, or is none, is an error that does not show the password. A proxy where nobody "
        "listens is shown over every protocol, the rest over Chat Completions or by the transports "
        "alone.",
    ),
]
