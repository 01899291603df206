"""Judging the readings of answers that went wrong: an error, or the right answer, and no other.

It must not know what was done to an answer, only what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.recordings.cases import Case, event_data
from tests.recordings.comparing import response_faults, whole_faults
from tests.recordings.faults import FAULT
from tests.recordings.reading import Outcome

__all__ = ["Judge", "ended_early", "must_fail", "must_tell", "right_or_refused"]

Judge = Callable[[Case, Outcome], list[str]]


def must_fail(case: Case, outcome: Outcome) -> list[str]:
    """The answer was not whole: there must be an error, with what had come of it."""
    if outcome.error is None and outcome.response is not None:
        return [*outcome.faults, f"no error, but text {outcome.response.text[:80]!r}"]
    faults = list(outcome.faults)
    if not case.expect["text"].startswith(outcome.text):
        faults.append(f"the deltas {outcome.text[-80:]!r} are not the beginning of the text")
    partial = getattr(outcome.error, "partial", None)
    come = "" if partial is None else partial.text
    if come != outcome.text:
        faults.append(f"the error has come with the text {come!r}, the deltas are {outcome.text!r}")
    return faults


def right_or_refused(case: Case, outcome: Outcome) -> list[str]:
    """The answer has a form that was not asked for: it may be refused, or be read right."""
    return outcome.faults if outcome.error is not None else whole_faults(case, outcome)


def ended_early(come: Sequence[str], *, dropped: bool) -> Judge:
    """Only these events have come: an error, or a right answer all the same.

    Where they are whole by the protocol's own rules, what was still to come may be unknown: the
    counts. A Gemini stream has no end mark, and may go on after a finish reason: if it ends there
    without a broken connection, a part of the text is the whole, as far as anybody can know.
    """

    def judge(case: Case, outcome: Outcome) -> list[str]:
        if outcome.error is not None or not case.ok or outcome.response is None:
            return must_fail(case, outcome)
        whole = _may_have_ended(case, come)
        prefix = whole and not dropped and case.protocol == "gemini.generate"
        faults = response_faults(case, outcome.response, counts_may_lack=whole, prefix=prefix)
        if faults:
            faults = ["no error, but: " + "; ".join(faults)]
        return outcome.faults + faults

    return judge


def must_tell(come: Sequence[str], *, bare: bool) -> Judge:
    """After these events came an error: it must be raised, and in the server's words.

    One that is no event at all may be taken for the end of the stream. After a whole answer it
    does not count, if the protocol has an end that can be told from a pause.
    """

    def judge(case: Case, outcome: Outcome) -> list[str]:
        has_end = case.protocol != "gemini.generate"
        if outcome.error is None and has_end and _may_have_ended(case, come):
            return ended_early(come, dropped=False)(case, outcome)
        faults = must_fail(case, outcome)
        told = not case.ok or bare or FAULT in error_words(outcome.error)
        if not faults and not told:
            faults = [f"the error does not say {FAULT!r}: {outcome.error}"]
        return faults

    return judge


def error_words(error: BaseException | None) -> str:
    """What an error and those behind it say."""
    words = ""
    while error is not None:
        words += f" {error}"
        error = error.__cause__
    return words


def _may_have_ended(case: Case, events: Sequence[str]) -> bool:
    """Whether these first events are a whole answer by the protocol's own rules."""
    data = [value for value in map(event_data, events) if isinstance(value, dict)]
    if case.protocol == "openai.chat":
        return any(
            choice.get("finish_reason") and not choice.get("index")
            for value in data
            for choice in value.get("choices") or []
        )
    if case.protocol == "openai.responses":
        ends = ("response.completed", "response.incomplete", "response.failed")
        return any(value.get("type") in ends for value in data)
    if case.protocol == "anthropic.messages":
        return any(value.get("type") == "message_stop" for value in data)
    return any(
        candidate.get("finishReason")
        for value in data
        for candidate in value.get("candidates") or []
    )
