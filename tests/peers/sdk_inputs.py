"""What the calls of all SDKs are made of: the same that `requests` has, in plain JSON."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

__all__ = ["ASK", "HI", "NO_ARGUMENTS", "SYSTEM", "WHAT", "Case", "base64", "data_url"]

Case = Mapping[str, Any]
"""The keyword arguments of one call."""

WHAT = "Get the weather in a city."
NO_ARGUMENTS = {"type": "object", "properties": {}}
HI = {"role": "user", "content": "Hi."}
SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Compare Paris and Rome."}


def base64(data: bytes) -> str:
    return b64encode(data).decode()


def data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64(data)}"
