"""What an attacker may try: with a URL, a path, a text, a package."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

__all__ = ["ROWS"]

ROWS: list[Row] = [
    Row(
        "X1",
        "`http_get` is given an address that is not public: loopback, private, shared, a cloud's "
        "metadata",
        "A `ToolError` before anything is connected to, for an address, a name or a redirect. Of "
        "more than 100 public addresses none is refused.",
    ),
    Row(
        "X2",
        "An IPv4 address inside an IPv6 one: mapped, compatible, SIIT, NAT64, 6to4, Teredo, ISATAP",
        "All of these are refused. A cloud's metadata is refused wherever a translator may read "
        "it.",
    ),
    Row(
        "X3",
        "Odd spellings of an address: `2130706433`, `0x7f.1`, circled digits, a zone, a NUL",
        "Only four decimal numbers or plain IPv6 are an address. What a name resolves to is "
        "judged, not its text.",
    ),
    Row(
        "X4",
        "A URL that two parsers read in two ways",
        "There is one parser, and what others are known to read otherwise is refused. The URL "
        "that is sent is put together from the parts that were judged.",
    ),
    Row(
        "X5",
        "A name that resolves to a public address first and to an inside one later, or to both",
        "All addresses of a name must be public, and each is judged again right before it is "
        "connected to. `Host` and the name in TLS stay those of the URL.",
    ),
    Row(
        "X6",
        "A redirect: inside, to another scheme or port, in a loop, with a body",
        "Each hop is judged as the first was, and at most five are followed. No cookie, password "
        "or referrer is sent, and no body of a redirect is read.",
    ),
    Row(
        "X7",
        "Other schemes and ports: `file:`, `gopher:`, `data:`, 22, 25, 6379",
        "Only `http` and `https` on the ports 80 and 443 are fetched.",
    ),
    Row(
        "X8",
        "A guard that connects before it has judged",
        "Nothing of the corpus is connected to, not even for a moment.",
    ),
    Row(
        "X9",
        "A body that is huge, slow, endless, a bomb, shorter than it says, or in another "
        "character set",
        "It is cut at `AETHER_HTTP_TOOL_MAX_BYTES`, as sent and as decoded, and all is over after "
        "`AETHER_HTTP_TOOL_TIMEOUT`. A body that breaks off is an error.",
    ),
    Row(
        "X10",
        "A proxy in the environment, which would look up names itself",
        "`http_get` uses none.",
    ),
    Row(
        "X11",
        "`read_file` is given `../`, an absolute path, a NUL, a link, or a path that somebody "
        "swaps meanwhile",
        "It reads regular files inside one folder, and no hidden ones. The path is walked without "
        "following links: of ten thousand reads under swapping none gets out.",
    ),
    Row(
        "X12",
        "A device, pipe, socket, folder, the state of processes, a file of a terabyte, binary "
        "content",
        "What is no regular file is refused without being waited for. No more than "
        "`AETHER_FILE_TOOL_MAX_BYTES` are read, and what is not UTF-8 is described.",
    ),
    Row(
        "X13",
        "A key in a log, a `repr`, an error and its frames, a pickle, an event, a store",
        "It is in none of them, also where the server says it. The whole test run listens at the "
        "level DEBUG, and a test that shows a key fails.",
    ),
    Row(
        "X14",
        "A key in a URL",
        "Keys go in one header, and a base URL with a password is refused. No error tells more of "
        "a URL than its host.",
    ),
    Row(
        "X15",
        "Line breaks, NULs and control characters in a name, an id, a header, a server's words",
        "In a header they are an `InputError` before anything is sent. In errors and logs they "
        "are escaped.",
    ),
    Row(
        "X16",
        "A server or a model says where the next call is to go, or a history moves to another host",
        "Nothing in messages, calls or answers sets the base URL, the headers or the model. Keys "
        "and opaque state go to their own host alone.",
    ),
    Row(
        "X17",
        "Instructions in a page, a file, a tool's result, another agent's answer, a description",
        "Middleware sees each call before it runs, with its provenance. A model that obeys every "
        "text does what that policy allows, and runs no tool that was not offered.",
    ),
    Row(
        "X18",
        "What was read is carried out in a URL that is fetched, or an image in an answer",
        "`build_http_get(allowed_hosts=...)` fetches from these hosts alone, redirects included. "
        "Nothing is fetched because an answer names it.",
    ),
    Row(
        "X19",
        "One session is to read what another was told",
        "A session's id is a key and nothing else. What one was told is in no request of another.",
    ),
    Row(
        "X20",
        "A text that makes a pattern, a docstring or a schema expensive",
        "A million characters, or the pieces of a stream, are read in seconds. The steps in "
        "Python grow as the input; those inside C are bounded by that time alone.",
    ),
    Row(
        "X21",
        "Text that looks like code, in arguments, answers, stores, schemas and docstrings",
        "Nothing of it is evaluated, imported or unpickled. Of a registered function its "
        "annotations are evaluated, and nothing else.",
    ),
    Row(
        "X22",
        "A package or a module takes the name of another's provider or tool",
        "Two origins for one name are an error unless `replace=True`. A built-in gives way to an "
        "explicit registration, which is logged, and to no package.",
    ),
    Row(
        "X23",
        "Something in the package that is not in its source, or acts when it is imported",
        "The wheel is the git tree byte for byte, has no `.pth`, and does nothing when imported. "
        "There are no hashes, attestations or trusted publishing.",
    ),
    Row(
        "X24",
        "An example that teaches what is unsafe",
        "All documents and demos are searched by pattern for what turns TLS off, holds a key, or "
        "runs what was fetched. What no pattern describes is not looked for.",
    ),
]
