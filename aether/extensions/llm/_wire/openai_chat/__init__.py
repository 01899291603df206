"""OpenAI's Chat Completions, as data: requests to JSON, JSON and its chunks to responses.

It must not send anything. How a server differs from the protocol is told by its `Vendor`.
"""

from __future__ import annotations

from aether.extensions.llm._wire.openai_chat.request import render_request
from aether.extensions.llm._wire.openai_chat.response import parse_response
from aether.extensions.llm._wire.openai_chat.stream import ChatAssembly

__all__ = ["ChatAssembly", "parse_response", "render_request"]
