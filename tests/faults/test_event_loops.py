"""One client in several event loops: one after another, in threads, in a notebook, at an exit."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import pytest

from aether import Aether, registry
from aether.errors import ToolError
from aether.events import STREAM_ERROR
from aether.extensions.http import _per_loop
from aether.extensions.llm import _http
from aether.extensions.memory import InMemorySessionStore
from aether.llm.streaming import OwnedStream
from aether.testing import FaultServer, faults
from aether.testing.wires import Reply, WireRequest
from aether.tools.threads import worker_threads
from tests.faults.aftermath import Aftermath
from tests.faults.stage import share_tls_context

T = TypeVar("T")

transports = pytest.mark.parametrize("transport", ["aiohttp", "httpx"])


@pytest.fixture(autouse=True)
def one_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    share_tls_context(monkeypatch)


def echo(request: WireRequest) -> Reply:
    """The last message that was sent."""
    return Reply(f"re {request.json['messages'][-1]['content']}")


def making(server: FaultServer, transport: str, aftermath: Aftermath) -> Aether:
    config = server.config(transport=transport, api_key=aftermath.key)
    client = Aether(config=config, memory_store=InMemorySessionStore())
    aftermath.one_entry_per_request(client, server)
    return aftermath.client(client)


async def in_threads(*works: Callable[[], T]) -> list[T]:
    """Run each in a thread of its own, all at the same time."""
    with ThreadPoolExecutor(len(works)) as pool:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, work) for work in works))


async def use(client: Aether, name: str) -> list[str]:
    """A call, a stream, a stream that is left, and a turn of a session."""
    asked = await client.ask(f"{name} asks")
    streamed = "".join([text async for text in client.stream_text(f"{name} streams")])
    async for _ in client.session(name).stream(f"{name} leaves"):
        break
    return [asked, streamed, await client.session(name).ask(f"{name} tells")]


def answers(name: str) -> list[str]:
    return [f"re {name} {does}" for does in ("asks", "streams", "tells")]


# --- one after another, and at the same time ---------------------------------------------------


@pytest.mark.row("M11")
@transports
async def test_loop_that_ends_closes_its_connections_and_the_next_one_opens_its_own(
    transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer(reply=echo) as server:
        client = making(server, transport, aftermath)
        for name in ("first", "second"):
            (answered,) = await in_threads(lambda: asyncio.run(use(client, name)))  # noqa: B023
            assert answered == answers(name)
            await server.until_open(0)  # though the client is open
        assert await use(client, "third") == answers("third")
        await client.aclose()
        await server.until_open(0)


@pytest.mark.row("M11")
@transports
async def test_session_is_used_in_one_loop_after_another(
    transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer(reply=echo) as server, making(server, transport, aftermath) as client:
        session = client.session("s")

        async def turns(*names: str) -> None:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(session.ask(name))

        await in_threads(lambda: asyncio.run(turns("a", "b", "c")))
        await turns("d", "e")
        await in_threads(lambda: asyncio.run(turns("f")))
        told = [message.text for message in await session.history()]
        assert told == [text for name in "abcdef" for text in (name, f"re {name}")]


async def leave(stream: OwnedStream[Any]) -> object:
    """Drop it."""
    async for _ in stream:
        break
    return None


async def keep(stream: OwnedStream[Any]) -> object:
    """Stop reading, and hold it."""
    await anext(stream)
    return stream


async def be_waiting(stream: OwnedStream[Any]) -> object:
    """Have a task wait for its next item."""

    async def read() -> None:
        async for _ in stream:
            begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(read())
    await begun.wait()
    return task


async def be_working(stream: OwnedStream[Any]) -> object:
    """Have a task work on one of its items."""

    async def read() -> None:
        async for _ in stream:
            begun.set()
            await asyncio.sleep(60)

    begun = asyncio.Event()
    task = asyncio.create_task(read())
    await begun.wait()
    return task


@pytest.mark.row("M10", "M11")
@transports
@pytest.mark.parametrize("end", [leave, keep, be_waiting, be_working], ids=lambda end: end.__name__)
async def test_stream_that_is_open_at_the_end_of_its_loop_is_closed_in_order(
    transport: str,
    end: Callable[[OwnedStream[Any]], Coroutine[Any, Any, object]],
    aftermath: Aftermath,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FaultServer(faults.cut(events=3, ending="hanging"), reply=echo) as server:
        client = making(server, transport, aftermath)
        kept = await in_threads(lambda: asyncio.run(end(client.session("s").stream("left"))))
        await server.until_open(0)
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
        last = aftermath.events[-1]
        assert (last.name, last.cancelled) == (STREAM_ERROR, True)
        assert [entry.state for entry in client.usage.ledger] == ["estimated"]
        async with asyncio.timeout(1):
            assert await client.session("s").ask("next") == "re next"
        del kept
        await client.aclose()


@pytest.mark.row("M11")
@transports
async def test_loops_in_threads_share_a_client_and_its_sessions(
    transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer(reply=echo) as server:
        client = making(server, transport, aftermath)

        async def work(name: str) -> list[str]:
            own = await use(client, name)
            for number in range(3):
                await client.session("shared").ask(f"{name}{number}")
            return own

        names = ["a", "b", "c", "d"]
        found = await in_threads(*(lambda name=name: asyncio.run(work(name)) for name in names))
        assert found == [answers(name) for name in names]
        told = [message.text for message in await client.session("shared").history()]
        assert told[1::2] == [f"re {text}" for text in told[::2]]  # no turn came between another
        assert sorted(told[::2]) == [f"{name}{number}" for name in names for number in range(3)]
        await client.aclose()
        await server.until_open(0)


@pytest.mark.row("M11")
@transports
async def test_client_closes_what_is_open_in_the_loop_of_another_thread(
    transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer(reply=echo) as server:
        client = making(server, transport, aftermath)
        used, leave = asyncio.Event(), asyncio.Event()
        here = asyncio.get_running_loop()

        async def stay() -> None:
            await client.ask("go")
            here.call_soon_threadsafe(used.set)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(leave.wait(), here))

        other = asyncio.ensure_future(in_threads(lambda: asyncio.run(stay())))
        await used.wait()
        assert server.open_connections == 1
        await client.aclose()
        await server.until_open(0)
        leave.set()
        await other


async def test_http_library_is_imported_in_a_thread_while_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_http.py").write_text(
        "import asyncio, threading\n"
        "from aether.extensions.http.aiohttp import AiohttpTransport\n"
        "imported_in = threading.current_thread()\n"
        "made_in = []\n"
        "class Slow(AiohttpTransport):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        made_in.append(asyncio.get_running_loop())\n"  # as many a library's client does
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        registry._builtins["http_transport"], "slow", registry._Builtin("slow_http:Slow", {})
    )
    async with FaultServer() as server:
        for _ in range(2):
            async with Aether(config=server.config(transport="slow")) as client:
                await asyncio.gather(*(client.ask("go") for _ in range(3)))
    module = sys.modules.pop("slow_http")
    assert module.imported_in is not threading.current_thread()
    assert module.made_in == [asyncio.get_running_loop()] * 2


async def test_http_library_is_imported_in_the_loop_where_no_thread_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def none_left(work: Callable[[], object]) -> None:
        raise ToolError("All threads are taken.")

    monkeypatch.setattr(worker_threads, "run", none_left)
    monkeypatch.setattr(_http, "_imported", set[str]())
    async with FaultServer("Hello.") as server, Aether(config=server.config()) as client:
        assert await client.ask("go") == "Hello."


# --- the blocking side -------------------------------------------------------------------------


class Kernel:
    """Runs cells as a notebook does: in the thread of a loop that runs, `await` at their top."""

    def __init__(self, **names: Any) -> None:
        self.names = names

    def run(self, *cells: str) -> dict[str, Any]:
        asyncio.run(self._run(cells))
        return self.names

    async def _run(self, cells: tuple[str, ...]) -> None:
        for cell in cells:
            code = compile(dedent(cell), "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            outcome = eval(code, self.names)
            if inspect.iscoroutine(outcome):
                await outcome


@pytest.mark.row("M11")
@transports
async def test_notebook_mixes_blocking_and_awaited_calls(
    transport: str, aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_per_loop, "PATIENCE_SECONDS", 0.01)  # the notebook's loop is blocked
    async with FaultServer(reply=echo) as server:
        client = making(server, transport, aftermath)
        kernel = Kernel(client=client)
        work = lambda: kernel.run(  # noqa: E731
            "blocking = client.sync.ask('one')",
            "awaited = await client.ask('two')",
            "streamed = list(client.sync.stream_text('three'))",
            """
            async for text in client.stream_text('four'):
                break
            for text in client.sync.stream_text('five'):
                break
            """,
            "turns = [client.sync.session('s').ask('six'), await client.session('s').ask('seven')]",
            "history = client.sync.session('s').history()",
            """
            import asyncio
            both = asyncio.create_task(client.ask('eight'))
            during = client.sync.ask('nine')  # blocks the loop in which `both` has to wait
            both = await both
            """,
            "client.sync.close()",
        )
        (names,) = await in_threads(work)
        assert (names["blocking"], names["awaited"]) == ("re one", "re two")
        assert "".join(names["streamed"]) == "re three"
        assert names["turns"] == ["re six", "re seven"]
        assert [message.text for message in names["history"]][::2] == ["six", "seven"]
        assert (names["both"], names["during"]) == ("re eight", "re nine")
        await server.until_open(0)


@pytest.mark.row("M11")
@transports
async def test_blocking_side_serves_many_threads_at_once(
    transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer(reply=echo) as server:
        client = making(server, transport, aftermath)

        def work(name: str) -> list[str]:
            blocking = client.sync
            streamed = "".join(blocking.stream_text(f"{name} streams"))
            for _ in blocking.session(name).stream(f"{name} leaves"):
                break
            told = blocking.session(name).ask(f"{name} tells")
            return [blocking.ask(f"{name} asks"), streamed, told]

        names = [f"thread {number}" for number in range(8)]
        found = await in_threads(*(lambda name=name: work(name) for name in names))
        assert found == [answers(name) for name in names]
        await client.aclose()
        await server.until_open(0)


@pytest.mark.row("M10")
@transports
@pytest.mark.parametrize("kind", ["client", "session"])
async def test_blocking_stream_that_is_left_closes_its_connection_at_once(
    transport: str, kind: str, aftermath: Aftermath
) -> None:
    async with FaultServer(faults.cut(events=3, ending="hanging"), reply=echo) as server:
        client = making(server, transport, aftermath)

        def leave() -> None:
            asked: Any = client.sync if kind == "client" else client.sync.session("s")
            for _ in asked.stream_text("left"):
                break

        await in_threads(leave)
        await server.until_open(0)
        assert await client.session("s").ask("next") == "re next"
        await client.aclose()


@pytest.mark.row("M10", "M11")
@transports
async def test_blocking_stream_that_is_left_when_its_loop_ends_is_closed_in_order(
    transport: str, aftermath: Aftermath
) -> None:
    async with FaultServer(faults.cut(events=3, ending="hanging"), reply=echo) as server:
        client = making(server, transport, aftermath)

        def leave_and_stop() -> None:
            stream = client.sync.stream_text("left")
            next(stream)
            # So that the loop hears of all that follows at the same time.
            client.sync._thread._loop.call_soon_threadsafe(time.sleep, 0.02)
            del stream
            client.sync.stop()

        await in_threads(leave_and_stop)
        await server.until_open(0)
        assert [entry.state for entry in client.usage.ledger] == ["estimated"]
        await client.aclose()


# --- exits -------------------------------------------------------------------------------------

SCRIPT_STARTS = """
import asyncio, os, sys
from aether import Aether, Agent, ProviderConfig
config = ProviderConfig(
    "openai", model="m", api_key="sk-a-key", base_url=sys.argv[1], transport=sys.argv[2],
    options={"api": "chat"},
)
client = Aether(config=config)
"""

EXITS = {
    "blocking": """
        print(client.sync.ask("one"))
        print("".join(client.sync.session("s").stream_text("two")))
        left = client.sync.stream_text("three")
        print(next(left)[:2])
        """,
    "awaited": """
        async def main():
            global left
            print(await client.ask("one"))
            print("".join([text async for text in client.session("s").stream_text("two")]))
            left = client.stream_text("three")
            print((await anext(left))[:2])
        asyncio.run(main())
        """,
    "blocking, and left": """
        print(client.sync.ask("one"))
        print("".join(client.sync.session("s").stream_text("two")))
        for text in client.sync.stream_text("three"):
            print(text[:2])
            break
        """,
}


@pytest.mark.row("M11")
@pytest.mark.parametrize(
    ("way", "transport"),
    [("blocking", "aiohttp"), ("awaited", "httpx"), ("blocking, and left", "httpx")],
)
async def test_script_that_closes_nothing_ends_quietly(way: str, transport: str) -> None:
    async with FaultServer(reply=echo) as server:
        code, out, err = await run_script(SCRIPT_STARTS + dedent(EXITS[way]), server, transport)
        assert (code, err) == (0, "")
        assert out.split("\n") == ["re one", "re two", "re", ""]
        await server.until_open(0)


@pytest.mark.row("M11")
async def test_script_that_dies_of_an_error_tells_of_it_and_of_nothing_else() -> None:
    script = """
    async def main():
        async for text in client.session("s").stream_text("one"):
            raise LookupError("mine")
    asyncio.run(main())
    """
    async with FaultServer(reply=echo) as server:
        code, _, err = await run_script(SCRIPT_STARTS + dedent(script), server, "aiohttp")
        assert code == 1
        assert err.count("Traceback") == 1
        assert err.rstrip().endswith("LookupError: mine")
        await server.until_open(0)


@pytest.mark.row("M11")
async def test_interrupt_of_a_blocking_call_ends_that_call_alone() -> None:
    script = """
    try:
        client.sync.session("s").ask("one")
    except KeyboardInterrupt:
        print("interrupted")
    print(client.sync.session("s").ask("two"))
    print(len(client.sync.session("s").history()))
    """
    async with FaultServer(faults.hang(), reply=echo) as server:
        code, out, err = await run_script(
            SCRIPT_STARTS + dedent(script), server, "aiohttp", interrupt=True
        )
        assert (code, err) == (0, "")
        assert out.split() == ["interrupted", "re", "two", "2"]
        await server.until_open(0)


@pytest.mark.row("M11")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
async def test_forked_process_goes_on_with_loops_and_connections_of_its_own() -> None:
    script = """
    import warnings
    warnings.filterwarnings("ignore", message=".*fork")  # newer Pythons warn of it, with threads
    print(client.sync.ask("before"))
    child = os.fork()
    told = client.sync.ask("after"), asyncio.run(client.ask("too"))
    sys.stdout.write(" ".join((*told, "\\n")))  # at once, for the other process writes, too
    sys.stdout.flush()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        print(client.sync.ask("at last"))
    client.sync.close()
    """
    async with FaultServer(reply=echo) as server:
        code, out, err = await run_script(SCRIPT_STARTS + dedent(script), server, "aiohttp")
        assert (code, err) == (0, "")
        assert out.count("re after re too") == 2
        assert out.endswith("re at last\n")
        await server.until_open(0)


@pytest.mark.row("M11")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
async def test_forked_process_that_closes_its_client_closes_no_stream_of_its_parent() -> None:
    script = """
    import warnings
    from aether.llm.messages import LLMResponse, StreamChunk
    warnings.filterwarnings("ignore", message=".*fork")

    class Telling:
        async def complete(self, request):
            return LLMResponse(text="again", model="m")

        async def stream(self, request):
            try:
                yield StreamChunk(text="one")
                yield StreamChunk(text="two", finish_reason="stop")
            finally:
                print("closed by", os.getpid(), flush=True)

    client = Aether(Telling())
    stream = client.sync.stream_text("go")
    assert next(stream) == "one"
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        assert list(stream) == ["two"]
        print("parent is", os.getpid())
    else:
        assert client.sync.ask("go") == "again"
    client.sync.close()
    if not child:
        os._exit(0)
    """
    async with FaultServer() as server:
        code, out, err = await run_script(SCRIPT_STARTS + dedent(script), server, "aiohttp")
        assert (code, err) == (0, "")
        closed_by, parent = (line.split()[-1] for line in out.splitlines())
        assert closed_by == parent


async def run_script(
    script: str, server: FaultServer, transport: str, *, interrupt: bool = False
) -> tuple[int | None, str, str]:
    """Exit code, output and errors of a script, for which warnings are errors too.

    It is interrupted, as by Ctrl-C, when an answer of the server has come to hang.
    """
    if interrupt:  # in the background, shells have it ignored
        script = (
            f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{script}"
        )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", script),
        *(server.base_url("openai"), transport),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        if interrupt:
            await server.until_hanging()
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()
