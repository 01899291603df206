"""The weather at a server: what it answers, and what goes wrong, drawn from chance.

It changes in the course of a simulation, so that circuits open and close again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random

from aether.errors import AetherError, ProviderConnectionError, RequestTimeoutError
from aether.llm.contracts import FinishReason, TokenUsage, ToolCall
from aether.testing import faults
from aether.testing.faults import Ending, Failure, Fault, Reply, WireRequest
from aether.testing.wires import FAILURES, Wire
from tests.simulation.calls import Call, depth_of
from tests.simulation.network import Plan

__all__ = ["Weather"]

_SHARES = {"calm": 0.05, "rough": 0.3, "limits": 0.5, "mud": 0.5, "storm": 0.6, "outage": 1.0}
"""How many of the requests something is done to."""

_WORDS = ("maybe", "the sun", "é", "rises", "日本", "twice", "\U0001f600", '"quoted"', "\\", "soon")
_ASKED = {
    "0": 0.0,
    "0.5": 0.5,
    "3": 3.0,
    "20": 20.0,
    "119": 119.0,
    "121": 121.0,
    "4000": 4000.0,
    "-1": 0.0,
    "nan": 0.0,
    "soon": 0.0,
    "Thu, 01 Jan 1970 00:00:00 GMT": 0.0,
}
"""Spellings of `retry-after`, and the seconds that they mean."""

_ENDINGS: tuple[Ending, ...] = ("broken", "reset", "hanging")
_STATUSES = (302, 403, 404, 408, 409, 413, 425, 429, 500, 502, 504, 529)


class Weather:
    """Says what becomes of each request to one server."""

    def __init__(self, wire: Wire, chance: Random, clock: Callable[[], float]) -> None:
        self._wire = wire
        self._chance = chance
        self._clock = clock
        self._numbers = 0
        self._phases = [
            (chance.uniform(0, 60), chance.choice(list(_SHARES)))
            for _ in range(chance.randint(1, 3))
        ]
        self._failures: list[Failure] = [each for each in FAILURES if each not in wire.cannot]
        self._thinks = wire.can("reasoning")
        self.clear = False
        """Whether nothing goes wrong any more."""

    def plan(self, request: WireRequest, call: Call) -> Plan:
        """What becomes of a request."""
        chance = self._chance
        plan = Plan(self._reply(request, call), latency=chance.choice((0.0, 0.05, 0.4)))
        plan.gulp = chance.choice((1, 1, 3, 50))
        kind = self._kind()
        if self.clear or chance.random() >= _SHARES[kind]:
            return plan
        if kind == "limits":
            self._refuse(plan, "rate_limit")
        elif kind == "mud":
            plan.faults.append(chance.choice((faults.hang(), faults.delay(chance.uniform(1, 25)))))
        elif kind == "outage":
            chance.choice((self._disconnect, self._fail))(plan)
        else:
            draw = chance.choices(
                (self._disconnect, self._fail, self._break, self._spoil, self._dawdle),
                (2, 5, 6, 4, 3),
            )
            draw[0](plan)
        if not self._wire.wants_stream(request):
            # Nobody gives up an answer without a stream whose bytes go on coming.
            plan.faults = [each for each in plan.faults if each.name != "keep alive"]
        return plan

    def _kind(self) -> str:
        now = self._clock()
        for until, kind in self._phases:
            if now < until:
                return kind
        return "calm"

    def _reply(self, request: WireRequest, call: Call) -> Reply:
        """Its text is like no other: who reads it can say which request it answers."""
        chance = self._chance
        self._numbers += 1
        words = " ".join(chance.choices(_WORDS, k=chance.randint(0, 4)))
        text = f"<{self._numbers}> {words}".rstrip()
        offered = self._wire.offered(request)
        calls: list[ToolCall] = []
        if offered and not self.clear and chance.random() < 0.6:
            calls = [
                self._call(number, sorted(offered), call.tag)
                for number in range(chance.randint(1, 3))
            ]
            text = chance.choice(("", text))
        thought = self._thinks and chance.random() < 0.2
        reasoning = f"({self._numbers}) hm" if thought else ""
        usage = TokenUsage(
            input_tokens=len(request.body) // 4 + 1,
            output_tokens=len(reasoning) + len(text) + 4 * len(calls) + 1,
            cache_read_tokens=chance.choice((None, 1)),
        )
        finish: FinishReason | None = "length" if not calls and chance.random() < 0.1 else None
        return Reply(text, reasoning, calls, finish, usage=usage)

    def _call(self, number: int, names: Sequence[str], tag: str) -> ToolCall:
        chance = self._chance
        name = chance.choice([*names, "no_such_tool"] if chance.random() < 0.1 else names)
        minted = chance.choice((f"call_{number}", f"call_{number}", "call_same"))
        marked = f"{tag}#{self._numbers}.{number}"
        if name.startswith("ask_"):
            task = f"Find out. [{tag}>{self._numbers}.{number}]"
            return ToolCall(minted, name, {"task": task if depth_of(tag) < 8 else "[nobody]"})
        seconds = chance.choice((0.0, 0.1, 2.0))
        return ToolCall(minted, name, {"mark": marked, "seconds": seconds})

    def _disconnect(self, plan: Plan) -> None:
        kind = self._chance.choice(("connect", "dns", "tls", "slow"))
        plan.unreachable = partial(_unreachable, kind)

    def _fail(self, plan: Plan) -> None:
        draw = self._chance.random()
        if draw < 0.5:
            self._refuse(plan, self._chance.choice(self._failures))
        elif draw < 0.6:
            word = self._chance.choice(("true", "false"))
            code = self._chance.choice((400, 500))
            plan.retryable = word == "true"
            plan.faults.append(faults.status(code, b"{}", headers=[("x-should-retry", word)]))
        else:
            spelt = self._chance.choice((None, *_ASKED))
            plan.retry_after = _ASKED[spelt] if spelt else 0.0
            code = self._chance.choice(_STATUSES)
            plan.retryable = code in (408, 409, 425, 429) or code >= 500
            plan.faults.append(faults.status(code, b"<html>", retry_after=spelt))

    def _refuse(self, plan: Plan, failure: Failure) -> None:
        spelt = self._chance.choice((None, *_ASKED))
        plan.retry_after = _ASKED[spelt] if spelt else 0.0
        plan.retryable = FAILURES[failure].default_retryable
        plan.faults.append(faults.refuse(failure, retry_after=spelt))

    def _break(self, plan: Plan) -> None:
        """The answer begins, and breaks off."""
        chance = self._chance
        ending = chance.choice(_ENDINGS)
        draw = chance.randrange(8)
        if draw == 0:
            fault = chance.choice((faults.reset(), faults.close(), faults.hang()))
        elif draw == 1:
            fault = faults.cut(wire=chance.randrange(3000), ending=ending)
        elif draw == 2:
            ending = chance.choice((ending, "whole"))
            fault = faults.cut(body=chance.randrange(3000), ending=ending)
        elif draw == 3:
            fault = faults.cut(events=chance.randrange(14), ending="whole")
        elif draw == 4:
            fault = faults.unsettled()
        elif draw == 5:
            fault = faults.wrong_length(chance.choice((-3, 1, 40, 4000)))
        else:
            fault = faults.cut(events=chance.randrange(14), ending=ending)
        plan.faults.append(fault)

    def _spoil(self, plan: Plan) -> None:
        """The answer is another than it should be."""
        chance = self._chance
        draw = chance.randrange(4)
        if draw == 0:
            plan.faults.append(faults.document(chance.choice((b"<html>", b"", b"{}", b"[1]"))))
        elif draw == 1:
            plan.faults.append(faults.raw(chance.choice((b"", b"HTTP/1.1 what\r\n\r\n", b"\0"))))
        elif draw == 2:
            plan.faults.append(faults.untold())
        else:
            after = chance.randrange(12)
            failure = chance.choice(self._failures)
            fault = faults.error_event(failure, after=after)
            plan.faults.append(fault if after else replace(fault, billed=False))

    def _dawdle(self, plan: Plan) -> None:
        """All comes, but slowly, or in other pieces."""
        chance = self._chance
        fault: Fault = chance.choice(
            (
                faults.delay(chance.choice((1.0, 15.0, 30.0))),
                faults.split(chance.choice((7, 50, 400))),
                faults.drip(200, seconds=chance.choice((0.3, 25.0))),
                faults.keep_alive(chance.randrange(12), seconds=15.0),
                faults.drop(),
            )
        )
        plan.faults.append(fault)


def _unreachable(kind: str) -> AetherError:
    if kind == "slow":
        return RequestTimeoutError("No connection in time.", kind="connect")
    return ProviderConnectionError("No connection.", kind=kind)
