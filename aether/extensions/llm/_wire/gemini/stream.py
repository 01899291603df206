"""From the events of a streamed answer to chunks, and at its end to the response.

It must not know where the events come from. There is no end mark: the body's end is the answer's,
if the server has said why it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic_core import from_json

from aether.errors import ProtocolError, StreamInterruptedError
from aether.extensions.llm._wire.errors import Source, reported_error
from aether.extensions.llm._wire.gemini.response import Answer
from aether.extensions.llm._wire.large_json import ReadDocument
from aether.extensions.llm._wire.reading import check_number
from aether.llm.messages import LLMResponse, StreamChunk

__all__ = ["GeminiAssembly"]

FOREIGN_END_MARK = b"[DONE]"
"""What some gateways append, in the manner of another protocol."""


class GeminiAssembly:
    """Puts one streamed answer together: `feed` it the events, then `finish`."""

    ended = False
    """Nothing in the stream says that nothing follows."""

    def __init__(self, *, source: Source) -> None:
        self._source = source
        self._answer = Answer(source)

    @property
    def finished(self) -> bool:
        """Whether the server has said why it stopped, and is not known to go on after that."""
        return self._answer.finish is not None and not self._answer.ran_code

    @property
    def has_content(self) -> bool:
        """Whether anything was said: text, reasoning, a call or an image."""
        return self._answer.has_content

    @property
    def characters(self) -> int:
        """How much was written, calls included."""
        return self._answer.characters

    def feed(self, data: bytes, name: str = "") -> Iterable[StreamChunk]:
        """The chunks that an event holds: text, reasoning, whole calls; often none."""
        if not data or data == FOREIGN_END_MARK:
            return ()
        source = self._source
        try:
            value = data.value if type(data) is ReadDocument else from_json(data)
        except ValueError as error:
            raise source.error(
                ProtocolError, f"An event in the stream of {source.provider} is not JSON."
            ) from error
        if name == "error":
            raise reported_error(value, source=source)
        if isinstance(value, list):
            check_number(value, "a chunk", source)
            return (chunk for each in value for chunk in self._answer.add(each))
        return self._answer.add(value)

    def finish(self) -> LLMResponse:
        """The whole. `StreamInterruptedError` if the server never said why it stopped, or said it
        with the result of its own code still to come.
        """
        if not self._answer.ended:
            source = self._source
            raise source.error(
                StreamInterruptedError,
                f"The stream of {source.provider} ended before the answer did.",
                kind="truncated",
                partial=self.partial(),
            )
        return self._answer.to_response()

    def partial(self) -> LLMResponse:
        """What has come so far."""
        return self._answer.to_response(whole=self.finished)
