"""What an installed Aether can do with its core dependencies alone. `check_wheel.py` runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.metadata import version
from pathlib import Path

HEAVY = ("aiohttp", "docstring_parser", "genai_prices", "httpx2", "xllamacpp")


async def main() -> None:
    import aether

    assert aether.__version__ == version("aether-framework")
    assert "site-packages" in Path(aether.__file__).parts, aether.__file__
    os.environ["LLM_PROVIDER"] = "fake"
    async with aether.Aether() as client:
        assert await client.ask("Is anybody there?") == "hello"
        assert "".join([text async for text in client.stream_text("And now?")]) == "hello"
        assert client.usage.total_requests == 2
    loaded = [name for name in HEAVY if name in sys.modules]
    assert not loaded, f"loaded without need: {loaded}"

    try:
        async with aether.Aether(config=aether.ProviderConfig(provider="local")) as client:
            await client.ask("Without the engine?")
    except aether.AetherError as error:
        assert "aether-framework[local]" in str(error), error
    else:
        raise AssertionError("the extra `local` is not installed, and nobody said so")
    print(f"aether {aether.__version__} installed, imported and answered")


asyncio.run(main())
