"""What an attacker may try: with a URL, a path, a text, a package."""

from __future__ import annotations

from tests.faults.rows.contracts import Row

ROWS = [
    Row(
        "X1",
        "`http_get` is given an address that is not public: loopback, private, link-local, shared, "
        "multicast, reserved, or where a cloud keeps its metadata",
        "A `ToolError` before anything is connected to, whether the address was given as it is, "
        "by a name or by a redirect. More than 300 URLs are refused, and of more than 100 public "
        "addresses none.",
    ),
    Row(
        "X2",
        "An IPv4 address inside an IPv6 one: mapped, compatible, SIIT, NAT64, 6to4, Teredo, ISATAP",
        "All of these are refused, whatever is inside. A cloud's metadata is refused wherever a "
        "translator may read it, under public prefixes too.",
    ),
    Row(
        "X3",
        "Odd spellings of an address: `2130706433`, `0x7f.1`, `0177.0.0.1`, full-width and circled "
        "digits, a final dot, a zone, a NUL",
        "Four decimal numbers or plain IPv6 are an address; every other spelling is refused, as "
        "are control characters, white space, backslashes and user names. What a name resolves to "
        "is judged, not its text.",
    ),
    Row(
        "X4",
        "A URL that two parsers read in two ways",
        "One parser; what others are known to read otherwise is refused. The URL that is sent is "
        "put together from the parts that were judged.",
    ),
    Row(
        "X5",
        "A name that resolves to a public address first and to an inside one later, or to both",
        "All addresses of a name must be public. Each is judged again right before the connection "
        "is made to it, and to no other. `Host` and the name in TLS stay those of the URL.",
    ),
    Row(
        "X6",
        "A redirect: inside, to another scheme or port, in a loop, with a body",
        "Each hop is judged as the first was; at most five are followed. No cookie, password or "
        "referrer is ever sent, and the body of a redirect is not read.",
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
        "A body that is huge, slow, endless, compressed to a bomb, shorter than it says, or in "
        "another character set than it says",
        "It is cut at `AETHER_HTTP_TOOL_MAX_BYTES`, as sent and as decoded, and says so; all is "
        "over after `AETHER_HTTP_TOOL_TIMEOUT` seconds. A body that breaks off, or goes on "
        "although nothing comes of it, is an error. Wrong characters are replaced.",
    ),
    Row(
        "X10",
        "A proxy in the environment, which would look up names itself",
        "`http_get` uses none.",
    ),
    Row(
        "X11",
        "`read_file` is given `../`, an absolute path, `~`, a NUL, a link, a hard link, or a path "
        "of which somebody swaps a part meanwhile",
        "It reads regular files inside one folder, `AETHER_FILE_TOOL_ROOT`, and no hidden ones. "
        "The path is walked part by part without following links, and what was opened is looked at "
        "again: of ten thousand reads under constant swapping none gets out.",
    ),
    Row(
        "X12",
        "A device, pipe, socket, folder, the state of processes, a file of a terabyte, binary "
        "content",
        "What is no regular file is refused without being waited for, and so is the kernel's state "
        "wherever it is mounted. No more than `AETHER_FILE_TOOL_MAX_BYTES` are read; what is not "
        "UTF-8 is described.",
    ),
    Row(
        "X13",
        "A key in a log, a `repr`, an error, its causes or the variables of its frames, a pickle, "
        "an event, a store",
        "It is in none of them, also where the server says it. The whole test run listens at the "
        "level DEBUG, and a test in whose output a key is found fails.",
    ),
    Row(
        "X14",
        "A key in a URL",
        "Keys go in one header. A base URL with a password is refused; of a URL no error tells "
        "more than the host.",
    ),
    Row(
        "X15",
        "Line breaks, NULs and control characters in a model's or tool's name, a session's id, an "
        "extra header, a server's words",
        "In a header they are an `InputError` before anything is sent; in errors and logs they are "
        "escaped, so that a line stays one line.",
    ),
    Row(
        "X16",
        "A server or a model says where the next call is to go, or a history moves to another host",
        "Nothing in messages, calls or answers sets the base URL, the headers or the model. A key "
        "goes to its own origin, redirects are not followed, and opaque state goes back to the "
        "host that gave it alone.",
    ),
    Row(
        "X17",
        "Instructions in a web page, a file, a tool's result or error, another agent's answer, an "
        "earlier turn, or a tool's description",
        "Middleware sees each call before it runs, with its provenance: the model, run, agent and "
        "depth, and whether anything that others may have written came before it. A model that "
        "obeys every text does what the policy allows, and no tool is run that was not offered.",
    ),
    Row(
        "X18",
        "What was read is carried out in a URL that is fetched, or an image in an answer",
        "`build_http_get(allowed_hosts=...)` fetches from these hosts alone, redirects included, "
        "and looks up no other name. Nothing is fetched because an answer names it.",
    ),
    Row(
        "X19",
        "One session is to read what another was told",
        "A session's id is a key and nothing else. What one was told is in no request of another, "
        "and nothing is remembered without a session.",
    ),
    Row(
        "X20",
        "A text that makes a pattern, a docstring or a schema expensive",
        "A million characters, or the million pieces of a stream, are read in seconds: what came "
        "before is not gone through again for each of them.",
    ),
    Row(
        "X21",
        "Text that looks like code, in arguments, answers, stores, schemas and docstrings",
        "Nothing of it is evaluated, imported or unpickled. Of a function that is registered, its "
        "own annotations are evaluated and nothing else.",
    ),
    Row(
        "X22",
        "A package or a module takes the name of another's provider or tool",
        "Two origins for one name are an error unless `replace=True`. A built-in gives way to an "
        "explicit registration, which is logged with its origin, and to no installed package.",
    ),
    Row(
        "X23",
        "Something in the package that is not in its source, or acts when it is imported",
        "The wheel is the git tree, byte for byte, and is built the same anywhere. It has no "
        "`.pth` file; importing it sends, starts and writes nothing and reads no setting. Versions "
        "for development are exact, but no hashes are checked when they are installed. There is no "
        "trusted publishing, there are no attestations, and no actions that are pinned by SHA.",
    ),
    Row(
        "X24",
        "An example that teaches what is unsafe",
        "All documents, docstrings and demos are searched by pattern for what turns TLS off, "
        "prints or holds a key, goes to another host over plain HTTP, or runs what was fetched. "
        "Nothing is found; what no pattern describes is not looked for.",
    ),
]
