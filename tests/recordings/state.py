"""What must go back: an assistant turn as it was received, beside the request that follows it.

It must not know an adapter. What is required is what the protocols' owners require: Gemini's
signed parts unchanged and unmoved; Anthropic's thinking and tool blocks unchanged and in order;
the Responses API's encrypted reasoning, its calls and its hosted tools' items; DeepSeek's reasoning
with calls, OpenRouter's reasoning details; and for every call its result, paired by its id.
"""

from __future__ import annotations

import json
from typing import Any

from tests.recordings.cases import Case
from tests.recordings.received import chat_fields, content_blocks, content_parts, response_items

__all__ = ["state_faults"]

_SERVER_PARTS = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
_MAX_SHOWN = 160


def state_faults(case: Case, sent: Any) -> list[str]:
    """What the request `sent`, whose latest assistant turn is the case's answer, has lost of it."""
    if case.protocol == "openai.chat":
        return _chat_faults(case, sent)
    if case.protocol == "openai.responses":
        return _responses_faults(case, sent)
    if case.protocol == "anthropic.messages":
        return _anthropic_faults(case, sent)
    return _gemini_faults(case, sent)


def _chat_faults(case: Case, sent: Any) -> list[str]:
    messages = sent["messages"]
    turns = [place for place, made in enumerate(messages) if made["role"] == "assistant"]
    expect = case.expect
    fields = chat_fields(case)
    if not (expect["text"] or expect["refusal"] or expect["tool_calls"] or any(fields.values())):
        return []  # it said nothing, and may be left out
    if not turns:
        return ["the assistant's message was not sent back"]
    place = turns[-1]
    turn = messages[place]
    faults = []
    text = turn.get("content") or ""
    if isinstance(text, list):  # Mistral's, with its thinking
        text = "".join(part.get("text", "") for part in text)
    if text != expect["text"]:
        faults.append(f"content sent back is {_short(text)}, received {_short(expect['text'])}")
    calls = turn.get("tool_calls") or []
    faults += _pairing(
        [call["id"] for call in calls],
        [made["tool_call_id"] for made in messages[place + 1 :] if made["role"] == "tool"],
    )
    found = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]
    wanted = [(call["name"], call["arguments"] or {}) for call in expect["tool_calls"]]
    if found != wanted:
        faults.append(f"calls sent back are {_short(found)}, received {_short(wanted)}")
    for call, received in zip(calls, expect["tool_calls"], strict=False):
        fits = case.provider != "mistral" or len(received["id"]) == 9
        if received["id"] and fits and call["id"] != received["id"]:
            faults.append(f"id sent back is {call['id']!r}, received {received['id']!r}")
    needed = set()
    if case.provider == "deepseek" and calls:
        needed.add("reasoning_content")
    if case.provider == "openrouter":
        needed.add("reasoning_details")
    for name, received in fields.items():
        if name in turn and turn[name] != received:
            faults.append(f"{name} sent back is {_short(turn[name])}, received {_short(received)}")
        elif name not in turn and name in needed and received:
            faults.append(f"{name} was not sent back: {_short(received)}")
    return faults


def _responses_faults(case: Case, sent: Any) -> list[str]:
    items = [item for item in sent["input"] if isinstance(item, dict)]
    received = response_items(case)
    faults = []
    places = []
    text = "".join(_said_by(item) for item in items)
    for item in received:
        kind = item["type"]
        if kind == "message":
            said = "".join(
                part.get("text") or part.get("refusal") or "" for part in item["content"]
            )
            if said not in text:
                faults.append(f"a message was not sent back: {_short(said)}")
            continue
        if kind == "reasoning" and not item.get("encrypted_content"):
            continue  # it cannot be sent: only a server that stores answers could find it
        place = next((n for n, made in enumerate(items) if _is_same_item(made, item)), None)
        if place is None:
            faults.append(f"an item was not sent back as it came: {_short(item)}")
        else:
            places.append(place)
    if places != sorted(places):
        faults.append("the items went back in another order")
    faults += _pairing(
        [item["call_id"] for item in received if item["type"] == "function_call"],
        [item["call_id"] for item in items if item.get("type") == "function_call_output"],
        latest=True,
    )
    for number, item in enumerate(items):
        follower = items[number + 1] if number + 1 < len(items) else {}
        alone = follower.get("role") == "user" or follower.get("type") == "function_call_output"
        if item.get("type") == "reasoning" and (not follower or alone):
            faults.append("reasoning went back without the item that it belongs to")
    return faults


def _said_by(item: dict[str, Any]) -> str:
    if item.get("role") != "assistant":
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or part.get("refusal") or "" for part in content or [])


def _is_same_item(made: dict[str, Any], item: dict[str, Any]) -> bool:
    if made.get("type") != item["type"]:
        return False
    if item["type"] == "function_call":
        same = all(made.get(name) == item[name] for name in ("call_id", "name"))
        return same and _same_arguments(made["arguments"], item["arguments"])
    if item["type"] == "reasoning":
        names = ("encrypted_content", "summary")
        return all(made.get(name) == item.get(name) for name in names)
    return made.get("id") == item.get("id")


def _anthropic_faults(case: Case, sent: Any) -> list[str]:
    messages = sent["messages"]
    turns = [place for place, made in enumerate(messages) if made["role"] == "assistant"]
    received = [block for block in content_blocks(case) if _is_needed(block)]
    if not turns:
        return ["the assistant's turn was not sent back"] if received else []
    content = messages[turns[-1]]["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    found = _comparable(blocks)
    wanted = _comparable(received)
    faults = []
    for number in range(max(len(found), len(wanted))):
        made = found[number] if number < len(found) else None
        came = wanted[number] if number < len(wanted) else None
        if made != came:
            faults.append(f"block {number} sent back is {_short(made)}, received {_short(came)}")
            break
    if any(block["type"] == "text" and not block["text"] for block in blocks):
        faults.append("an empty text block was sent back")
    after = messages[turns[-1] + 1]["content"] if turns[-1] + 1 < len(messages) else []
    results = [block for block in after if isinstance(block, dict)]
    first = [block["tool_use_id"] for block in results if block["type"] == "tool_result"]
    faults += _pairing([block["id"] for block in blocks if block["type"] == "tool_use"], first)
    if any(block["type"] != "tool_result" for block in results[: len(first)]):
        faults.append("the results of tools do not come first")
    return faults


def _is_needed(block: dict[str, Any]) -> bool:
    if block["type"] == "thinking":
        return bool(block.get("signature"))
    return block["type"] != "text" or bool(block["text"])


def _comparable(blocks: list[Any]) -> list[Any]:
    """Blocks as they must be equal: texts that follow one another as one, without citations."""
    made: list[Any] = []
    for block in blocks:
        if block["type"] == "text":
            if made and made[-1]["type"] == "text":
                made[-1]["text"] += block["text"]
            else:
                made.append({"type": "text", "text": block["text"]})
        elif block["type"] == "tool_use":
            made.append({name: block[name] for name in ("type", "id", "name", "input")})
        else:
            made.append({name: v for name, v in block.items() if name != "cache_control"})
    return made


def _gemini_faults(case: Case, sent: Any) -> list[str]:
    contents = sent["contents"]
    turns = [place for place, made in enumerate(contents) if made.get("role") == "model"]
    received = list(content_parts(case))
    needed = [part for part in received if _is_needed_part(part)]
    if not turns:
        return ["the model's turn was not sent back"] if needed or case.expect["text"] else []
    parts = contents[turns[-1]]["parts"]
    faults = []
    place = -1
    for part in needed:
        places = [n for n, made in enumerate(parts) if n > place and _is_same_part(made, part)]
        if not places:
            faults.append(f"a part was not sent back as it came, in its place: {_short(part)}")
        else:
            place = places[0]
    signatures = {_signature(part) for part in received} | {None}
    faults += [
        f"a signature was sent back that never came: {_short(part)}"
        for part in parts
        if _signature(part) not in signatures
    ]
    text = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
    if text != case.expect["text"]:
        faults.append(f"text sent back is {_short(text)}, received {_short(case.expect['text'])}")
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    after = contents[turns[-1] + 1]["parts"] if turns[-1] + 1 < len(contents) else []
    results = [part["functionResponse"] for part in after if "functionResponse" in part]
    if [call["name"] for call in calls] != [result["name"] for result in results]:
        faults.append(f"calls {_short(calls)} have the results {_short(results)}")
    if [call.get("id") for call in calls] != [result.get("id") for result in results]:
        faults.append(f"ids differ: calls {_short(calls)}, results {_short(results)}")
    if not all(isinstance(result.get("response"), dict) for result in results):
        faults.append(f"a result is no object: {_short(results)}")
    return faults


def _is_needed_part(part: dict[str, Any]) -> bool:
    return (
        "thoughtSignature" in part
        or "functionCall" in part
        or any(name in part for name in _SERVER_PARTS)
    )


def _is_same_part(made: dict[str, Any], part: dict[str, Any]) -> bool:
    if _signature(made) != _signature(part):
        return False
    if "functionCall" in part:
        call, came = made.get("functionCall") or {}, part["functionCall"]
        same = all(call.get(name) == came[name] for name in ("name", "id") if name in came)
        return same and (call.get("args") or {}) == (came.get("args") or {})
    names = ("text", "thought", *_SERVER_PARTS)
    return all((made.get(name) or None) == (part.get(name) or None) for name in names)


def _signature(part: dict[str, Any]) -> str | None:
    """Base64, of which the server takes both alphabets."""
    signature = part.get("thoughtSignature")
    return signature.replace("-", "+").replace("_", "/") if isinstance(signature, str) else None


def _pairing(calls: list[str], results: list[str], *, latest: bool = False) -> list[str]:
    """Every call has one result; of all results that were sent, the latest may be asked for."""
    if latest:
        results = results[len(results) - len(calls) :]
    if sorted(calls) != sorted(results):
        return [f"the calls {calls} have results for {results}"]
    return []


def _same_arguments(made: str, received: str) -> bool:
    """What was cut off cannot be run, and may go back in any form."""
    try:
        return bool(json.loads(made or "{}") == json.loads(received or "{}"))
    except ValueError:
        return True


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
