"""The first look at Aether, on a small model that runs on this machine: `make demo`.

LLM_PROVIDER=openai OPENAI_API_KEY=... python try_it.py   # the same on OpenAI
LLM_PROVIDER=fake python try_it.py                        # the same without any model
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from aether import Aether, AetherError, register_tool
from aether.errors import ToolLoopError

# With a seed, a small model says the same again. Whether it is right is another matter.
SEED = 3
# It also rambles, so it is cut off here. Larger models end by themselves, and may think first.
LONGEST = {"local": 80}


@register_tool
def add(a: int, b: int) -> int:
    """Add two integers.

    Args:
        a: the first number
        b: the second number
    """
    return a + b


async def main() -> None:
    """Ask, stream, use a tool, keep a session, and look at what it took."""
    limit = LONGEST.get(os.environ.get("LLM_PROVIDER", ""))
    async with Aether() as client:
        heading("A question")
        print(await client.ask("What is the sun?", seed=SEED, max_tokens=limit))

        heading("A stream, as it is generated")
        async for text in client.stream_text("Why do we sleep?", seed=SEED, max_tokens=limit):
            print(text, end="", flush=True)
        print()

        heading("A tool, run with the arguments that the model gave")
        await use_a_tool(client, limit)

        heading("A session of two turns")
        session = client.session("try-it", system="Answer in one short sentence.")
        for line in ("What is a good pet for a child?", "Why that one?"):
            print("you:  ", line)
            print("model:", await session.ask(line, seed=SEED, max_tokens=limit))

        heading("What was used, and what ran")
        print(client.usage)
        print(client.provider)


async def use_a_tool(client: Aether, limit: int | None) -> None:
    """Have the model call `add`, and tell what it did, right or wrong."""
    wanted = {"a": 17, "b": 25}
    called: list[dict[str, Any]] = []

    @client.on("tool.complete")
    def show(event: Any) -> None:
        called.append(event.call.arguments)
        print(f"tool:  {event.call.name}({event.call.arguments}) gave {event.result}")

    question = "What is {a} + {b}?".format(**wanted)
    print("you:  ", question)
    try:
        answer = await client.ask(
            question, tools=["add"], tool_choice="add", seed=SEED, max_tokens=limit
        )
        print("model:", answer)
    except ToolLoopError as error:
        print("model: no answer.", error)
    if not called:
        print("The model did not call the tool.")
    elif wanted not in called:
        print("Those are not the numbers of the question. Small models make such mistakes.")


def heading(text: str) -> None:
    """Begin a part of the output."""
    print(f"\n--- {text} ---")


if __name__ == "__main__":
    if not os.environ.get("AETHER_MODEL"):
        os.environ.setdefault("LLM_PROVIDER", "local")
    try:
        asyncio.run(main())
    except AetherError as error:
        sys.exit(f"try_it.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(
        "\nFor a provider with a key, set LLM_PROVIDER (openai, groq, openrouter, mistral...) and "
        "its key,\nfor example: LLM_PROVIDER=openai OPENAI_API_KEY=... python try_it.py"
    )
