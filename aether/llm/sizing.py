"""How many tokens a request or an answer has: about, and at most.

It must not know a price, a ledger, nor how a model counts.
"""

from __future__ import annotations

import json

from aether.llm.content import AudioPart, CachePoint, ImagePart, ReasoningPart, TextPart
from aether.llm.messages import LLMRequest, LLMResponse, Message, StreamChunk, ToolCall

__all__ = [
    "LARGEST_INPUT",
    "LARGEST_OUTPUT",
    "brings_more_in",
    "estimate_input_tokens",
    "estimate_tokens",
    "input_token_bound",
    "output_token_bound",
    "written_beside_text",
    "written_bytes",
]

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 1_000
"""About what an image of the usual size is counted as."""
LARGEST_IMAGE = 65_536
"""No image is counted as more: gpt-4o-mini's, with 48,169 at most, come nearest."""
LARGEST_INPUT = 2_097_152
"""No model of the time reads more than this."""
LARGEST_OUTPUT = 131_072
"""No model of the time answers with more tokens than this where the request sets no limit."""
_PIECE = 65_536
SERVER_PROMPT = 1_024
"""A server adds fewer tokens than this to a request with tools or a schema: Anthropic says that it
is up to 530."""
_HARMLESS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "metadata",
        "min_p",
        "presence_penalty",
        "prompt_cache_key",
        "repetition_penalty",
        "safety_identifier",
        "store",
        "top_k",
        "top_logprobs",
        "user",
        "verbosity",
    }
)
"""Fields of `extra_body` that bring nothing in, and change nothing of how much may come out."""


def estimate_tokens(size: int) -> int:
    """About how many tokens a text of so many characters, or bytes in UTF-8, has: one to four."""
    return -(-size // BYTES_PER_TOKEN)


def estimate_input_tokens(request: LLMRequest) -> int:
    """About how many tokens the request has: its texts, calls, tools, schema and images."""
    tokens = 0
    for message in request.messages:
        tokens += estimate_tokens(_bytes(message.text))
        tokens += sum(estimate_tokens(_call_bytes(call)) for call in message.tool_calls)
        if not isinstance(message.content, str):
            tokens += IMAGE_TOKENS * sum(isinstance(part, ImagePart) for part in message.content)
    return tokens + estimate_tokens(_described_bytes(request) or 0)


def input_token_bound(request: LLMRequest) -> int:
    """The request has no more tokens than this: one to each byte of its messages, tools and schema
    as JSON, and what a server adds to them.

    What it only names (a document by URL), what fields of `extra_body` may bring in, or what is no
    JSON (a third party's provider may send it all the same), may be of any length: then it is the
    most that a model reads.
    """
    if brings_more_in(request) or any(map(_is_open_ended, request.messages)):
        return LARGEST_INPUT
    size = _described_bytes(request)
    if size is None:
        return LARGEST_INPUT
    if size:
        size += SERVER_PROMPT
    for message in request.messages:
        if _letters(message) > LARGEST_INPUT:  # to write it as JSON would take a while
            return LARGEST_INPUT
        try:
            size += len(message.model_dump_json().encode())
        except ValueError:  # it is no JSON
            return LARGEST_INPUT
        if not isinstance(message.content, str):
            size += LARGEST_IMAGE * sum(isinstance(part, ImagePart) for part in message.content)
    return size


def output_token_bound(request: LLMRequest) -> int:
    """No answer to the request has more tokens, reasoning included: its `max_tokens`, else
    `LARGEST_OUTPUT`.
    """
    if request.max_tokens is None:
        return LARGEST_OUTPUT
    if brings_more_in(request):  # also another limit, maybe
        return max(request.max_tokens, LARGEST_OUTPUT)
    return request.max_tokens


def brings_more_in(request: LLMRequest) -> bool:
    """Whether fields of `extra_body` may bring input in, or change how much may come out."""
    return not _HARMLESS.issuperset(request.extra_body)


def written_beside_text(chunk: StreamChunk) -> int:
    """The characters of a chunk's reasoning and of its piece of a call."""
    call = chunk.tool_call
    size = len(chunk.reasoning or "")
    return size if call is None else size + len(call.name or "") + len(call.arguments)


def written_bytes(response: LLMResponse) -> int:
    """The bytes that the model wrote, reasoning and calls included."""
    calls = sum(map(_call_bytes, response.tool_calls))
    return _bytes(response.text) + _bytes(response.reasoning or "") + calls


def _call_bytes(call: ToolCall) -> int:
    invalid = call.invalid_arguments
    size = _json_bytes(call.arguments) if invalid is None else _bytes(invalid)
    return _bytes(call.name) + (size or 0)


def _described_bytes(request: LLMRequest) -> int | None:
    """Of what stands beside the messages: tools and a schema, as JSON, if they are that."""
    described: list[object] = [
        [tool.name, tool.description, dict(tool.parameters)] for tool in request.tools
    ]
    if request.output_schema is not None:
        described.append(request.output_schema)
    return _json_bytes(described, escaped=True) if described else 0


def _json_bytes(value: object, *, escaped: bool = False) -> int | None:
    """Its size as JSON, or `None` where it is none: nothing here may fail for what was sent."""
    try:
        return _bytes(json.dumps(value, ensure_ascii=escaped, default=str))
    except Exception:  # noqa: BLE001 - whatever stands in it, a cycle or what cannot be shown
        return None


def _bytes(text: str) -> int:
    if text.isascii():
        return len(text)
    pieces = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))  # no copy of it all
    return sum(len(piece.encode("utf-8", "surrogatepass")) for piece in pieces)


def _letters(message: Message) -> int:
    """The characters of its text, and of arguments that could not be read."""
    return len(message.text) + sum(len(call.invalid_arguments or "") for call in message.tool_calls)


def _is_open_ended(message: Message) -> bool:
    """Whether a part of it may be of any length, however short it is here.

    A document may be compressed; sound is not, to a token for less than a byte.
    """
    if isinstance(message.content, str):
        return False
    bounded = (TextPart, ReasoningPart, CachePoint, ImagePart)
    return any(
        not isinstance(part, bounded) and not (isinstance(part, AudioPart) and part.url is None)
        for part in message.content
    )
