"""How much a model is to reason, in the words of its server.

It must not know a server by name: its `Vendor` says how its models are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aether.errors import InputError
from aether.extensions.llm._vendors import Vendor, is_among
from aether.llm.messages import LLMRequest
from aether.llm.profiles import ModelProfile, nearest_effort

__all__ = ["reasoning_fields"]


def reasoning_fields(
    request: LLMRequest, *, vendor: Vendor, profile: ModelProfile, model: str
) -> Mapping[str, Any]:
    """The fields of the body; none for a model that is not known to be told.

    `InputError` where the model does not reason in such a call, but was told to.
    """
    wanted = request.reasoning
    if vendor.openai_models and request.tools and profile.chat_tools == "without_reasoning":
        if wanted not in (None, "none"):
            raise InputError(
                f"{model} does not reason while it has tools over Chat Completions. Pass "
                "reasoning='none', or use the Responses API: OPENAI_API=responses, or "
                "api='responses' where the provider is made."
            )
        return {"reasoning_effort": "none"}
    forced = request.tool_choice not in (None, "auto", "none")
    if forced and not vendor.forced_choice_reasons:
        if wanted not in (None, "none"):
            raise InputError(
                f"{vendor.name} takes no tool_choice of {request.tool_choice!r} for a model that "
                "reasons. Pass reasoning='none', or no tool_choice."
            )
        wanted = "none"
    if wanted is None:
        return {}
    told = _known_efforts(vendor, profile, model)
    return told[nearest_effort(wanted, told)] if told else {}


def _known_efforts(
    vendor: Vendor, profile: ModelProfile, model: str
) -> Mapping[str, Mapping[str, Any]]:
    if vendor.openai_models and profile.efforts is not None:
        efforts = list(profile.efforts)
        if profile.chat_tools == "refused" and "max" in efforts:
            efforts.remove("max")  # such models have it over the Responses API alone
        return {effort: {"reasoning_effort": effort} for effort in efforts}
    for control in vendor.reasoning:
        if is_among(model, control.models):
            return control.efforts
    return {}
