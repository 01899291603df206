"""aimock plays a script over all four protocols: turns with reasoning, calls and their results.

It answers only what its script in `aimock.json` has an answer for, so that each turn must carry
what the one before it brought. Where it differs from the vendors, as their recorded answers are:

- Gemini's finish reason of calls is FUNCTION_CALL; the vendor says STOP, and has no such reason.
- Usage is 0 but over Chat Completions, so the script sets it.
- It checks Anthropic's signatures only for `thinking: enabled`, which today's models refuse, and
  gives Gemini's parts no signatures. So what goes back is read off the requests here.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from aether import Message
from aether.errors import BadRequestError, StreamInterruptedError
from aether.extensions.llm.openai_compatible import OpenAICompatibleProvider
from aether.llm.contracts import LLMRequest, LLMResponse
from aether.tools import Tool
from tests.peers.clients import KEY, PROTOCOLS, client, drain, fetch, post
from tests.peers.oracles import check_body
from tests.peers.processes import Process
from tests.peers.recording import Recorder, Sent

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])

PROMPT = "Compare the weather in Paris and Rome."
BASE_URLS = {"chat": "/v1", "responses": "/v1", "anthropic": "", "gemini": ""}
ANSWER = "Rome is warmer than Paris."
RESULTS = ["Paris: 22", "Rome: 31"]
SIGNATURE = "c2lnbmF0dXJlIG9mIHRoZSBmaXJzdCB0dXJu"
REDACTED = "bm90IGZvciB5b3VyIGV5ZXM="
THOUGHT = "Two cities, so two calls."


def get_weather(city: str) -> str:
    """Get the temperature in a city."""
    return {"Paris": "Paris: 22", "Rome": "Rome: 31"}[city]


@pytest.fixture
def recorder(aimock: Process) -> Recorder:
    post(f"{aimock.url}/__aimock/reset/journal", {})
    return Recorder()


@pytest.fixture
def journal(aimock: Process) -> Any:
    """What the server understood of each request, in the form of Chat Completions."""

    def entries() -> list[Any]:
        return [entry["body"]["messages"] for entry in fetch(f"{aimock.url}/__aimock/journal")]

    return entries


async def run(aether: Any, streamed: bool, **options: Any) -> tuple[str, str, LLMResponse]:
    """The text and the reasoning as they were handed out, and the last response."""
    if not streamed:
        response = await aether.complete(PROMPT, **options)
        return response.text, response.reasoning or "", response
    chunks = [chunk async for chunk in aether.stream(PROMPT, **options)]
    text = "".join(chunk.text for chunk in chunks)
    return text, "".join(chunk.reasoning or "" for chunk in chunks), chunks[-1].response


@every_protocol
@both_ways
async def test_two_calls_are_run_and_their_results_answered(
    protocol: str, streamed: bool, aimock: Process, recorder: Recorder, journal: Any
) -> None:
    async with client(protocol, aimock.url + BASE_URLS[protocol], transport=recorder) as aether:
        text, _, response = await run(aether, streamed, tools=[get_weather])
        assert text == response.text == ANSWER
        assert response.finish_reason == "stop"
        assert aether.usage.total_requests == 2
        assert aether.usage.total_input_tokens == 31 + 80
        assert aether.usage.total_output_tokens == 17 + 9
    if protocol != "chat":  # where reasoning goes back in a field that OpenAI does not have
        for sent in recorder.sent:
            check_body(protocol, sent.body, streamed=streamed)
    first, second = journal()
    assert [message["role"] for message in first] == ["user"]
    # It makes two messages of the two items that two calls are in the Responses API.
    turns = [message for message in second if message["role"] == "assistant"]
    assert len(turns) == (2 if protocol == "responses" else 1)
    assert second[1:-2] == turns
    calls = [call for turn in turns for call in turn["tool_calls"]]
    assert [call["function"]["name"] for call in calls] == ["get_weather"] * 2
    results = second[-2:]
    assert [result["role"] for result in results] == ["tool", "tool"]
    assert [result["tool_call_id"] for result in results] == [call["id"] for call in calls]
    for result, expected in zip(results, RESULTS, strict=True):
        assert expected in result["content"]


@both_ways
async def test_anthropics_thinking_goes_back_as_it_came(
    streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    async with client("anthropic", aimock.url, transport=recorder) as aether:
        await run(aether, streamed, tools=[get_weather], reasoning="low")
    _, second = recorder.sent
    turn = second.body["messages"][1]
    assert turn["role"] == "assistant"
    assert [block["type"] for block in turn["content"]] == [
        "redacted_thinking",
        "thinking",
        "tool_use",
        "tool_use",
    ]
    redacted, thinking = turn["content"][:2]
    assert redacted == {"type": "redacted_thinking", "data": REDACTED}
    assert thinking == {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}


@both_ways
async def test_anthropics_signatures_satisfy_a_server_that_checks_them(
    streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    # `enabled` is what the server checks, and what no model of today takes.
    enabled = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    async with client("anthropic", aimock.url, transport=recorder) as aether:
        text, _, _ = await run(aether, streamed, tools=[get_weather], extra_body=enabled)
    assert text == ANSWER


@both_ways
async def test_openais_reasoning_items_go_back_as_they_came(
    streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    async with client("responses", f"{aimock.url}/v1", transport=recorder) as aether:
        await run(aether, streamed, tools=[get_weather], reasoning="low")
    first, second = recorder.sent
    assert first.body["store"] is False
    assert first.body["include"] == ["reasoning.encrypted_content"]
    items = second.body["input"]
    kinds = [item.get("type", "message") for item in items]
    assert kinds == ["message", "reasoning", *["function_call"] * 2, *["function_call_output"] * 2]
    reasoning = items[1]
    assert reasoning["summary"] == [{"type": "summary_text", "text": THOUGHT}]
    assert reasoning["encrypted_content"]
    calls, outputs = items[2:4], items[4:]
    assert [output["call_id"] for output in outputs] == [call["call_id"] for call in calls]


@both_ways
async def test_geminis_calls_and_results_stand_in_turns_of_their_own(
    streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    async with client("gemini", aimock.url, transport=recorder) as aether:
        await run(aether, streamed, tools=[get_weather])
    _, second = recorder.sent
    user, model, results = second.body["contents"]
    assert [turn["role"] for turn in (user, model, results)] == ["user", "model", "user"]
    calls = [part["functionCall"] for part in model["parts"] if "functionCall" in part]
    assert [call["args"] for call in calls] == [{"city": "Paris"}, {"city": "Rome"}]
    answers = [part["functionResponse"] for part in results["parts"]]
    assert [answer["name"] for answer in answers] == ["get_weather"] * 2
    assert all(isinstance(answer["response"], dict) for answer in answers)


@both_ways
async def test_deepseeks_reasoning_goes_back_as_it_came(
    streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    provider = OpenAICompatibleProvider(
        vendor="deepseek", base_url=f"{aimock.url}/v1", transport=recorder
    )
    tool = Tool("get_weather", "", {"type": "object", "properties": {}}, get_weather)
    question = Message("user", PROMPT)
    request = LLMRequest([question], tools=[tool])
    if streamed:
        chunks = [chunk async for chunk in provider.stream(request)]
        response = chunks[-1].response
        assert response is not None
        assert "".join(chunk.reasoning or "" for chunk in chunks) == THOUGHT
    else:
        response = await provider.complete(request)
    assert response.reasoning == THOUGHT
    results = [
        Message("tool", text, tool_call_id=call.id)
        for text, call in zip(RESULTS, response.tool_calls, strict=True)
    ]
    answer = await provider.complete(
        LLMRequest([question, response.message, *results], tools=[tool])
    )
    assert answer.text == ANSWER
    assert recorder.sent[1].body["messages"][1]["reasoning_content"] == THOUGHT
    await recorder.aclose()


@pytest.mark.parametrize("protocol", ["responses", "anthropic", "gemini"])
@both_ways
async def test_reasoning_is_told_apart_from_text(
    protocol: str, streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    # Over Chat Completions OpenAI never shows it: only the like of DeepSeek do.
    async with client(protocol, aimock.url + BASE_URLS[protocol], transport=recorder) as aether:
        text, reasoning, response = await run(
            aether, streamed, tools=[get_weather], reasoning="low"
        )
    assert text == ANSWER
    assert response.reasoning == "Rome is the warmer one."
    assert reasoning.endswith(response.reasoning)


@every_protocol
@both_ways
async def test_a_conversation_goes_on(
    protocol: str, streamed: bool, aimock: Process, recorder: Recorder, journal: Any
) -> None:
    async with client(protocol, aimock.url + BASE_URLS[protocol], transport=recorder) as aether:
        session = aether.session("of two turns", system="Answer in one word.")
        if streamed:
            await drain(session.stream_text(PROMPT, tools=[get_weather]))
        else:
            await session.ask(PROMPT, tools=[get_weather])
        assert await session.ask("Which of them is in Italy?") == "Rome."
    roles = [message["role"] for message in journal()[-1]]
    assert roles == ["system", "user", "assistant", "user"]


class City(BaseModel):
    name: str
    inhabitants: int


@every_protocol
@both_ways
async def test_an_answer_of_a_type_is_asked_for_until_it_fits(
    protocol: str, streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    prompt = "Describe the largest city of France."
    async with client(protocol, aimock.url + BASE_URLS[protocol], transport=recorder) as aether:
        if streamed:
            chunks = [chunk async for chunk in aether.stream(prompt, output=City)]
            city = chunks[-1].output
            assert [chunk.is_partial for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
            assert {"name": "Paris", "inhabitants": 2048472} in [chunk.partial for chunk in chunks]
        else:
            city = await aether.ask(prompt, output=City)
        assert city == City(name="Paris", inhabitants=2048472)
        assert aether.usage.total_requests == 2
    for sent in recorder.sent:
        assert "inhabitants" in str(sent.body)
        check_body(protocol, sent.body, streamed=streamed)


@every_protocol
async def test_a_stream_that_is_cut_is_an_error(
    protocol: str, aimock: Process, recorder: Recorder
) -> None:
    async with client(protocol, aimock.url + BASE_URLS[protocol], transport=recorder) as aether:
        with pytest.raises(StreamInterruptedError) as caught:
            await drain(aether.stream_text("It is cut in the middle."))
    assert caught.value.partial is not None
    assert "An answer that".startswith(caught.value.partial.text[:14])


@every_protocol
@both_ways
async def test_an_answer_that_met_its_limit_says_so(
    protocol: str, streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    # Over the Responses API it says `incomplete`, but not of what, as the vendor does.
    expected = "other" if protocol == "responses" else "length"
    async with client(protocol, aimock.url + BASE_URLS[protocol], transport=recorder) as aether:
        if streamed:
            chunks = [chunk async for chunk in aether.stream("It is cut at the limit.")]
            assert chunks[-1].finish_reason == expected
        else:
            response = await aether.complete("It is cut at the limit.")
            assert response.finish_reason == expected


@every_protocol
@both_ways
async def test_a_refusal_is_not_tried_again(
    protocol: str, streamed: bool, aimock: Process, recorder: Recorder
) -> None:
    async with client(protocol, aimock.url + BASE_URLS[protocol], transport=recorder) as aether:
        prompt = "Please refuse this."
        answer = drain(aether.stream(prompt)) if streamed else aether.ask(prompt)
        with pytest.raises(BadRequestError, match="This is refused"):
            await answer
    assert len(recorder.sent) == 1


@every_protocol
async def test_the_key_goes_in_one_header_alone(
    protocol: str, aimock: Process, recorder: Recorder
) -> None:
    async with client(protocol, aimock.url + BASE_URLS[protocol], transport=recorder) as aether:
        await aether.ask("It is cut at the limit.")
    (sent,) = recorder.sent
    assert carriers(sent) == 1


def carriers(sent: Sent) -> int:
    assert KEY not in sent.url
    return sum(KEY in value for value in sent.headers.values())
