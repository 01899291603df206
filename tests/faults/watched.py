"""What the interpreter is made to do, while hostile text goes through tools and messages.

    python tests/faults/watched.py calls          # by calls, messages and answers
    python tests/faults/watched.py annotations    # by registering a function

It prints as JSON what was compiled, run, imported or opened. It is a program of its own, because
nobody can take an audit hook away again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic

sys.path.insert(0, str(Path(__file__).parents[2]))

from aether.llm.contracts import LLMResponse, Message, ToolCall
from aether.tools import Tool, dispatch_tool
from aether.tools.docstrings import parse_docstring
from aether.tools.schema import build_tool

CODE = "__import__('os').system('echo hacked')"
HOSTILE: list[Any] = [
    CODE,
    f"{{{CODE}}}",
    f"{{{{ {CODE} }}}}",
    f"${{{CODE}}}",
    "%(x)s",
    "{0.__class__.__init__.__globals__}",
    "!!python/object/apply:os.system ['x']",
    "cos\nsystem\n(S'x'\ntR.",
    "lambda: 0",
    "__class__",
    [CODE],
    {"__class__": CODE},
    {"$ref": CODE},
    {"py/object": CODE},
    {"type": CODE},
    {"lc": 1, "type": "constructor", "id": ["os", "system"]},
]
EVENTS = {
    "compile",
    "exec",
    "import",
    "marshal.loads",
    "open",
    "os.exec",
    "os.fork",
    "os.system",
    "pickle.find_class",
    "socket.connect",
    "subprocess.Popen",
}

seen: list[str] = []
watching = False


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event in EVENTS:
        first = arguments[0] if arguments else ""
        seen.append(f"{event} {first.decode() if isinstance(first, bytes) else first}")


class Colour(enum.Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    name: str
    when: dt.datetime | None = None


@dataclasses.dataclass
class Record:
    size: int


def every(
    text: str,
    number: int,
    items: list[float],
    colour: Colour,
    model: Model,
    record: Record,
    kind: Literal["a", "b"],
    anything: Any,
    flag: bool = False,
    **rest: str,
) -> str:
    """Take every kind of argument."""
    return text


EVERY = build_tool(every, description=CODE)
BY_HAND = Tool(
    "by_hand",
    CODE,
    {
        "type": "object",
        "properties": {"a": {"default": CODE, "$ref": CODE, "pattern": CODE}},
        "required": ["a"],
    },
    handler=str,
)


def calls_with(value: Any) -> Iterator[ToolCall]:
    names = ["text", "number", "items", "colour", "model", "record", "kind", "anything", "flag"]
    yield ToolCall("1", "every", dict.fromkeys([*names, "rest"], value))
    yield ToolCall("1", "every", {"anything": value})
    yield ToolCall.parse("1", "every", json.dumps(value))
    yield ToolCall("1", "by_hand", {"a": value})
    yield ToolCall("1", str(value), {})


async def go_through() -> None:
    for value in HOSTILE:
        for call in calls_with(value):
            await dispatch_tool(call, tools=[EVERY, BY_HAND])
        text = value if isinstance(value, str) else json.dumps(value)
        message = Message("assistant", text, provider_state={"x": value})
        Message.model_validate_json(message.model_dump_json())
        LLMResponse(text, text).model_dump_json()
        parse_docstring(f"{text}\n\nArgs:\n    x ({text}): {text}\n")


def first_of_all(size: "int") -> "str":  # noqa: UP037 - text, as it is after the import above
    """Be registered first, so that what is loaded at first use is loaded.

    Args:
        size: Any.
    """
    return ""


def decorated(size: "int", names: "list[str]", default: str = CODE) -> "bool":  # noqa: UP037
    """__import__('os').system('echo a docstring')

    Args:
        size: __import__('os').system('echo a description')
        names: __import__('os').system('echo another')
    """
    return False


def register() -> None:
    build_tool(decorated)
    build_tool(decorated, description=CODE)


def main(what: str) -> None:
    global watching  # noqa: PLW0603 - the hook cannot be taken away
    sys.addaudithook(hook)
    if what == "calls":
        asyncio.run(go_through())  # what is loaded at first use is loaded now
        with asyncio.Runner() as runner:
            runner.get_loop()
            watching = True
            runner.run(go_through())
            watching = False
    else:
        build_tool(first_of_all)
        watching = True
        register()
        watching = False
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
