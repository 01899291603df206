"""Opaque state that is bound to a host, where a provider's name stands for any number of servers.

It must not know what the state is. It goes back to the host that gave it, and to no other: two
servers at base URLs of one's own have one name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from aether.extensions.llm._wire.errors import Source
from aether.llm.content import CachePoint, ProviderState
from aether.llm.messages import LLMRequest, Message

__all__ = ["host_of", "kept_state", "only_own", "own_state", "restated", "unbound"]

_HOST = "host"


def host_of(url: str) -> str:
    """The host of a base URL; empty if it has none that can be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # the endpoint says what is wrong with it
        return ""


def kept_state(state: Mapping[str, Any], source: Source) -> ProviderState:
    """What a message, part or call keeps of the state that this source gave."""
    bound = {} if source.host is None else {_HOST: source.host}
    return {source.provider: {**state, **bound}}


def own_state(kept: ProviderState, provider: str, host: str | None) -> dict[str, Any] | None:
    """The state that this very host gave; `None` if there is none."""
    state = kept.get(provider)
    return state if isinstance(state, dict) and state.get(_HOST) == host else None


def only_own(request: LLMRequest, provider: str, host: str | None) -> LLMRequest:
    """The request with the state that this very host gave, and none that another gave under the
    same name.

    What a message of the user's carries, and is bound to no host, its author has put there: it
    goes along.
    """
    if not any(map(_has_state, request.messages)):
        return request

    def kept(state: ProviderState, *, authored: bool) -> ProviderState:
        if provider not in state:
            return state
        given = state[provider]
        bound = given.get(_HOST) if isinstance(given, dict) else None
        if bound == host or (authored and bound is None):
            return state
        return {name: each for name, each in state.items() if name != provider}

    answered, authored = (partial(kept, authored=each) for each in (False, True))
    messages = tuple(
        restated(message, answered if message.role == "assistant" else authored)
        for message in request.messages
    )
    same = all(a is b for a, b in zip(messages, request.messages, strict=True))
    return request if same else request.replace(messages=messages)


def restated(message: Message, change: Callable[[ProviderState], ProviderState]) -> Message:
    """The message with each state in it changed, its parts' and calls' included. `change` gives
    back the same object for one that stays, and the message is the same if all do. Where there is
    none, it is not asked.
    """
    if not _has_state(message):
        return message
    changes: dict[str, Any] = {}
    state = change(message.provider_state)
    if state is not message.provider_state:
        changes["provider_state"] = state
    for name in ("tool_calls", "content"):
        old = getattr(message, name)
        if isinstance(old, str):
            continue
        new = [_changed(each, change) for each in old]
        if any(a is not b for a, b in zip(old, new, strict=True)):
            changes[name] = new
    return message.model_copy(update=changes) if changes else message


def unbound(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a provider's state without the host that it is bound to."""
    return {name: value for name, value in state.items() if name != _HOST}


def _has_state(message: Message) -> bool:
    """Whether there is a state in the message, its calls or its parts: most have none."""
    if message.provider_state:
        return True
    if message.tool_calls and any(call.provider_state for call in message.tool_calls):
        return True
    content = message.content
    return not isinstance(content, str) and any(part.provider_state for part in content)


def _changed(carrier: Any, change: Callable[[ProviderState], ProviderState]) -> Any:
    if isinstance(carrier, CachePoint) or not carrier.provider_state:
        return carrier
    state = change(carrier.provider_state)
    if state is carrier.provider_state:
        return carrier
    return carrier.model_copy(update={"provider_state": state})
