"""What an adapter sends of a message's content: each part, or a refusal, and nothing left out.

It must not know a protocol.
"""

from __future__ import annotations

from base64 import b64encode

import pytest

from aether.llm.contracts import (
    AudioPart,
    CachePoint,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    ToolCall,
)
from aether.testing._provider_tests.answering import ADD
from aether.testing._provider_tests.harness import BOTH_WAYS
from aether.testing._provider_tests.sending import SendingHarness, holds

__all__ = ["ContentTests"]

Media = ImagePart | AudioPart | FilePart

DATA = b"not really a picture"
PARTS: tuple[Media, ...] = (
    ImagePart(data=DATA, media_type="image/png"),
    AudioPart(data=DATA, media_type="audio/wav"),
    FilePart(data=DATA, media_type="application/pdf", name="a.pdf"),
)
ADDRESS = "https://media.invalid/marked-address"  # nobody is there: who fetches it cannot take it
LINKED: tuple[Media, ...] = (
    ImagePart(url=f"{ADDRESS}.png", media_type="image/png"),
    AudioPart(url=f"{ADDRESS}.wav", media_type="audio/wav"),
    FilePart(url=f"{ADDRESS}.pdf", media_type="application/pdf", name="a.pdf"),
)
CALL = ToolCall("call000Aa", "add", {"a": 1, "b": 2})


class ContentTests(SendingHarness):
    """Media, cache points and system messages."""

    @pytest.mark.parametrize("part", PARTS, ids=[part.type for part in PARTS])
    @BOTH_WAYS
    async def test_a_part_is_sent_or_refused_and_never_left_out(
        self, streaming: bool, part: Media
    ) -> None:
        await self._is_sent_or_refused(part, b64encode(DATA).decode(), streaming)

    @pytest.mark.parametrize("part", LINKED, ids=[part.type for part in LINKED])
    @BOTH_WAYS
    async def test_a_part_by_url_is_sent_or_refused_and_never_left_out(
        self, streaming: bool, part: Media
    ) -> None:
        await self._is_sent_or_refused(part, ADDRESS, streaming)

    @BOTH_WAYS
    async def test_cache_points_take_nothing_away(self, streaming: bool) -> None:
        point, longer = CachePoint(), CachePoint(ttl="1h")
        said = [f"{place}-part" for place in ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th")]
        parts = [TextPart(text=text) for text in said]
        messages = [
            Message(role="system", content=[parts[0], point]),
            Message(role="user", content=[parts[1], longer, parts[2]]),
            Message(role="assistant", content=[parts[3], point], tool_calls=[CALL]),
            Message(role="tool", content=[parts[4], point, parts[5]], tool_call_id=CALL.id),
            Message(role="user", content=[point, parts[6], longer, point]),
        ]
        sent = await self._sent(self.request(messages=messages, tools=[ADD]), streaming)
        lost = [text for text in said if not holds(sent, text)]
        assert not lost, f"{lost} beside cache points are not in {sent.body!r}"

    @BOTH_WAYS
    async def test_every_system_message_is_sent_wherever_it_stands(self, streaming: bool) -> None:
        said = ["first-instruction", "second-instruction", "late-instruction"]
        messages = [
            Message(role="system", content=said[0]),
            Message(role="system", content=said[1]),
            Message(role="user", content="Hello?"),
            Message(role="assistant", content="Hello."),
            Message(role="system", content=said[2]),
            Message(role="user", content="And now?"),
        ]
        sent = await self._sent(self.request(messages=messages), streaming)
        lost = [text for text in said if not holds(sent, text)]
        assert not lost, f"{lost} are not in {sent.body!r}"

    async def _is_sent_or_refused(self, part: Media, marked: str, streaming: bool) -> None:
        content: list[ContentPart] = [TextPart(text="What is this?"), part]
        request = self.request(messages=[Message(role="user", content=content)])
        sent = await self._taken(request, streaming)
        if sent is not None:
            assert holds(sent, "What is this?")
            assert holds(sent, marked), f"the {part.type} is lost"
