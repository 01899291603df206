"""All readings of a folder: each answer whole, rewritten and broken, and what goes back of it.

It must not know what makes a reading right.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.http.httpx import HttpxTransport
from aether.http.contracts import Transport
from aether.llm.messages import Message
from tests.recordings.cases import Case, Folder, split_events, with_comments, with_line_ends
from tests.recordings.comparing import whole_faults
from tests.recordings.faults import error_events, places
from tests.recordings.judging import Judge, ended_early, must_fail, must_tell, right_or_refused
from tests.recordings.reading import PROTOCOLS, Splitting, Tool, make_provider, read
from tests.recordings.serving import Answer, Server
from tests.recordings.state import state_faults

__all__ = ["Check", "Options"]

Job = tuple[str, Callable[[], Awaitable[list[str]]]]

ASK = Message("user", "Go on.")
ENDS = 30
"""At most so many early ends of one stream are tried."""


@dataclass(frozen=True, slots=True)
class Options:
    piece: int
    seeds: int
    jobs: int


class Check:
    """All readings of a folder, and what was wrong with them."""

    def __init__(self, folder: Folder, options: Options, server: Server) -> None:
        self.folder = folder
        self.faults: dict[str, dict[str, list[str]]] = defaultdict(dict)
        """By case and by the way that it was read."""
        self.missing: dict[str, list[Case]] = defaultdict(list)
        """The cases that nothing can read, by why not."""
        self.readings = 0
        self._options = options
        self._server = server
        self._transports: dict[str, Transport] = {
            "aiohttp": AiohttpTransport(),
            "httpx": HttpxTransport(),
        }
        self._main = self._transports["aiohttp"]

    async def run(self) -> None:
        """Everything, `jobs` readings at a time."""
        cases = [case for case in self.folder.cases.values() if case.protocol in PROTOCOLS]
        cases = [case for case in cases if self._can_be_read(case)]
        work = [(case.name, *job) for case in cases for job in self._readings(case)]
        work += [(case.name, *job) for case in cases for job in self._turns(case)]
        queue = iter(work)

        async def worker() -> None:
            for name, how, job in queue:
                try:
                    faults = await job()
                except Exception as error:  # noqa: BLE001 - one reading must not end the others
                    faults = [f"could not be checked: {type(error).__name__}: {error}"]
                self.readings += 1
                if faults:
                    self.faults[name][how] = faults

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._options.jobs):
                    group.create_task(worker())
        finally:
            for transport in self._transports.values():
                await transport.aclose()

    def _can_be_read(self, case: Case) -> bool:
        try:
            make_provider(case, "http://127.0.0.1:1", self._main)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no adapter
            said = f"{case.protocol} has no adapter: {type(error).__name__}: {error}"
            self.missing[said].append(case)
            return False
        return True

    def _readings(self, case: Case) -> Iterator[Job]:
        """Whole answers, then those that go wrong."""
        piece = self._options.piece
        answer = _answer(case, case.body)
        both = (True,) if case.is_stream else (False,) if case.ok else (False, True)
        for stream in both:
            way = "stream" if stream else "complete"
            for name, transport in self._transports.items():
                small = replace(answer, piece=piece, seed=1)
                yield self._one(f"{way} over {name}", case, small, stream, via=transport)
                whole = replace(answer, chunked=False)
                yield self._one(f"{way} over {name}, with a length", case, whole, stream, transport)
        if not case.is_stream:
            yield from self._documents(case, answer)
            return
        for seed in range(self._options.seeds + 1):
            biggest = piece if seed else 1
            for name, transport in self._transports.items():
                if seed == 0 or seed % 3 == 1 or name == "aiohttp":
                    split = Splitting(transport, biggest, seed)
                    how = f"split to 1..{biggest} bytes by seed {seed} over {name}"
                    yield self._one(how, case, answer, True, via=split)
        if case.status < 400:
            yield from self._rewritten(case)
            yield from self._broken(case)

    def _documents(self, case: Case, answer: Answer) -> Iterator[Job]:
        if not case.ok:
            return
        escaped = json.dumps(case.parsed)
        yield self._one("complete of ASCII", case, _answer(case, escaped), False)
        yield self._one("stream of a document", case, answer, True, judge=right_or_refused)
        for share in (0.0, 0.3, 0.8):
            cut = int(len(answer.body) * share)
            for chunked in (True, False):
                short = replace(answer, cut=cut, chunked=chunked, seed=cut)
                how = f"cut after {cut} of {len(answer.body)} bytes"
                yield self._one(how, case, short, False, judge=must_fail)
            ended = replace(answer, body=answer.body[:cut])
            yield self._one(f"ended after {cut} bytes", case, ended, False, judge=must_fail)

    def _rewritten(self, case: Case) -> Iterator[Job]:
        stream = case.body
        ways = {
            "LF": with_line_ends(stream, "\n"),
            "CRLF": with_line_ends(stream, "\r\n"),
            "comments": with_comments(stream, 1),
            "comments and CRLF": with_comments(with_line_ends(stream, "\r\n"), 2),
        }
        for number, (how, text) in enumerate(ways.items()):
            split = Splitting(self._main, self._options.piece, number)
            yield self._one(f"with {how}", case, _answer(case, text), True, via=split)
        yield self._one(
            "complete of a stream", case, _answer(case, stream), False, None, right_or_refused
        )

    def _broken(self, case: Case) -> Iterator[Job]:
        events = split_events(case.body)
        line_end = "\r\n" if "\r\n" in case.body else "\n"
        for count in places(len(events), ENDS):
            judge = ended_early(events[:count], dropped=False)
            answer = _answer(case, "".join(events[:count]))
            yield self._one(f"ended after event {count}", case, answer, True, judge=judge)
        whole = _answer(case, case.body)
        size = len(whole.body)
        chance = random.Random(case.name)
        shares = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, *(chance.random() for _ in range(5))]
        cuts = {int(size * share) for share in shares} | {size - 1, size - 2, size - 8}
        cuts |= {len("".join(events[:n]).encode()) for n in places(len(events), ENDS // 3)}
        for cut in sorted(cuts & set(range(size))):
            come = whole.body[:cut].decode("utf-8", "ignore")
            judge = ended_early(split_events(come), dropped=True)
            for chunked in (True, False):
                short = replace(whole, cut=cut, chunked=chunked, seed=cut)
                way = "chunked" if chunked else "with a length"
                yield self._one(f"cut after {cut} bytes, {way}", case, short, True, judge=judge)
        for shape, event in error_events(case.protocol, line_end).items():
            for share in (0.0, 0.3, 0.6, 0.9):
                count = int(len(events) * share)
                text = "".join([*events[:count], event])
                judge = must_tell(events[:count], bare=shape.startswith("bare"))
                how = f"{shape} after event {count}"
                yield self._one(how, case, _answer(case, text), True, judge=judge)

    def _one(
        self,
        how: str,
        case: Case,
        answer: Answer,
        stream: bool,
        via: Transport | None = None,
        judge: Judge = whole_faults,
    ) -> Job:
        async def job() -> list[str]:
            asked = self._server.prepare(case.name, [answer])
            provider = make_provider(case, asked.url, via or self._main)
            outcome = await read(provider, [ASK], _tools([case]), stream=stream)
            return judge(case, outcome)

        return how, job

    def _turns(self, case: Case) -> Iterator[Job]:
        """Every right answer goes back; a recorded session's, all of them one after another."""
        session = next((names for names in self.folder.sessions if names[0] == case.name), None)
        turns = [self.folder.cases[name] for name in session or [case.name]]
        if all(turn.protocol == case.protocol for turn in turns) and turns[0].ok:
            yield f"a session of {len(turns)}", lambda: self._play(turns)

    async def _play(self, turns: Sequence[Case]) -> list[str]:
        answers = [_answer(turn, turn.body) for turn in turns]
        asked = self._server.prepare(turns[0].name, [*answers, answers[-1]])
        provider = make_provider(turns[0], asked.url, self._main)
        messages = [ASK]
        tools = _tools(turns)
        faults: list[str] = []
        for number, turn in enumerate([*turns, turns[-1]]):
            outcome = await read(provider, messages, tools, stream=turn.is_stream)
            if number:
                faults += self._went_back(turns[number - 1], asked.bodies, number)
            if number == len(turns) or outcome.response is None:
                if outcome.response is None and not asked.bodies[number:]:
                    faults.append(f"turn {number} was not sent: {outcome.error}")
                break
            following = turns[number + 1].request if number + 1 < len(turns) else None
            messages.append(outcome.response.message)
            for call in outcome.response.tool_calls:
                result = _result_for(call.id, following)
                messages.append(Message("tool", result, tool_call_id=call.id))
            if not outcome.response.tool_calls:
                messages.append(ASK)
        return faults

    def _went_back(self, case: Case, bodies: list[bytes], number: int) -> list[str]:
        if len(bodies) <= number:
            return []
        try:
            return state_faults(case, json.loads(bodies[number]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            return [f"what goes back has another form: {type(error).__name__}: {error}"]


def _answer(case: Case, text: str) -> Answer:
    return Answer(status=case.status, headers=case.headers, body=text.encode())


def _tools(cases: Sequence[Case]) -> list[Tool]:
    """The tools that the answers call."""
    names = {call["name"]: None for case in cases for call in case.expect["tool_calls"]}
    return [Tool(name) for name in names]


def _result_for(call_id: str, request: Any) -> str:
    """What the recorded request has as the result of this call."""
    for item in _objects(request):
        if call_id in (item.get("tool_call_id"), item.get("tool_use_id"), item.get("call_id")):
            result = item.get("content", item.get("output"))
            if result:
                return result if isinstance(result, str) else json.dumps(result)
    return "done"


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _objects(inner)
