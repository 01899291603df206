"""Bodies and streams of status 200 that are no answer, or not whole, or say odd things."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

ROWS = [
    Row(
        "S1",
        "A stream ends without its last event",
        "`StreamInterruptedError` (`kind` is `truncated`) with what had come; before the first "
        "content it is tried again. For Gemini that includes an end while Google's own code runs. "
        "A body that is cut is a `ProtocolError`.",
    ),
    Row(
        "S2",
        "The end mark comes, but no reason why the answer ended",
        "The same; the end mark alone ends nothing. Of servers that are known to leave the reason "
        "out (Ollama) the answer is taken, with the finish reason `other`, never `stop`.",
    ),
    Row(
        "S3",
        "The reason comes, but no end mark",
        "The answer is whole, where the end mark says nothing more. Anthropic's `message_stop` "
        "does, and is needed.",
    ),
    Row(
        "S4",
        "A stream is cut inside an event, a character or the arguments of a call",
        "As S1, at every byte. `partial` has whole events alone, and a call that was cut off "
        "cannot be run.",
    ),
    Row(
        "S5",
        "Bytes are cut anywhere; characters come as pairs of escapes",
        "The same chunks and the same answer wherever the bytes were cut. Half a pair is a "
        "`ProtocolError`.",
    ),
    Row(
        "S6",
        "Bytes that are no UTF-8",
        "A `ProtocolError` with what had come; it is not tried again.",
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
        "A `ProtocolError` at 16 MiB or 100,000 lines of an event, at 64 MiB of a document. While "
        "it is read the rest of the loop has its turn every 16 KiB.",
    ),
    Row(
        "S12",
        "An event is no JSON",
        "A `ProtocolError` with what had come; the connection is closed. It is not tried again.",
    ),
    Row(
        "S13",
        "JSON of a shape that the protocol does not know",
        "Fields that nobody asked for are left alone; a value of the wrong type where one is read "
        "is a `ProtocolError`, never an error of Python.",
    ),
    Row(
        "S14",
        "An error inside an answer of status 200",
        "Before the first content it is classed, and tried again, as the status that it names; "
        "after it a `StreamInterruptedError` with the error as its `__cause__`.",
    ),
    Row(
        "S15",
        "Chunks without a choice, first, last or in between",
        "They say nothing, but for the usage that they may hold.",
    ),
    Row(
        "S16",
        "Something follows the end of an answer",
        "After the end mark nothing counts. Content after the reason is left out, with one "
        "warning, where the protocol says that the reason ends it (Chat Completions). Gemini's "
        "answers may go on after a reason, and then need another one.",
    ),
    Row(
        "S17",
        "Two reasons, or several answers in one",
        "The first reason counts, but for Gemini, whose chunks may each have one: there the last "
        "does. Of several answers the first counts; nobody asked for the others.",
    ),
    Row(
        "S18",
        "Usage is not told",
        "It is unknown, `None` and never 0; the ledger has an estimate, and says so.",
    ),
    Row(
        "S19",
        "Usage comes several times, or is no count",
        "The latest counts. What is no whole number of at least 0 is unknown, and estimated.",
    ),
    Row(
        "S20",
        "Calls come in pieces: mixed, without index or id, with names cut up or repeated",
        "They are put together by index, else by id, else by name. A call without an id gets one, "
        "and of two with the same id one gets another.",
    ),
    Row(
        "S21",
        "The output limit cuts off the arguments of a call",
        "It is not run, and the model is told why.",
    ),
    Row(
        "S22",
        "A page, a text, nothing, an error as JSON; or a content type that is wrong",
        "A `ProtocolError` that shows the beginning, without the key, and is not tried again; the "
        "error that the JSON tells; an empty stream may be tried again. Content types are not "
        "believed: a document in place of a stream is read, whatever it calls itself.",
    ),
    Row(
        "S23",
        "A status that brings no answer (1xx, 201, 204, 206, 3xx), or what is no HTTP",
        "A `ProtocolError` with the status. Early heads before an answer are passed over; a "
        "connection that ends after them is one that broke.",
    ),
    Row(
        "S24",
        "An empty answer, a refusal, a content filter",
        "An empty text is an answer only with its reason. A refusal has the finish reason "
        "`content_filter`.",
    ),
    Row(
        "S25",
        "A stream of very many chunks",
        "The work grows as their number.",
    ),
]
