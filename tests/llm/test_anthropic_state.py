"""What Anthropic must get back as it came, and when it no longer may: through the provider."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from aether.extensions.llm.anthropic import AnthropicProvider
from aether.llm.contracts import LLMRequest, LLMResponse, Message, TextPart

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedTransport

UNBOUND = "claude-opus-4-8"
BOUND = "claude-haiku-5-5"

THINKING = {"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmVk"}
REDACTED = {"type": "redacted_thinking", "data": "b3BhcXVl"}
TEXT = {"type": "text", "text": "I will add."}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": 2}}
SEARCH = {
    "type": "server_tool_use",
    "id": "srvtoolu_1",
    "name": "web_search",
    "input": {"query": "q"},
}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
CITED = {
    "type": "text",
    "text": "Cited.",
    "citations": [{"type": "char_location", "cited_text": "x", "document_index": 0}],
}


def answer(*content: Any, stop: str = "end_turn", **fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 9, "output_tokens": 3}
    return {"model": "m", "content": list(content), "stop_reason": stop, "usage": usage, **fields}


class Conversation:
    def __init__(self, transport: ScriptedTransport, model: str = UNBOUND) -> None:
        self.transport = transport
        self.provider = AnthropicProvider("sk-ant-canary-0123456789", model, transport=transport)
        self.messages = [Message("user", "What is 1 + 2?")]

    async def ask(self, *content: Any, stop: str = "end_turn", **fields: Any) -> LLMResponse:
        self.transport.answers_json(answer(*copy.deepcopy(content), stop=stop, **fields))
        return await self.provider.complete(LLMRequest(self.messages))

    async def sent_back(self, *messages: Message) -> list[tuple[str, Any]]:
        """The turns of the next request, which has these messages behind the first."""
        self.messages += messages
        await self.ask({"type": "text", "text": "Done."})
        return [
            (turn["role"], turn["content"]) for turn in self.transport.calls[-1].body["messages"]
        ]


@pytest.fixture
def conversation(transport: ScriptedTransport) -> Conversation:
    return Conversation(transport)


def stored(message: Message) -> Message:
    """The message as a session's store gives it back."""
    return Message.model_validate_json(message.model_dump_json())


GO_ON = Message("user", "Go on.")
RESULT = Message("tool", "3", tool_call_id="toolu_1")


async def test_thinking_goes_back_before_the_call_it_led_to(conversation: Conversation) -> None:
    response = await conversation.ask(THINKING, REDACTED, TEXT, CALL, stop="tool_use")
    sent = await conversation.sent_back(stored(response.message), RESULT)
    assert sent[1] == ("assistant", [THINKING, REDACTED, TEXT, CALL])
    assert sent[2][1][0]["tool_use_id"] == "toolu_1"


@pytest.mark.parametrize(
    "content",
    [
        (THINKING, TEXT),
        (SEARCH, FOUND, TEXT),
        (TEXT, THINKING, CITED),
        (TEXT, TEXT),
        ({**THINKING, "thinking": ""}, TEXT),
        ({"type": "mcp_tool_use", "id": "m", "name": "ask", "server_name": "s", "input": {}}, TEXT),
        ({"type": "compaction", "content": "Before: ..."}, TEXT),
        ({"type": "something_new", "data": {"x": [1, None]}}, TEXT),
    ],
)
async def test_what_has_no_form_of_its_own_goes_back_unchanged(
    conversation: Conversation, content: tuple[Any, ...]
) -> None:
    response = await conversation.ask(*content)
    sent = await conversation.sent_back(stored(response.message), GO_ON)
    assert sent[1] == ("assistant", list(content))


@pytest.mark.parametrize(
    ("content", "stop"),
    [
        ((TEXT,), "end_turn"),
        (({**TEXT, "citations": None},), "end_turn"),
        ((TEXT, CALL), "tool_use"),
        ((CALL,), "tool_use"),
    ],
)
async def test_plain_text_and_calls_need_no_state(
    conversation: Conversation, content: tuple[Any, ...], stop: str
) -> None:
    response = await conversation.ask(*content, stop=stop)
    assert response.message.provider_state == {}


async def test_a_session_that_keeps_the_text_alone_keeps_the_state(
    conversation: Conversation,
) -> None:
    response = await conversation.ask(THINKING, TEXT)
    kept = Message("assistant", response.text, provider_state=response.message.provider_state)
    sent = await conversation.sent_back(stored(kept), GO_ON)
    assert sent[1] == ("assistant", [THINKING, TEXT])


@pytest.mark.parametrize(
    "edit",
    [
        {"content": "I will subtract."},
        {"content": [TextPart(text="I will not.")]},
        {"tool_calls": []},
    ],
)
async def test_an_edited_message_goes_back_as_it_reads(
    conversation: Conversation, edit: dict[str, Any]
) -> None:
    response = await conversation.ask(THINKING, TEXT, CALL, stop="tool_use")
    edited = response.message.model_copy(update=edit)
    results = [RESULT] if edited.tool_calls else []
    sent = await conversation.sent_back(edited, *results, GO_ON)
    assert "signature" not in str(sent[1][1])
    assert edited.text in str(sent[1][1])


async def test_changed_arguments_are_an_edit(conversation: Conversation) -> None:
    response = await conversation.ask(THINKING, CALL, stop="tool_use")
    (call,) = response.tool_calls
    changed = call.model_copy(update={"arguments": {"a": 5, "b": 5}})
    edited = response.message.model_copy(update={"tool_calls": [changed]})
    sent = await conversation.sent_back(edited, RESULT)
    assert sent[1] == ("assistant", [{**CALL, "input": {"a": 5, "b": 5}}])


async def test_the_state_of_another_provider_is_left_alone(conversation: Conversation) -> None:
    foreign = Message(
        "assistant", "Yes.", provider_state={"gemini": {"parts": [1]}, "anthropic": "odd"}
    )
    sent = await conversation.sent_back(foreign, GO_ON)
    assert sent[1] == ("assistant", "Yes.")


@pytest.mark.parametrize("state", [{"content": []}, {"content": "x"}, {"content": [5]}, {}, []])
async def test_state_that_is_no_state_is_left_alone(conversation: Conversation, state: Any) -> None:
    kept = Message("assistant", "Yes.", provider_state={"anthropic": state})
    assert (await conversation.sent_back(kept, GO_ON))[1] == ("assistant", "Yes.")


async def test_what_the_api_refuses_of_its_own_is_left_out(conversation: Conversation) -> None:
    unsigned = {"type": "thinking", "thinking": "cut o", "signature": ""}
    nothing = {"type": "text", "text": "\n\n"}
    response = await conversation.ask(THINKING, nothing, unsigned, REDACTED, TEXT, THINKING)
    sent = await conversation.sent_back(response.message, GO_ON)
    assert sent[1] == ("assistant", [THINKING, REDACTED, TEXT])


async def test_thinking_that_no_one_signed_goes_back_to_models_that_sign_none(
    transport: ScriptedTransport,
) -> None:
    unsigned = {"type": "thinking", "thinking": "Let me see."}
    conversation = Conversation(transport, "deepseek-v4-flash")
    response = await conversation.ask(unsigned, TEXT, CALL, stop="tool_use")
    conversation.messages += [stored(response.message), RESULT]
    sent = await conversation.sent_back()
    assert sent[1] == ("assistant", [unsigned, TEXT, CALL])
    conversation.provider = AnthropicProvider(
        "sk-ant-canary-0123456789", UNBOUND, transport=transport
    )
    sent = await conversation.sent_back()
    assert sent[1] == ("assistant", [TEXT, CALL])


@pytest.mark.parametrize("given", [None, "", "toolu_1"])
async def test_thinking_goes_back_with_calls_that_had_no_id_of_their_own(
    conversation: Conversation, given: str | None
) -> None:
    calls = CALL, {**CALL, "id": given, "input": {}}
    response = await conversation.ask(THINKING, *calls, stop="tool_use")
    results = [Message("tool", "3", tool_call_id=call.id) for call in response.tool_calls]
    sent = await conversation.sent_back(stored(response.message), *results)
    assert sent[1][1][0] == THINKING
    assert [block["input"] for block in sent[1][1][1:]] == [CALL["input"], {}]
    answered = [block["tool_use_id"] for block in sent[2][1]]
    assert [block["id"] for block in sent[1][1][1:]] == answered
    assert len(set(answered)) == 2


async def test_an_id_that_the_api_does_not_take_still_pairs(conversation: Conversation) -> None:
    response = await conversation.ask(THINKING, {**CALL, "id": "call:1"}, stop="tool_use")
    result = Message("tool", "3", tool_call_id="call:1")
    sent = await conversation.sent_back(response.message, result)
    assert sent[1][1][1]["id"] == sent[2][1][0]["tool_use_id"] != "call:1"


async def test_an_answer_of_thinking_alone_is_left_out(conversation: Conversation) -> None:
    response = await conversation.ask(THINKING, stop="max_tokens")
    sent = await conversation.sent_back(response.message, GO_ON)
    assert [role for role, _ in sent] == ["user"]


# Models that bind their thinking to what stood before it


async def test_bound_thinking_goes_back_within_its_turn(transport: ScriptedTransport) -> None:
    conversation = Conversation(transport, BOUND)
    response = await conversation.ask(THINKING, TEXT, CALL, stop="tool_use")
    hurry = [Message("system", "Be brief."), Message("user", "And hurry.")]
    sent = await conversation.sent_back(response.message, RESULT, *hurry)
    assert sent[1] == ("assistant", [THINKING, TEXT, CALL])


async def test_bound_thinking_of_an_earlier_turn_stays_away(transport: ScriptedTransport) -> None:
    conversation = Conversation(transport, BOUND)
    response = await conversation.ask(THINKING, SEARCH, FOUND, REDACTED, CITED)
    sent = await conversation.sent_back(stored(response.message), GO_ON)
    assert sent[1] == ("assistant", [SEARCH, FOUND, CITED])


# Turns that the server pauses


async def test_a_paused_turn_is_sent_back_and_goes_on(transport: ScriptedTransport) -> None:
    conversation = Conversation(transport, BOUND)
    transport.answers_json(
        answer(THINKING, TEXT, SEARCH, stop="pause_turn", container={"id": "container_1"})
    )
    response = await conversation.ask(FOUND, CITED)
    first, second = transport.calls
    assert second.body["messages"] == [
        *first.body["messages"],
        {"role": "assistant", "content": [THINKING, TEXT, SEARCH]},
    ]
    assert second.body["container"] == "container_1"
    assert response.text == "I will add.Cited."
    assert response.finish_reason == "stop"
    assert (response.input_tokens, response.output_tokens) == (18, 6)
    sent = await conversation.sent_back(response.message, GO_ON)
    assert sent[1] == ("assistant", [TEXT, SEARCH, FOUND, CITED])
    assert "container" not in transport.calls[-1].body


async def test_what_came_before_a_pause_goes_back_with_the_plain_words_behind_it(
    conversation: Conversation,
) -> None:
    paused = answer(THINKING, SEARCH, FOUND, stop="pause_turn")
    conversation.transport.answers_json(paused)
    response = await conversation.ask(TEXT, CALL, stop="tool_use")
    sent = await conversation.sent_back(stored(response.message), RESULT)
    assert sent[1] == ("assistant", [THINKING, SEARCH, FOUND, TEXT, CALL])
    assert sent[2][1][0]["tool_use_id"] == "toolu_1"


async def test_a_pause_beside_calls_waits_for_their_results(conversation: Conversation) -> None:
    response = await conversation.ask(CALL, SEARCH, stop="pause_turn")
    assert len(conversation.transport.calls) == 1
    assert response.finish_reason == "tool_calls"
    sent = await conversation.sent_back(stored(response.message), RESULT)
    assert sent[1] == ("assistant", [CALL, SEARCH])


async def test_a_pause_that_cannot_go_on_is_told(transport: ScriptedTransport) -> None:
    response = await Conversation(transport).ask(TEXT, stop="pause_turn")
    assert response.finish_reason == "other"
    assert response.finish_reason_raw == "pause_turn"
    assert len(transport.calls) == 1


async def test_what_runs_in_a_container_is_answered_there(conversation: Conversation) -> None:
    called = {**CALL, "caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}}
    code = {**SEARCH, "name": "code_execution"}
    response = await conversation.ask(code, called, stop="tool_use", container={"id": "c1"})
    sent = await conversation.sent_back(stored(response.message), RESULT)
    assert sent[1] == ("assistant", [code, called])
    assert conversation.transport.calls[-1].body["container"] == "c1"
