"""What an adapter makes of a request's options: each is sent, or refused, or known to be lacking.

It must not know a protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, get_args

import pytest

from aether.llm.contracts import ReasoningEffort
from aether.testing._provider_tests.answering import ADD, SCHEMA
from aether.testing._provider_tests.harness import BOTH_WAYS
from aether.testing._provider_tests.sending import LOOK_UP, SendingHarness, holds, times
from aether.testing.wires import WireRequest

__all__ = ["OptionTests", "Setting"]

Setting = Literal["seed", "reasoning", "parallel_tool_calls"]
"""An option that is left out, and no error, where a server has no word for it."""

VALUES: Mapping[Setting, Sequence[Any]] = {
    "seed": [4711],
    "reasoning": get_args(ReasoningEffort),
    "parallel_tool_calls": [False],
}
ROOM = 30_011
"""A limit in tokens that leaves room for reasoning."""
ADDED = {"added_field": "added-value"}


class OptionTests(SendingHarness):
    """Choices of tools, sampling, limits, and what is added."""

    lacks: frozenset[Setting] = frozenset()
    """The settings that the server, or the model that is asked, does not have."""

    @BOTH_WAYS
    async def test_each_choice_of_tools_is_told_from_the_others(self, streaming: bool) -> None:
        tools = (ADD, LOOK_UP)
        sent: dict[str, WireRequest] = {}
        for choice in ("auto", "none", "required", *(tool.name for tool in tools)):
            request = self.request(tools=tools, tool_choice=choice)
            taken = await self._taken(request, streaming)
            if taken is not None:
                sent[choice] = taken
        assert "auto" in sent, "the model's own choice is refused"
        for one, other in combinations(sent, 2):
            assert sent[one].body != sent[other].body, (
                f"tool_choice {one!r} and {other!r} are sent alike"
            )
        for tool in tools:
            if tool.name not in sent:
                continue
            body, offered = sent[tool.name], self.wire.offered(sent[tool.name])
            assert tool.name in offered, f"the tool that must be called is not in {body.body!r}"
            named = times(body, tool.name) > times(sent["auto"], tool.name)
            assert named or len(offered) == 1, f"{tool.name!r} is not demanded by {body.body!r}"

    @BOTH_WAYS
    async def test_stop_sequences_are_sent_or_refused(self, streaming: bool) -> None:
        stop = ["first-stop-sequence", "second-stop-sequence"]
        sent = await self._taken(self.request(stop=stop), streaming)
        assert sent is None or all(holds(sent, text) for text in stop), (
            f"a stop sequence is not in {sent.body!r}"
        )

    @pytest.mark.parametrize(("name", "value"), [("temperature", 0.41), ("top_p", 0.37)])
    @BOTH_WAYS
    async def test_sampling_is_as_it_was_chosen_or_refused(
        self, streaming: bool, name: str, value: float
    ) -> None:
        sent = await self._taken(self.request(**{name: value}), streaming)
        assert sent is None or str(value).encode() in sent.body, f"{name} is not in {sent.body!r}"

    @BOTH_WAYS
    async def test_the_limit_of_the_answer_is_sent(self, streaming: bool) -> None:
        sent = await self._sent(self.request(max_tokens=3217), streaming)
        assert b"3217" in sent.body, f"max_tokens is not in {sent.body!r}"

    @pytest.mark.parametrize("setting", VALUES)
    @BOTH_WAYS
    async def test_a_setting_is_no_error_and_sent_where_the_server_has_it(
        self, streaming: bool, setting: Setting
    ) -> None:
        fields: dict[str, Any] = {"max_tokens": ROOM}
        if setting == "parallel_tool_calls":
            fields["tools"] = [ADD]
        bodies = {(await self._sent(self.request(**fields), streaming)).body}
        for value in VALUES[setting]:
            request = self.request(**fields, **{setting: value})
            bodies.add((await self._sent(request, streaming)).body)
        if setting not in self.lacks:
            assert len(bodies) > 1, (
                f"{setting} changes nothing that is sent. If the server has no such setting, say "
                f"so in the class: lacks = frozenset({{{setting!r}}})"
            )

    @BOTH_WAYS
    async def test_what_is_added_to_the_headers_is_sent(self, streaming: bool) -> None:
        sent = await self._sent(self.request(extra_headers={"X-Added": "added-header"}), streaming)
        assert sent.headers.get("x-added") == "added-header"

    @BOTH_WAYS
    async def test_what_is_added_to_the_body_takes_nothing_away(self, streaming: bool) -> None:
        def request(extra: dict[str, Any]) -> Any:
            return self.request(tools=[ADD], output_schema=SCHEMA, extra_body=extra)

        plain = (await self._sent(request({}), streaming)).json
        cases: dict[str, tuple[Any, Any]] = {"": (ADDED, {**plain, **ADDED})}
        for name, value in plain.items():
            if isinstance(value, dict):
                cases[name] = ({name: ADDED}, {**plain, name: {**value, **ADDED}})
            elif name == "tools":
                cases[name] = ({name: [ADDED]}, {**plain, name: [*value, ADDED]})
        for name, (extra, expected) in cases.items():
            sent = (await self._sent(request(extra), streaming)).json
            assert sent == expected, f"{extra} was added to {name or 'the body'!r}: {sent}"
