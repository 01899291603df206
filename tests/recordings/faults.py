"""Streams that go wrong: ended early after a whole event, or with an error inside.

It must not know how they are sent. The errors have the shapes of the protocols' documentation.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["FAULT", "error_events", "places"]

FAULT = "a fault that was put in"


def error_events(protocol: str, line_end: str) -> dict[str, str]:
    """Errors that a server may report inside a stream of status 200, by the name of their shape."""
    if protocol == "anthropic.messages":
        error: dict[str, Any] = {"type": "overloaded_error", "message": FAULT}
        events = {"error": "event: error\n" + _data({"type": "error", "error": error})}
    elif protocol == "openai.responses":
        error = {"code": "server_error", "message": FAULT, "param": None}
        failed = {"id": "resp_0", "object": "response", "status": "failed", "error": error}
        events = {
            "flat error": "event: error\n" + _data({"type": "error", **error}),
            "nested error": "event: error\n" + _data({"type": "error", "error": error}),
            "failed": "event: response.failed\n"
            + _data({"type": "response.failed", "response": {**failed, "output": []}}),
        }
    elif protocol == "gemini.generate":
        said = {"error": {"code": 503, "message": FAULT, "status": "UNAVAILABLE"}}
        events = {"error": _data(said), "bare error": json.dumps(said, indent=2) + "\n"}
    else:
        error = {"message": FAULT, "type": "server_error", "param": None, "code": None}
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        told = {"error": {"code": 502, "message": FAULT}, "choices": [choice]}
        events = {
            "error": _data({"error": error}),
            "named error": "event: error\n" + _data({"error": error}),
            "error beside a choice": _data(told),
        }
    return {name: text.replace("\n", line_end) for name, text in events.items()}


def places(count: int, most: int) -> list[int]:
    """Up to `most` numbers from 0 to `count` - 1: the last third of them at the end."""
    if count <= most:
        return list(range(count))
    end = most // 3
    spread = most - end
    return [place * (count - end) // spread for place in range(spread)] + list(
        range(count - end, count)
    )


def _data(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"
