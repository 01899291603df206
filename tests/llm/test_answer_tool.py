"""Answers that follow a schema, from models that can only call tools or read instructions."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from aether import Aether
from aether.errors import OutputError, StreamInterruptedError
from aether.extensions.llm._wire.structured import AnswerTool, told_the_schema
from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
from aether.llm.content import ContentPart, ImagePart, TextPart
from aether.llm.contracts import LLMRequest, LLMResponse, Message, StreamChunk, ToolCall
from aether.llm.messages import ToolCallDelta
from aether.tools.contracts import Tool
from tests.llm.scripted import text_until_error

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
PARIS = '{"city": "Paris"}'
SEARCH = Tool("search", "Searches.", {"type": "object", "properties": {}}, lambda: "found")


def asked(*messages: Message, **fields: Any) -> LLMRequest:
    fields.setdefault("output_schema", SCHEMA)
    return LLMRequest(messages or [Message("user", "Where?")], **fields)


def called(*calls: ToolCall, text: str = "", finish: Any = "tool_calls") -> LLMResponse:
    return LLMResponse(text, "m", tool_calls=list(calls), finish_reason=finish, input_tokens=7)


def delta(index: int, arguments: str, name: str | None = None) -> StreamChunk:
    return StreamChunk(tool_call=ToolCallDelta(index, f"id{index}", name, arguments))


# What is sent


@pytest.mark.parametrize(
    ("tools", "choice", "offered", "sent_choice"),
    [
        ((), None, ["answer"], "answer"),
        ((), "none", ["answer"], "answer"),
        ((SEARCH,), None, ["search", "answer"], "required"),
        ((SEARCH,), "auto", ["search", "answer"], "required"),
        ((SEARCH,), "none", ["answer"], "answer"),
        ((SEARCH,), "required", ["search"], "required"),
        ((SEARCH,), "search", ["search"], "search"),
    ],
)
def test_the_model_must_answer_by_the_tool_or_call_another(
    tools: tuple[Tool, ...], choice: str | None, offered: list[str], sent_choice: str
) -> None:
    sent = AnswerTool(asked(tools=tools, tool_choice=choice)).request
    assert [tool.name for tool in sent.tools] == offered
    assert sent.tool_choice == sent_choice
    assert sent.output_schema is None
    assert [tool.parameters for tool in sent.tools if tool.name == "answer"] in ([], [SCHEMA])


def test_a_tool_of_that_name_keeps_it() -> None:
    own = Tool("answer", "Mine.", {"type": "object", "properties": {}}, print)
    answering = AnswerTool(asked(tools=(own,)))
    assert [tool.name for tool in answering.request.tools] == ["answer", "answer_"]
    call = ToolCall("1", "answer", {})
    assert answering.response(called(call)).tool_calls == [call]
    assert answering.response(called(ToolCall("1", "answer_", {"city": "Paris"}))).text == (
        '{"city":"Paris"}'
    )


# What comes back


def test_the_arguments_are_the_text() -> None:
    answer = called(ToolCall("1", "answer", {"city": "Paris"}), text="Let me think.")
    response = AnswerTool(asked()).response(answer)
    assert json.loads(response.text) == {"city": "Paris"}
    assert (response.tool_calls, response.finish_reason) == ([], "stop")
    assert response.message == Message("assistant", response.text)
    assert response.input_tokens == 7


def test_calls_of_other_tools_beside_the_answer_stay_calls() -> None:
    search = ToolCall("2", "search", {})
    answer = called(ToolCall("1", "answer", {"city": "Paris"}), search)
    response = AnswerTool(asked(tools=(SEARCH,))).response(answer)
    assert response.tool_calls == [search]
    assert response.finish_reason == "tool_calls"
    assert response.message.tool_calls == [search]


def test_a_turn_without_an_answer_is_left_as_it_is() -> None:
    text = LLMResponse(PARIS, "m", finish_reason="stop")
    search = called(ToolCall("2", "search", {}))
    assert AnswerTool(asked()).response(text) is text
    assert AnswerTool(asked(tools=(SEARCH,))).response(search) is search


def test_arguments_that_are_no_json_are_the_text_as_they_came() -> None:
    call = ToolCall.parse("1", "answer", '{"city": Paris}')
    assert AnswerTool(asked()).response(called(call)).text == '{"city": Paris}'


def test_a_streamed_answer_is_text_and_the_talk_beside_it_is_not() -> None:
    answering = AnswerTool(asked())
    chunks = [
        StreamChunk("I think", reasoning="hm"),
        delta(0, "", "answer"),
        delta(0, '{"city": '),
        delta(0, '"Paris"}'),
    ]
    shown = [answering.chunk(chunk) for chunk in chunks]
    final = answering.final_chunk(called(ToolCall("0", "answer", {"city": "Paris"}), text="I th"))
    assert [chunk.text for chunk in shown] == ["", "", '{"city": ', '"Paris"}']
    assert shown[0].reasoning == "hm"
    assert not any(chunk.tool_call for chunk in shown)
    assert (final.text, final.finish_reason, final.input_tokens) == ("", "stop", 7)
    assert final.response is not None
    assert final.response.text == PARIS


def test_text_instead_of_a_call_comes_at_the_end() -> None:
    answering = AnswerTool(asked())
    assert not answering.chunk(StreamChunk(PARIS)).has_content
    final = answering.final_chunk(LLMResponse(PARIS, "m", finish_reason="stop"))
    assert final.text == PARIS


def test_of_two_answers_the_first_counts() -> None:
    answering = AnswerTool(asked())
    chunks = [delta(0, PARIS, "answer"), delta(1, '{"city": "Rome"}', "answer"), delta(1, " ")]
    shown = [answering.chunk(chunk) for chunk in chunks]
    calls = [ToolCall("0", "answer", {"city": "Paris"}), ToolCall("1", "answer", {"city": "Rome"})]
    final = answering.final_chunk(called(*calls))
    assert "".join(chunk.text for chunk in [*shown, final]) == PARIS
    assert not any(chunk.tool_call for chunk in shown)
    assert final.tool_calls == []
    assert AnswerTool(asked()).response(called(*calls)).text == '{"city":"Paris"}'


def test_an_answer_cut_off_has_the_text_that_was_shown() -> None:
    answering = AnswerTool(asked())
    shown = answering.chunk(delta(0, '{"city": "Par', "answer"))
    final = answering.final_chunk(called(finish="length"))
    assert final.response is not None
    assert final.response.text == shown.text + final.text == '{"city": "Par'
    assert final.finish_reason == "length"


# Models that are told


def test_the_schema_joins_the_first_system_message() -> None:
    parts: list[ContentPart] = [
        TextPart(text="Be brief."),
        ImagePart(url="https://x.example/i.png"),
    ]
    for system, begins in [
        (None, ""),
        (Message("system", ""), ""),
        (Message("system", "Be brief."), "Be brief.\n\n"),
        (Message("system", parts), "Be brief.\n\n"),
    ]:
        user = Message("user", "Where?")
        request = asked(user) if system is None else asked(system, user)
        told = told_the_schema(request)
        first, *rest = told.messages
        assert first.role == "system"
        assert first.text.startswith(f"{begins}Your final answer")
        assert json.loads(first.text.partition("JSON Schema:\n")[2]) == SCHEMA
        assert rest == [user]
        assert told.output_schema == SCHEMA
    assert len(parts) == 2


# Through an adapter: Groq's API takes no response format beside tools, Cerebras' neither.


def provider(transport: Any, vendor: str = "groq") -> OpenAICompatibleProvider:
    return OpenAICompatibleProvider("sk-canary-0123456789", "m", vendor=vendor, transport=transport)


def wire_call(arguments: str, name: str = "answer", index: int = 0) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"c{index}", "type": "function", "function": function}


def whole(*calls: dict[str, Any], content: str | None = None, finish: str = "tool_calls") -> Any:
    message = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def events(*deltas: dict[str, Any], finish: str = "tool_calls") -> bytes:
    choices = [{"index": 0, "delta": delta} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    lines = [json.dumps({"choices": [choice]}) for choice in choices]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


def writing(*pieces: str, index: int = 0) -> list[dict[str, Any]]:
    first = {"tool_calls": [wire_call("", index=index)]}
    return [
        first,
        *({"tool_calls": [{"index": index, "function": {"arguments": p}}]} for p in pieces),
    ]


async def test_a_tool_is_run_and_then_the_answer_is_read(transport: ScriptedTransport) -> None:
    transport.answers_json(whole(wire_call("{}", "search")))
    transport.answers_json(whole(wire_call('{"value": [1, 2]}'), content="Here:"))
    async with Aether(provider(transport)) as client:
        response = await client.complete("Which?", tools=[SEARCH], output=list[int])
        assert client.usage.total_requests == 2
    assert response.output == [1, 2]
    assert json.loads(response.text) == {"value": [1, 2]}
    assert response.finish_reason == "stop"
    first, second = [call.body for call in transport.calls]
    assert [tool["function"]["name"] for tool in first["tools"]] == ["search", "answer"]
    assert first["tool_choice"] == second["tool_choice"] == "required"
    assert "response_format" not in first
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]


async def test_a_wrong_answer_is_shown_to_the_model_as_text(transport: ScriptedTransport) -> None:
    transport.answers_json(whole(wire_call('{"value": "two"}')))
    transport.answers_json(whole(wire_call('{"value": 2}')))
    async with Aether(provider(transport)) as client:
        assert await client.ask("How many?", tools=[SEARCH], output=int) == 2
    _, answer, again = transport.calls[1].body["messages"]
    assert answer["role"] == "assistant"
    assert json.loads(answer["content"]) == {"value": "two"}
    assert "tool_calls" not in answer
    assert "valid integer" in again["content"]


async def test_deltas_join_to_the_text(transport: ScriptedTransport) -> None:
    deltas = [{"content": "Let me see."}, *writing('{"val', 'ue": [1,', " 2]}")]
    transport.answers(events(*deltas))
    async with Aether(provider(transport)) as client:
        chunks = [
            chunk async for chunk in client.stream("Which?", tools=[SEARCH], output=list[int])
        ]
    final = chunks[-1]
    assert final.response is not None
    assert "".join(chunk.text for chunk in chunks) == final.response.text == '{"value": [1, 2]}'
    assert final.output == [1, 2]
    assert [chunk.partial for chunk in chunks] == [None, [1], [1, 2], None]
    assert all(chunk.has_content for chunk in chunks[:-1])
    assert final.finish_reason == "stop"


async def test_text_without_a_call_is_streamed_at_its_end(transport: ScriptedTransport) -> None:
    transport.answers(events({"content": '{"value"'}, {"content": ": 2}"}, finish="stop"))
    async with Aether(provider(transport)) as client:
        chunks = [chunk async for chunk in client.stream("?", tools=[SEARCH], output=int)]
    assert "".join(chunk.text for chunk in chunks) == '{"value": 2}'
    assert chunks[-1].output == 2


async def test_an_answer_cut_by_the_limit_is_an_error_with_its_text(
    transport: ScriptedTransport,
) -> None:
    transport.answers(events(*writing('{"value": [1, '), finish="length"))
    async with Aether(provider(transport)) as client:
        stream = client.stream("?", tools=[SEARCH], output=list[int])
        shown, error = await text_until_error(stream.detach())
    assert isinstance(error, OutputError)
    assert "cut off" in str(error)
    assert error.text == shown == '{"value": [1, '
    assert len(transport.calls) == 1


async def test_a_broken_stream_keeps_what_was_shown(transport: ScriptedTransport) -> None:
    begun = events(*writing('{"city": "Par')).partition(b"data: [DONE]")[0]
    cut = begun.rpartition(b"data: ")[0]
    transport.answers(cut)
    stream = provider(transport).stream(asked(tools=(SEARCH,)))
    shown, error = await text_until_error(stream)
    assert isinstance(error, StreamInterruptedError)
    assert error.partial is not None
    assert error.partial.text == shown == '{"city": "Par'


async def test_leaving_early_closes_the_connection(transport: ScriptedTransport) -> None:
    transport.answers(events(*writing('{"value": [1,', " 2]}")))
    async with aclosing(provider(transport).stream(asked(tools=(SEARCH,)))) as chunks:
        await anext(chunks)
        assert transport.open_streams == 1
    assert transport.open_streams == transport.open_bodies == 0


async def test_a_model_that_is_told_answers_in_a_fence(transport: ScriptedTransport) -> None:
    transport.answers_json(
        {"choices": [{"message": {"content": f"```json\n{PARIS}\n```"}, "finish_reason": "stop"}]}
    )
    async with Aether(provider(transport)) as client:
        answer = await client.ask("Where?", output=dict[str, str])
    assert answer == {"city": "Paris"}
    body = transport.calls[0].body
    assert body["messages"][0]["role"] == "system"
    assert "JSON Schema" in body["messages"][0]["content"]
    assert "tools" not in body
