"""The figures: from outcomes to the lines of a table.

It must not know how the outcomes came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from comparison.running import Compared, Outcome
from comparison.worker import STREAMS

NAMES = {
    "aether": "Aether",
    "openai": "openai",
    "anthropic": "anthropic",
    "google_genai": "google-genai",
    "litellm": "litellm",
    "pydantic_ai": "pydantic-ai",
}
_NONE = "-"
_WRONG = ("wrong, streamed", "wrong, whole")
_FINISHED = frozenset(
    {"stop", "end_turn", "STOP", "completed", "tool_calls", "tool_call", "tool_use"}
)
"""The words for an answer that is whole."""
_FAILED = frozenset({"error", "failed"})
"""The words for one that is none: some libraries say so in place of raising it."""
_SHORT = {"openai": "chat", "openai.responses": "responses"}


def _of(compared: Compared, *groups: str) -> list[Outcome]:
    return [each for each in compared.outcomes if each.probe.group in groups]


def _accepted(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [each for each in outcomes if "text" in each.said and each.said["finish"] not in _FAILED]


def _count(some: Sequence[object], of: Sequence[object]) -> str:
    return f"{len(some)} of {len(of)}" if of else _NONE


def _accepted_of(*groups: str) -> Callable[[Compared], str]:
    return lambda compared: _count(_accepted(_of(compared, *groups)), _of(compared, *groups))


def _told_as_finished(compared: Compared) -> str:
    accepted = _accepted(_of(compared, *_WRONG))
    return _count([each for each in accepted if each.said["finish"] in _FINISHED], accepted)


def _right_refused(compared: Compared) -> str:
    outcomes = _of(compared, "right")
    taken = [each for each in _accepted(outcomes) if each.said["text"]]
    return f"{len(outcomes) - len(taken)} of {len(outcomes)}"


def untyped(compared: Compared) -> Counter[str]:
    """The errors that are not of the library's own classes, by their names."""
    return Counter(
        each.said["error"]
        for each in compared.outcomes
        if "error" in each.said and not each.said["typed"]
    )


def _untyped(compared: Compared) -> str:
    errors = [each for each in compared.outcomes if "error" in each.said]
    return f"{untyped(compared).total()} of {len(errors)}"


def _by_protocol(group: str, cell: Callable[[Outcome], str]) -> Callable[[Compared], str]:
    """One value if it is the same in each protocol, else each."""

    def line(compared: Compared) -> str:
        protocols: dict[str, list[str]] = {}
        for each in _of(compared, group):
            name = each.probe.protocol
            protocols.setdefault(cell(each), []).append(_SHORT.get(name, name))
        if len(protocols) < 2:
            return next(iter(protocols), _NONE)
        return "; ".join(f"{value} ({', '.join(names)})" for value, names in protocols.items())

    return line


def _requests(outcome: Outcome) -> str:
    return f"{outcome.requests}{', still waiting' if outcome.said.get('waiting') else ''}"


def _waited(outcome: Outcome) -> str:
    if len(outcome.arrivals) < 2:
        return "not sent again"
    return "yes" if outcome.arrivals[1] - outcome.arrivals[0] >= 0.99 else "no"


def _came_through(outcome: Outcome) -> str:
    return "yes" if "text" in outcome.said else "no"


def _left(outcome: Outcome) -> str:
    return str(outcome.said.get("left", "no answer"))


def _left_after_gc(outcome: Outcome) -> str:
    return str(outcome.said.get("left after gc", "no answer"))


def _tokens(outcome: Outcome) -> str:
    tokens = outcome.said.get("tokens")
    return _NONE if tokens is None else f"{tokens:,} of {outcome.billed:,}"


def _key(outcome: Outcome) -> str:
    return "yes" if outcome.key_went_on else "no"


LINES: Sequence[tuple[str, Callable[[Compared], str]]] = (
    ("wrong answers in a stream that are taken for right", _accepted_of("wrong, streamed")),
    ("wrong answers that are no stream, taken for right", _accepted_of("wrong, whole")),
    ("of these, with a reason that says finished", _told_as_finished),
    ("failures that are taken for right", _accepted_of("failure")),
    ("right answers that are refused", _right_refused),
    ("errors of another class than the library's own", _untyped),
    ("requests with a wrong key (401)", _by_protocol("401", _requests)),
    ("requests on a used-up quota (429)", _by_protocol("quota", _requests)),
    ("requests in an outage (503), one call", _by_protocol("outage", _requests)),
    ("requests in an outage, 100 calls", _by_protocol("long outage", _requests)),
    ("comes through one 503", _by_protocol("a blip", _came_through)),
    ("waits for a `Retry-After` of a second", _by_protocol("in a second", _waited)),
    ("requests on a `Retry-After` of ten minutes", _by_protocol("in ten minutes", _requests)),
    (f"sockets left by `break` out of {STREAMS} streams", _by_protocol("break", _left)),
    ("the same after `gc.collect()`", _by_protocol("break", _left_after_gc)),
    (f"sockets left by the cancellation of {STREAMS} streams", _by_protocol("cancel", _left)),
    ("tokens in its accounts of a whole stream", _by_protocol("all tokens", _tokens)),
    ("tokens in its accounts of a stream that was left", _by_protocol("tokens", _tokens)),
    ("sends the key on to another origin (307)", _by_protocol("redirect", _key)),
)


def table(all_compared: Sequence[Compared]) -> str:
    """The figures, as a table in Markdown."""
    rows = [["", *(f"{NAMES[each.name]} {each.version}" for each in all_compared)]]
    rows += [[title, *(line(each) for each in all_compared)] for title, line in LINES]
    return _markdown(rows)


def details(all_compared: Sequence[Compared]) -> str:
    """What each library took for right, and in which protocols: the wrong answers, and those of the
    failures that any of them did.
    """
    names: dict[tuple[str, str], bool] = {}
    for compared in all_compared:
        for each in _of(compared, *_WRONG, "failure"):
            key = each.probe.group, each.probe.name
            is_shown = key[0] in _WRONG or bool(_accepted([each]))
            names[key] = names.get(key, False) or is_shown
    rows = [["", *(NAMES[each.name] for each in all_compared)]]
    for group, name in sorted(key for key, is_shown in names.items() if is_shown):
        kind = {"wrong, streamed": "in a stream", "wrong, whole": "no stream"}.get(group)
        row = [f"{name} ({kind})" if kind else name]
        for compared in all_compared:
            tried = [each for each in _of(compared, group) if each.probe.name == name]
            accepted = [each.probe.protocol for each in _accepted(tried)]
            taken = ", ".join(_SHORT.get(protocol, protocol) for protocol in accepted)
            if not tried:
                row.append(_NONE)
            elif not taken:
                row.append("refused")
            else:
                row.append("taken" if len(accepted) == len(tried) else f"taken ({taken})")
        rows.append(row)
    return _markdown(rows)


def classes(all_compared: Sequence[Compared]) -> str:
    """The errors that are of another class than the library's own."""
    found = [
        f"- {NAMES[compared.name]}: "
        + ", ".join(f"`{name}` ({count})" for name, count in untyped(compared).most_common())
        for compared in all_compared
        if untyped(compared)
    ]
    return "\n".join(found) or "None."


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
