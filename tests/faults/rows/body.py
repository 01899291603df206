"""Bodies and streams of status 200 that are no answer, or not whole, or say odd things."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "S1",
        "A stream ends without its last event",
        "Before the first content it is tried again; after it, `StreamInterruptedError` "
        "(`truncated`) has what had come. A body that is cut is a `ProtocolError`.",
    ),
    Row(
        "S2",
        "The end mark comes, but no reason why the answer ended",
        "As S1: the end mark alone ends nothing. Servers known to leave the reason out (Ollama) "
        "give the finish reason `other`, never `stop`.",
    ),
    Row(
        "S3",
        "The reason comes, but no end mark",
        "The answer is whole. Anthropic's `message_stop` says more than an end mark, and is "
        "needed.",
    ),
    Row(
        "S4",
        "A stream is cut, or has a wrong byte, inside an event, a character or a call",
        "As S1, at every byte; a call that was cut cannot be run. A wrong byte is seen where it "
        "breaks JSON; inside a text it is the text.",
    ),
    Row(
        "S5",
        "Bytes are cut anywhere; characters come as pairs of escapes",
        "The chunks and the answer are the same. Half a pair is a `ProtocolError`.",
    ),
    Row(
        "S6",
        "Bytes that are no UTF-8",
        "A `ProtocolError` with what had come. It is not tried again.",
    ),
    Row(
        "S7",
        "Lines end in LF, CRLF, CR or all of them, cut anywhere",
        "The same events.",
    ),
    Row(
        "S8",
        "U+2028, U+0085, vertical tabs and the like inside of data",
        "They are text, and end no line.",
    ),
    Row(
        "S9",
        "A byte order mark, comments, unknown fields, `id`, `retry`, no space behind the colon",
        "As the standard of server-sent events says.",
    ),
    Row(
        "S10",
        "Data over several lines",
        "They are joined by a line feed.",
    ),
    Row(
        "S11",
        "An event or a document without end",
        "A `ProtocolError` at 16 MiB or 20,000 lines of an event, at 64 MiB of a document, and at "
        "four million values, or 2,048 calls or parts, of either. Up to a million values no step "
        "of the loop takes 50 ms of CPU.",
    ),
    Row(
        "S12",
        "An event is no JSON",
        "A `ProtocolError` with what had come, and the connection is closed. It is not tried "
        "again.",
    ),
    Row(
        "S13",
        "JSON of a shape that the protocol does not know",
        "Unknown fields are left alone. A value of the wrong type where one is read is a "
        "`ProtocolError`, never an error of Python.",
    ),
    Row(
        "S14",
        "An error inside an answer of status 200",
        "Before the first content it is classed and tried again as the status that it names. "
        "After it, it is the `__cause__` of a `StreamInterruptedError`.",
    ),
    Row(
        "S15",
        "Events in which nothing is said, first, last or in between",
        "They change nothing. The usage that they may hold counts.",
    ),
    Row(
        "S16",
        "Something follows the end of an answer",
        "After the end mark nothing counts; in Chat Completions content after the reason is left "
        "out with a warning, and a call there is a `ProtocolError`. Gemini's answers may go on, "
        "and then need another reason.",
    ),
    Row(
        "S17",
        "Two reasons, or several answers in one",
        "The first reason counts, but for Gemini, where the last does, if it is no bare STOP. Of "
        "several answers the first counts; calls in another one of the same index are a "
        "`ProtocolError`.",
    ),
    Row(
        "S18",
        "Usage is not told",
        "It is `None`, never 0. The ledger has an estimate, and says so.",
    ),
    Row(
        "S19",
        "Usage comes several times, or is no count",
        "The latest counts. What is no whole number of at least 0, or less than a part of it, is "
        "unknown, and estimated.",
    ),
    Row(
        "S20",
        "Calls come in pieces: mixed, without index or id, with names cut up or repeated",
        "They are put together by index, else by id, else by name. A call without an id, or with "
        "another's, gets one of its own.",
    ),
    Row(
        "S21",
        "The output limit cuts off the arguments of a call",
        "It is not run, and the model is told why.",
    ),
    Row(
        "S22",
        "A page, a text, nothing, an error as JSON; or a content type that is wrong",
        "A `ProtocolError` that shows the beginning without the key, or the error that the JSON "
        "tells. Content types are not believed: what is in the body counts.",
    ),
    Row(
        "S23",
        "A status that brings no answer (1xx, 201, 204, 206, 3xx), or what is no HTTP",
        "A `ProtocolError` with the status, or a `ProviderConnectionError`. Early heads before an "
        "answer are passed over.",
    ),
    Row(
        "S24",
        "An empty answer, a refusal, a content filter",
        "An empty text is an answer only with its reason. A refusal has the finish reason "
        "`content_filter`, and an answer in parts of kinds that are not read has `other`.",
    ),
    Row(
        "S25",
        "A stream of very many chunks",
        "The work grows as their number.",
    ),
]
