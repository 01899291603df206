"""Recorded exchanges on disk: reading their folder, and cutting and rewriting what was answered.

It must not know a provider's protocol, nor how anything is sent.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Case", "Folder", "event_data", "split_events", "with_comments", "with_line_ends"]

_NOTHING: dict[str, Any] = {
    "ok": True,
    "text": "",
    "reasoning_text": "",
    "refusal": "",
    "tool_calls": [],
    "finish_raw": None,
    "error": None,
}
_LINE_END = re.compile(r"\r\n|\n|\r")
_EVENT = re.compile(r".+?(?:\r\n\r\n|\n\n|\r\r|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Case:
    """One exchange, and what a right reader gets out of its answer."""

    name: str
    provider: str
    protocol: str
    model: str
    status: int
    headers: dict[str, str]
    sse: str | None
    """The body of an event stream, or of a refusal to send one; else `None`."""
    document: str | None
    """Any other body."""
    expect: dict[str, Any]
    request: Any
    """The body of the recorded request."""

    @property
    def body(self) -> str:
        return self.sse or self.document or ""

    @property
    def is_stream(self) -> bool:
        return self.sse is not None

    @property
    def ok(self) -> bool:
        return bool(self.expect["ok"])

    @property
    def parsed(self) -> Any:
        """The document as JSON."""
        return json.loads(self.document or "null")


@dataclass(frozen=True, slots=True)
class Folder:
    """The cases by their names, and the sessions: names in the order of their turns."""

    cases: dict[str, Case]
    sessions: list[list[str]]

    @classmethod
    def read(cls, root: Path, only: str = "") -> Folder:
        """The cases whose name or protocol contains `only`, and the sessions made of them."""
        cases = {}
        for path in sorted(root.rglob("*.json")):
            if path.name != "index.json":
                case = _read_case(path, root)
                if only in case.name or only in case.protocol:
                    cases[case.name] = case
        index = root / "index.json"
        listed = json.loads(index.read_text("utf-8")).get("sessions", []) if index.exists() else []
        sessions = [list(session["cases"]) for session in listed]
        return cls(cases, [names for names in sessions if all(name in cases for name in names)])


def _read_case(path: Path, root: Path) -> Case:
    record = json.loads(path.read_text("utf-8"))
    answer = record["response"]
    document = answer.get("text")
    if "body" in answer:
        document = json.dumps(answer["body"], ensure_ascii=False)
    name = path.relative_to(root).with_suffix("").as_posix()
    return Case(
        name=name,
        provider=record.get("provider", name.partition("/")[0]),
        protocol=record["protocol"],
        model=record["model"],
        status=answer["status"],
        headers=answer.get("headers") or {},
        sse=answer.get("sse"),
        document=document,
        expect=_NOTHING | record["expect"],
        request=(record.get("request") or {}).get("body"),
    )


def split_events(stream: str) -> list[str]:
    """The events of a stream, each with the blank line that ends it."""
    return _EVENT.findall(stream)


def event_data(event: str) -> Any:
    """The JSON of an event; `None` if it has none."""
    lines = [line[5:] for line in _LINE_END.split(event) if line.startswith("data:")]
    try:
        return json.loads("\n".join(lines))
    except ValueError:
        return None


def with_line_ends(stream: str, line_end: str) -> str:
    return stream.replace("\r\n", "\n").replace("\n", line_end)


def with_comments(stream: str, seed: int) -> str:
    """The stream with comments between its events and between the lines of its events."""
    chance = random.Random(seed)
    line_end = "\r\n" if "\r\n" in stream else "\n"
    commented = []
    for line in stream.split(line_end):
        if chance.random() < 0.3:
            comment = f": {chance.choice(('keep-alive', 'PROCESSING', 'data: {}'))}"
            commented.append(comment)
            if not (commented[:-1] and commented[-2]):  # between events it may stand alone
                commented += [""] * chance.randint(0, 1)
        commented.append(line)
    return line_end.join(commented)
