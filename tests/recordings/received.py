"""An assistant turn as it was received, put together from its events where it was a stream.

It must not know what of it must go back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.recordings.cases import Case, event_data, split_events

__all__ = ["chat_fields", "content_blocks", "content_parts", "response_items"]

_BLOCK_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def _values(case: Case) -> Iterator[Any]:
    """The JSON of the events, or the document."""
    if case.sse is None:
        document = case.parsed
        yield from document if isinstance(document, list) else [document]
        return
    for event in split_events(case.sse):
        value = event_data(event)
        if isinstance(value, dict):
            yield value


def chat_fields(case: Case) -> dict[str, Any]:
    """The fields of the message that hold reasoning; of a stream, their pieces joined."""
    names = ("reasoning_content", "reasoning", "reasoning_details")
    fields: dict[str, Any] = {}
    for value in _values(case):
        for choice in value.get("choices") or []:
            if choice.get("index"):
                continue
            message = choice.get("message") or choice.get("delta") or {}
            for name in names:
                if isinstance(message.get(name), str):
                    fields[name] = fields.get(name, "") + message[name]
                elif isinstance(message.get(name), list):
                    _join_details(fields.setdefault(name, []), message[name])
    return fields


def _join_details(known: list[Any], more: list[Any]) -> None:
    for detail in more:
        same = known[-1] if known else {}
        together = detail.get("index") is not None and all(
            same.get(name) == detail.get(name) for name in ("type", "index")
        )
        if not together:
            known.append(dict(detail))
            continue
        for name, value in detail.items():
            if name in ("text", "summary", "data") and isinstance(value, str):
                same[name] = (same.get(name) or "") + value
            elif value is not None:
                same[name] = value


def response_items(case: Case) -> list[Any]:
    whole: list[Any] = []
    done: list[Any] = []
    for value in _values(case):
        if case.sse is None:
            whole = value["output"]
        elif value.get("type") in ("response.completed", "response.incomplete"):
            whole = value["response"].get("output") or []
        elif value.get("type") == "response.output_item.done":
            done.append(value["item"])
    return whole or done


def content_blocks(case: Case) -> list[Any]:
    made: dict[int, Any] = {}
    partial: dict[int, str] = {}
    for value in _values(case):
        if case.sse is None:
            return list(value["content"])
        index = value.get("index", -1)
        if value["type"] == "content_block_start":
            made[index] = dict(value["content_block"])
        elif value["type"] == "content_block_delta":
            delta = value["delta"]
            name = _BLOCK_TEXTS.get(delta["type"])
            if name is not None:
                made[index][name] = (made[index].get(name) or "") + delta[name]
            elif delta["type"] == "input_json_delta":
                partial[index] = partial.get(index, "") + delta["partial_json"]
    for index, arguments in partial.items():
        made[index]["input"] = json.loads(arguments or "{}")
    return [made[index] for index in sorted(made)]


def content_parts(case: Case) -> Iterator[Any]:
    for value in _values(case):
        for candidate in value.get("candidates") or []:
            if not candidate.get("index"):
                yield from (candidate.get("content") or {}).get("parts") or []
