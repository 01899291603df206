"""The data models work from their first use on, whatever that is. Each test has an interpreter of
its own, in which none was used before."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from pydantic_core import to_json

from aether.llm.content import ImagePart, TextPart
from aether.llm.messages import LLMResponse, Message, ToolCall

ROOT = Path(__file__).parents[2]


def run(code: str, given: bytes = b"") -> bytes:
    """What the code printed."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        input=given,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.strip()


def test_threads_may_use_them_for_the_first_time_at_once() -> None:
    code = """
import sys, threading
from aether.llm.content import TextPart
from aether.llm.messages import LLMRequest, LLMResponse, Message, ToolCall

uses = [
    lambda: Message.model_validate_json('{"role": "user", "content": ["x"]}'),
    lambda: Message("assistant", tool_calls=[ToolCall("1", "add")]).model_dump_json(),
    lambda: LLMResponse("yes", "m", tool_calls=[ToolCall("1", "add")]),
    lambda: LLMRequest([Message("user", [TextPart(text="x")])], temperature=0.5),
]
ready = threading.Barrier(8)
failed = []

def use(first):
    ready.wait()
    try:
        first()
    except BaseException as error:
        failed.append(error)

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=use, args=(uses[place % 4],)) for place in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
"""
    run(code)


PART = TextPart(text="x")
CALL = ToolCall("1", "add", {"a": 1})
MESSAGE = Message("assistant", [PART], tool_calls=[CALL])
IMAGE = ImagePart(data=b"\x00\xff", media_type="image/png")


def test_what_was_pickled_is_written_as_json_by_a_process_that_made_none() -> None:
    values = [CALL, {"part": PART}, IMAGE, MESSAGE, LLMResponse("yes", "m")]
    code = """
import pickle, sys
from pydantic_core import to_json
for value in pickle.load(sys.stdin.buffer):
    print(to_json(value).decode())
"""
    written = run(code, pickle.dumps(values)).splitlines()

    assert written == [to_json(value) for value in values]


def test_a_part_of_what_was_read_is_written_alone() -> None:
    code = """
import sys
from aether.llm.messages import Message
from pydantic_core import to_json
message = Message.model_validate_json(sys.stdin.buffer.read())
sys.stdout.buffer.write(to_json([message.content[0], message.tool_calls[0]]))
"""
    assert run(code, MESSAGE.model_dump_json().encode()) == to_json([PART, CALL])


def test_their_json_schema_may_be_the_first_thing_asked_for() -> None:
    code = """
from aether.llm.messages import LLMResponse
from pydantic_core import to_json
print(to_json(LLMResponse.model_json_schema()).decode())
"""
    assert run(code) == to_json(LLMResponse.model_json_schema())
