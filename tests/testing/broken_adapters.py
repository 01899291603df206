"""Adapters with one fault each, and the test that must find it. Run by `test_conformance_suites`.

`FAULTS` is a list of pairs: the suite's class, the name of the test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aether.errors import InputError, ProviderError, StreamInterruptedError
from aether.extensions.http.aiohttp import AiohttpTransport
from aether.extensions.llm.anthropic import AnthropicProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.http.contracts import HTTPResponse
from aether.llm.contracts import ContentPart, LLMRequest, LLMResponse, Message, StreamChunk
from aether.llm.streaming import final_chunk
from aether.testing.providers import AdapterConformance
from aether.testing.wires import AnthropicWire, OpenAIChatWire
from aether.tools.contracts import Tool

FAULTS: list[tuple[type[AdapterConformance], str]] = []


class Sound(OpenAIProvider):
    """The adapter as it is; the broken ones change what it reads, or how."""

    def read(self, response: LLMResponse) -> LLMResponse:
        return response

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return self.read(await super().complete(request))

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        chunks = super().stream(request)
        try:
            async for chunk in chunks:
                response = chunk.response
                if response is None:
                    yield chunk
                else:
                    yield final_chunk(self.read(response), text=chunk.text)
        finally:
            await chunks.aclose()


def found_by(*tests: str, wire: Any = None) -> Any:
    """Enrol an adapter in the suite, and say which tests must fail for it."""

    def enrol(adapter: Any) -> Any:
        chosen = wire or OpenAIChatWire()

        class Suite(AdapterConformance):
            wire = chosen
            lacks = frozenset({"parallel_tool_calls"})
            cuts = 60
            patience = 0.3

            def make_provider(self, base_url: str) -> Any:
                return adapter(self.api_key, base_url=base_url)

        Suite.__name__ = Suite.__qualname__ = f"Test{adapter.__name__}"
        globals()[Suite.__name__] = Suite
        FAULTS.extend((Suite, test) for test in tests)
        return adapter

    return enrol


@found_by(
    "test_a_stream_that_ends_before_its_answer_is_an_error",
    "test_a_stream_that_ends_inside_an_event_is_an_error",
)
class TakesAPartForTheWhole(Sound):
    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        chunks = super().stream(request)
        try:
            async for chunk in chunks:
                yield chunk
        except StreamInterruptedError as error:
            partial = error.partial
            assert partial is not None
            yield final_chunk(partial.model_copy(update={"finish_reason": "stop"}))
        finally:
            await chunks.aclose()


@found_by("test_the_same_function_twice_is_two_calls", "test_an_answer_says_what_was_sent")
class MergesCalls(Sound):
    def read(self, response: LLMResponse) -> LLMResponse:
        by_name = {call.name: call for call in response.tool_calls}
        return _changed(response, tool_calls=list(by_name.values()))


@found_by("test_the_same_function_twice_is_two_calls", "test_text_beside_calls_is_kept")
class DropsACall(Sound):
    def read(self, response: LLMResponse) -> LLMResponse:
        return _changed(response, tool_calls=response.tool_calls[:-1])


@found_by("test_text_beside_calls_is_kept")
class DropsTextBesideCalls(Sound):
    def read(self, response: LLMResponse) -> LLMResponse:
        return _changed(response, text="") if response.tool_calls else response


@found_by("test_a_call_cut_off_by_the_output_limit_cannot_be_run")
class RunsCutCalls(Sound):
    def read(self, response: LLMResponse) -> LLMResponse:
        calls = [
            call.model_copy(update={"invalid_arguments": None}) for call in response.tool_calls
        ]
        return _changed(response, tool_calls=calls)


@found_by("test_counts_are_those_reported_and_unknown_is_none")
class LosesUsage(Sound):
    def read(self, response: LLMResponse) -> LLMResponse:
        return _changed(response, input_tokens=None, output_tokens=None)


@found_by("test_counts_are_those_reported_and_unknown_is_none")
class ReportsNothingForUnknown(Sound):
    def read(self, response: LLMResponse) -> LLMResponse:
        return _changed(response, cache_read_tokens=response.cache_read_tokens or 0)


@found_by(
    "test_counts_are_those_reported_and_unknown_is_none",
    "test_an_answer_says_what_was_sent",
    wire=AnthropicWire(),
)
class CountsWithoutTheCache(AnthropicProvider):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        response = await super().complete(request)
        cached = (response.cache_read_tokens or 0) + (response.cache_write_tokens or 0)
        return _changed(response, input_tokens=(response.input_tokens or 0) - cached)


@found_by("test_an_unknown_finish_reason_is_other_and_kept_as_it_was")
class TakesTheUnknownForAStop(Sound):
    def read(self, response: LLMResponse) -> LLMResponse:
        other = response.finish_reason == "other"
        return _changed(response, finish_reason="stop") if other else response


@found_by("test_calls_are_read_from_the_calls_and_not_from_the_finish_reason")
class BelievesTheFinishReason(Sound):
    def read(self, response: LLMResponse) -> LLMResponse:
        raw = response.finish_reason_raw
        return _changed(response, tool_calls=[]) if raw == "stop" else response


@found_by("test_a_refusal_is_the_error_of_its_kind", "test_what_is_no_answer_is_an_error")
class SwallowsErrors(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        try:
            return await super().complete(request)
        except ProviderError:
            return LLMResponse(text="", model="unknown", finish_reason="error")


@found_by("test_a_refusal_is_the_error_of_its_kind")
class TriesAgainInSilence(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        try:
            return await super().complete(request)
        except ProviderError:
            return await super().complete(request)


@found_by("test_what_is_no_answer_is_an_error")
class LetsForeignErrorsThrough(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        try:
            return await super().complete(request)
        except ProviderError as error:
            raise ValueError(str(error)) from error


@found_by("test_an_error_says_how_long_to_wait_and_which_request_it_was")
class ForgetsHowLongToWait(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        try:
            return await super().complete(request)
        except ProviderError as error:
            error.retry_after = None
            raise


class _Decoding(AiohttpTransport):
    """Decodes each piece of a body by itself."""

    @asynccontextmanager
    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        async with super().stream(*args, **options) as answer:
            yield _Pieces(answer, lambda piece: piece.decode("utf-8", "replace").encode())


class _Lines(AiohttpTransport):
    """Takes every line end that Python knows for one of the protocol's."""

    @asynccontextmanager
    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        async with super().stream(*args, **options) as answer:
            yield _Pieces(answer, _relined)


def _relined(piece: bytes) -> bytes:
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return piece
    return "\n".join(
        [*text.splitlines(), ""] if text.endswith("\n") else text.splitlines()
    ).encode()


class _Pieces:
    def __init__(self, answer: Any, change: Any) -> None:
        self._answer = answer
        self._change = change
        self.status = answer.status
        self.headers = answer.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        self._read = self._answer.chunks()
        async for piece in self._read:
            yield self._change(piece)


@found_by("test_a_stream_is_read_alike_wherever_it_is_cut_in_two")
class DecodesPiecesAlone(OpenAIProvider):
    def __init__(self, api_key: str, *, base_url: str) -> None:
        super().__init__(api_key, base_url=base_url, transport=partial(_Decoding))


@found_by("test_an_answer_says_what_was_sent")
class SplitsLinesTooOften(OpenAIProvider):
    def __init__(self, api_key: str, *, base_url: str) -> None:
        super().__init__(api_key, base_url=base_url, transport=partial(_Lines))


@found_by("test_text_is_handed_out_as_it_comes")
class WaitsForTheEnd(Sound):
    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        for chunk in [chunk async for chunk in super().stream(request)]:
            yield chunk


class _Leaky(AiohttpTransport):
    """Leaves an answer only if it was read to its end."""

    kept: tuple[Any, ...] = ()

    @asynccontextmanager
    async def stream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        context = super().stream(*args, **options)
        answer = await context.__aenter__()
        pieces = _Pieces(answer, bytes)
        self.kept = (*self.kept, context, pieces)
        yield pieces
        await context.__aexit__(None, None, None)


@found_by(
    "test_leaving_a_stream_early_closes_its_connection_at_once",
    "test_an_error_in_a_stream_closes_the_connection_at_once",
)
class LeaksItsConnection(OpenAIProvider):
    def __init__(self, api_key: str, *, base_url: str) -> None:
        super().__init__(api_key, base_url=base_url, transport=partial(_Leaky))


@found_by("test_a_cancelled_call_closes_its_connection_at_once")
class GoesOnAfterCancellation(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        return await asyncio.shield(super().complete(request))


@found_by("test_closing_closes_every_connection", "test_a_call_after_closing_is_an_error")
class NeverCloses(Sound):
    async def aclose(self) -> None:
        pass


@found_by("test_calls_at_once_each_get_their_own_answer")
class MixesCalls(Sound):
    latest: LLMResponse

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        self.latest = await super().complete(request)
        await asyncio.sleep(0.01)
        return self.latest


@found_by("test_an_attempt_is_in_the_ledger_once_with_its_counts")
class EntersTwice(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        if request.context is not None:
            request.context.open_entry(provider="openai", model="x").state = "exact"
        return await super().complete(request)


@found_by("test_the_key_is_not_shown_by_the_provider")
class ShowsItsKey(Sound):
    def __init__(self, api_key: str, *, base_url: str) -> None:
        super().__init__(api_key, base_url=base_url)
        self.api_key = api_key


@found_by("test_the_key_is_in_no_error")
class QuotesItsKey(Sound):
    def __init__(self, api_key: str, *, base_url: str) -> None:
        super().__init__(api_key, base_url=base_url)
        self._shown = [api_key.encode()]

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        try:
            return await super().complete(request)
        except ProviderError as error:
            raise type(error)(f"{error} (with {self._shown[0].decode()})") from None


class _KeyInQuery(AiohttpTransport):
    async def request(self, method: str, url: str, **options: Any) -> HTTPResponse:
        key = options["headers"]["authorization"].removeprefix("Bearer ")
        return await super().request(method, f"{url}?key={key}", **options)


@found_by("test_the_key_goes_in_a_header_and_nowhere_else")
class PutsItsKeyInTheAddress(OpenAIProvider):
    def __init__(self, api_key: str, *, base_url: str) -> None:
        super().__init__(api_key, base_url=base_url, transport=partial(_KeyInQuery))


@found_by("test_what_was_said_is_sent")
class DropsTheSystemMessage(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        messages = tuple(each for each in request.messages if each.role != "system")
        return await super().complete(request.replace(messages=messages))


@found_by("test_a_part_is_sent_or_refused_and_never_left_out")
class DropsPictures(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        messages = tuple(Message(role=each.role, content=each.text) for each in request.messages)
        return await super().complete(request.replace(messages=messages))


@found_by(
    "test_each_choice_of_tools_is_told_from_the_others",
    "test_stop_sequences_are_sent_or_refused",
    "test_sampling_is_as_it_was_chosen_or_refused",
    "test_the_limit_of_the_answer_is_sent",
    "test_a_setting_is_no_error_and_sent_where_the_server_has_it",
    "test_a_schema_for_the_answer_is_sent_and_answered_in_text",
    "test_what_is_added_to_the_headers_is_sent",
    "test_what_is_added_to_the_body_takes_nothing_away",
)
class ForgetsEveryOption(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        kept = LLMRequest(messages=request.messages, tools=request.tools, context=request.context)
        return await super().complete(kept)


@found_by("test_each_choice_of_tools_is_told_from_the_others")
class DemandsAnyToolForOne(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        named = request.tool_choice in [tool.name for tool in request.tools]
        return await super().complete(request.replace(tool_choice="required") if named else request)


@found_by("test_a_setting_is_no_error_and_sent_where_the_server_has_it")
class RefusesASeed(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        if request.seed is not None:
            raise InputError("There are no seeds here.")
        return await super().complete(request)


@found_by(
    "test_a_schema_for_the_answer_is_sent_and_answered_in_text",
    "test_an_answer_to_a_schema_is_text",
)
class AnswersASchemaByACall(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        schema = request.output_schema
        if schema is None:
            return await super().complete(request)
        answer = Tool("answer", "Answers.", schema, handler=str)
        tools = (*request.tools, answer)
        return await super().complete(request.replace(tools=tools, output_schema=None))


@found_by("test_a_call_of_a_tool_stays_a_call_beside_a_schema")
class TakesAnyCallForTheAnswer(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        response = await super().complete(request)
        if request.output_schema is None or not response.tool_calls:
            return response
        text = json.dumps(response.tool_calls[0].arguments)
        return _changed(response, text=text, tool_calls=[], finish_reason="stop")


class _Replacing(AiohttpTransport):
    """Puts an object that was added to in the place of what stood there."""

    async def request(self, method: str, url: str, **options: Any) -> HTTPResponse:
        body = json.loads(options["body"])
        for name, value in body.items():
            if isinstance(value, dict) and "added_field" in value:
                body[name] = {"added_field": value["added_field"]}
        options["body"] = json.dumps(body).encode()
        return await super().request(method, url, **options)


@found_by("test_what_is_added_to_the_body_takes_nothing_away")
class ReplacesWhatIsAddedTo(OpenAIProvider):
    def __init__(self, api_key: str, *, base_url: str) -> None:
        super().__init__(api_key, base_url=base_url, transport=partial(_Replacing))


class ChangesContent(Sound):
    """Sends other parts than it was given."""

    def kept(self, content: list[ContentPart]) -> list[ContentPart]:
        raise NotImplementedError

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        messages = [
            each
            if isinstance(each.content, str)
            else each.model_copy(update={"content": self.kept(each.content)})
            for each in request.messages
        ]
        return await super().complete(request.replace(messages=tuple(messages)))


@found_by("test_a_part_by_url_is_sent_or_refused_and_never_left_out")
class DropsWhatIsLinked(ChangesContent):
    def kept(self, content: list[ContentPart]) -> list[ContentPart]:
        return [part for part in content if getattr(part, "url", None) is None]


@found_by("test_cache_points_take_nothing_away", "test_cache_points_are_no_error")
class RefusesCachePoints(ChangesContent):
    def kept(self, content: list[ContentPart]) -> list[ContentPart]:
        if any(part.type == "cache_point" for part in content):
            raise InputError("There is no cache here.")
        return content


@found_by("test_cache_points_take_nothing_away")
class CutsAtACachePoint(ChangesContent):
    def kept(self, content: list[ContentPart]) -> list[ContentPart]:
        return content[:2]


@found_by("test_every_system_message_is_sent_wherever_it_stands")
class SendsTheFirstSystemMessageAlone(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        first, *rest = request.messages
        kept = [each for each in rest if each.role != "system"]
        return await super().complete(request.replace(messages=(first, *kept)))


@found_by("test_messages_that_are_no_conversation_are_refused_before_anything_is_sent")
class DropsStrayResults(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        try:
            return await super().complete(request)
        except InputError:
            messages = [Message(role="user", content="Go on.")]
            return await super().complete(request.replace(messages=tuple(messages)))


@found_by("test_a_turn_goes_back_with_its_state", wire=AnthropicWire())
class ForgetsItsState(AnthropicProvider):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        response = await super().complete(request)
        message = response.message.model_copy(
            update={"provider_state": {}, "content": response.text}
        )
        return response.model_copy(update={"message": message})


@found_by("test_the_state_of_another_provider_is_not_sent")
class SendsForeignState(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        state = [each.provider_state for each in request.messages]
        return await super().complete(request.replace(extra_body={"state": json.dumps(state)}))


@found_by("test_a_request_with_tools_and_history_is_left_as_it_was")
class ChangesTheRequest(Sound):
    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        request.messages[1].tool_calls[0].arguments["touched"] = True
        return await super().complete(request)


def _changed(response: LLMResponse, **fields: Any) -> LLMResponse:
    changed = response.model_copy(update=fields)
    message = changed.message.model_copy(
        update={"tool_calls": changed.tool_calls, "content": changed.text}
    )
    return changed.model_copy(update={"message": message})
