"""The tools that models call, and what their results must be (I11, I12)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from aether import Agent, Tool
from aether.llm.contracts import Message, ToolCall
from aether.llm.scope import current_scope
from tests.simulation.calls import Call, current_operation, depth_of
from tests.simulation.judging import Judge

__all__ = ["Tools"]

_PARAMETERS = {
    "type": "object",
    "properties": {"mark": {"type": "string"}, "seconds": {"type": "number"}},
    "required": ["mark", "seconds"],
}
TIMEOUT = 5.0


class Tools:
    """Tools whose results say which call they answer."""

    def __init__(self, judge: Judge, *, depth: int) -> None:
        self._judge = judge
        self._depth = depth
        """How deep a task may be delegated."""
        self._running: Counter[str] = Counter()
        handlers: tuple[Callable[..., Any], ...] = (
            self._work,
            self._fail,
            self._stall,
            self._resist,
            self._give_up,
            self._reenter,
        )
        self.plain = [
            Tool(each.__name__.strip("_"), "Do it.", _PARAMETERS, each, timeout=TIMEOUT)
            for each in handlers
        ]
        helper = Agent("ask_helper", instructions="Help.")
        self.delegating = helper.as_tool(max_depth=depth)
        helper.tools = (self.plain[0], self.plain[1], self.delegating)
        self.helper = helper

    async def _work(self, mark: str, seconds: float) -> str:
        scope, operation = current_scope.get(), current_operation.get()
        assert scope is not None
        depth = depth_of(mark.partition("#")[0])
        self._check(scope.depth == depth, "I12: %s runs at depth %s", mark, scope.depth)
        alone = self._running[scope.run_id] == 0
        self._check(alone or not operation.sequential or depth, "I11: %s is not alone", mark)
        self._running[scope.run_id] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._running[scope.run_id] -= 1
        return f"done {mark}"

    async def _fail(self, mark: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        raise ValueError(mark)

    async def _stall(self, mark: str, seconds: float) -> str:
        await asyncio.sleep(1e6)
        return "never"

    async def _resist(self, mark: str, seconds: float) -> str:
        """Takes a while to end when it is cancelled, and then says that all is well."""
        try:
            await asyncio.sleep(2 * seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)
        return f"done {mark}"

    async def _give_up(self, mark: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        raise asyncio.CancelledError

    async def _reenter(self, mark: str, seconds: float) -> str:
        """Asks the session in whose turn it runs, which must not wait for itself."""
        session = current_operation.get().session
        return "no session" if session is None else str(await session.ask("[nobody] Again?"))

    def check_results(self, call: Call) -> None:
        """Each call of each turn so far has its own result, in the order of the calls."""
        depth = depth_of(call.tag)
        self._check(depth <= self._depth, "I12: %s was delegated", call.tag)
        messages = call.request.messages
        for place, message in enumerate(messages):
            calls = message.tool_calls
            results = messages[place + 1 : place + 1 + len(calls)]
            for asked, result in zip(calls, results, strict=False):
                ids = asked.id == result.tool_call_id
                right = ids and self._answers(asked, result)
                self._check(right, "I11: %s was answered %s", asked, result)
            self._check(len(calls) == len(results), "I11: a result is lacking in %s", messages)

    def _answers(self, asked: ToolCall, result: Message) -> bool:
        said, mark = result.text, str(asked.arguments.get("mark"))
        in_session = current_operation.get().session is not None
        expected = {
            "work": f"done {mark}",
            "resist": f"done {mark}",
            "fail": f"Error: ValueError: {mark}",
            "stall": f"Error: TimeoutError: no result within {TIMEOUT:g} seconds",
            "give_up": "Error: CancelledError: the tool cancelled itself",
            "reenter": "Error: SessionError: " if in_session else "no session",
            "no_such_tool": "Error: UnknownTool: ",
        }.get(asked.name)
        if expected is not None:
            return said.startswith(expected)
        task = str(asked.arguments.get("task"))
        too_deep = depth_of(task) > self._depth
        return ("delegation depth" in said) is too_deep

    def _check(self, holds: object, violated: str, *about: object) -> None:
        self._judge.check(holds, violated, *about)
