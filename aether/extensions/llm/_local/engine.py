"""The life of one embedded llama.cpp engine: loaded once, asked from any loop, closed for certain.

It must not know what is asked, nor how an answer is read.

The engine is called in-process, in worker threads: a call hands over its chunks one by one, and
stops at the next one (a token, or a batch of the prompt) once it is told to. Over its HTTP port,
which stays behind a random key, the engine notices a closed connection only once a second. Its
constructor keeps Python's interpreter lock: while a model is loaded, other threads stand still.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from aether._optional import require
from aether.errors import (
    AetherError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    MissingExtraError,
    ProviderError,
)
from aether.extensions.llm._local.models import HubReference, Model, check_model_file
from aether.extensions.llm._local.progress import loading_line
from aether.extensions.llm._wire.errors import clean

__all__ = ["Engine"]

CLOSED = "This provider (local) was closed."


class Engine:
    """A model that answers requests of llama.cpp's chat protocol, `n_parallel` of them at once.

    The model is found, fetched and loaded by the first request, in its worker thread. `n_ctx` is
    the context of each request, in tokens.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_parallel: int,
        n_threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self._model = model
        self._n_ctx = n_ctx
        self._n_parallel = n_parallel
        self._n_threads = n_threads or _default_threads()
        self._progress = progress
        self._server: Any = None
        self._loading = threading.Lock()
        self._lock = threading.RLock()  # close() may come from the collector, in the middle of it
        self._closed = False
        self._calls: set[_Call] = set()
        self._waiting: deque[tuple[_Call, dict[str, Any]]] = deque()
        # As many threads as slots, and only while there is work: Python waits for a pool's idle
        # threads at exit before it can be seen that it exits.
        self._threads: set[threading.Thread] = set()

    async def chunks(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The engine's chunks for a streaming request, as they come; one may be its error report.

        Closing it stops the engine at its next token. Raises `ClientClosedError` once the engine
        is closed, and what loading raises.
        """
        call = _Call(asyncio.get_running_loop())
        with self._lock:
            if self._closed:
                raise ClientClosedError(CLOSED)
            if len(self._threads) < self._n_parallel:
                thread = threading.Thread(target=self._work, name="aether-local", daemon=False)
                thread.start()
                self._threads.add(thread)
            self._calls.add(call)
            self._waiting.append((call, dict(body)))
        try:
            while (chunk := await call.next()) is not None:
                yield chunk
        finally:
            call.stopped = True
            with self._lock:
                self._calls.discard(call)

    def close(self) -> None:
        """Stop what is running and free the model. Twice is fine.

        Does not wait: the model is gone when the last call has noticed, a token later.
        """
        with self._lock:
            self._closed = True
            self._server = None
            calls = list(self._calls)
        for call in calls:
            call.end(ClientClosedError(CLOSED))

    async def aclose(self) -> None:
        """As `close`, and wait until the memory is free; a model that is loading is waited for."""
        self.close()
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            self._answer(*task)

    def _next(self) -> tuple[_Call, dict[str, Any]] | None:
        """The next request; `None` ends the thread."""
        with self._lock:
            if self._waiting and not _is_exiting():
                return self._waiting.popleft()
            self._threads.discard(threading.current_thread())
            return None

    def _answer(self, call: _Call, body: dict[str, Any]) -> None:
        try:
            self._ready(call).handle_chat_completions(body, call.take)
        except AetherError as error:
            call.end(error)
        except Exception as error:  # noqa: BLE001 - the engine raises any builtin exception
            call.end(_refused(error, self._model.name))
        else:
            call.end(None)

    def _ready(self, call: _Call) -> Any:
        with self._loading:
            if call.stopped:
                raise ClientClosedError(CLOSED)  # nobody hears it: its stream was left
            server = self._server
            if server is None:
                server = self._load()
                with self._lock:
                    if self._closed:
                        raise ClientClosedError(CLOSED)
                    self._server = server
            return server

    def _load(self) -> Any:
        library = _library()
        source = self._model.source
        path = source if isinstance(source, Path) else self._fetch(source)
        check_model_file(path)
        with loading_line(self._model.name, wanted=self._progress):
            try:
                return library.Server(self._parameters(library, path))
            except Exception as error:
                # The engine says "failed to init" and no more; its log is the only other witness.
                raise ConfigurationError(
                    f"The engine could not load {str(path)!r}: the file is damaged or cut short, "
                    "its kind of model is not known to the installed engine (pip install --upgrade "
                    f"xllamacpp), or there is no memory for it (n_ctx={self._n_ctx}, "
                    f"n_parallel={self._n_parallel})."
                ) from error

    def _fetch(self, source: HubReference) -> Path:
        from aether.extensions.llm._local.fetching import fetch_model

        return fetch_model(source, progress=self._progress, stopping=self._is_stopping)

    def _is_stopping(self) -> bool:
        return self._closed or _is_exiting()

    def _parameters(self, library: Any, path: Path) -> Any:
        parameters = library.CommonParams()
        parameters.model.path = str(path)
        parameters.model_alias = {self._model.name}
        parameters.n_parallel = self._n_parallel
        parameters.n_ctx = self._n_ctx * self._n_parallel  # the engine divides it among its slots
        parameters.cpuparams.n_threads = self._n_threads
        parameters.cpuparams_batch.n_threads = self._n_threads
        parameters.verbosity = -1  # not a line on stderr
        parameters.warmup = False
        parameters.cache_ram_mib = 0  # its default keeps up to 8 GiB of old prompts
        parameters.api_keys = [secrets.token_urlsafe(32)]
        parameters.n_threads_http = 1
        parameters.ui = False
        parameters.endpoint_slots = False
        return parameters


class _Call:
    """One request under way: what the worker hands over, and what its loop takes."""

    __slots__ = ("_arrived", "_loop", "stopped")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived: asyncio.Queue[dict[str, Any] | AetherError | None] = asyncio.Queue()
        self.stopped = False

    async def next(self) -> dict[str, Any] | None:
        """The next chunk, `None` after the last. Raises what ended the call."""
        arrived = await self._arrived.get()
        if isinstance(arrived, AetherError):
            raise arrived
        return arrived

    def take(self, chunk: dict[str, Any]) -> bool:
        """Called by the engine in its worker thread with each chunk. True stops the engine."""
        if _is_exiting():
            self.stopped = True
        if not self.stopped:
            self._put(chunk)
        return self.stopped

    def end(self, error: AetherError | None) -> None:
        """Nothing comes any more. From any thread."""
        if not self.stopped:
            self._put(error)
            self.stopped = True

    def _put(self, item: dict[str, Any] | AetherError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, item)
        except RuntimeError:  # the loop was closed, and with it whoever waited
            self.stopped = True


def _default_threads() -> int:
    # The engine's threads wait for one another by spinning: where something else needs a core, one
    # thread too many makes all of them slow (tried on two busy cores: two threads are ten times
    # slower than one). Half of the cores leaves room, and is all of them where each counts twice.
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return max(1, cores // 2)


def _is_exiting() -> bool:
    # At exit Python waits for all threads, after the main one has ended.
    return not threading.main_thread().is_alive()


def _library() -> Any:
    try:
        return require("xllamacpp", extra="local")
    except MissingExtraError as error:
        raise MissingExtraError(
            f"{error} (it has wheels for Linux with glibc on x86_64 and aarch64, for macOS 13 and "
            "newer, and for Windows on x86_64).",
            name=error.name,
        ) from error


def _refused(error: Exception, model: str) -> ProviderError:
    # What the engine cannot read at all it raises instead of reporting it. Its ValueError is C++'s
    # invalid_argument, which it would answer with 400 over HTTP.
    kind = BadRequestError if isinstance(error, ValueError) else ProviderError
    refused = kind(f"local ({model}) failed: {clean(str(error))}", provider="local", model=model)
    refused.__cause__ = error
    return refused
