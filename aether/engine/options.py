"""The options of a call: their names and types, and how they become a request and a run.

Argument beats environment beats default. It must not know the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypedDict

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from aether import config
from aether.engine.context import RunContext
from aether.errors import InputError
from aether.llm.budget import checked_budget
from aether.llm.data import made_of, problems_in
from aether.llm.deadline import deadline_after
from aether.llm.messages import LLMRequest, Message, ReasoningEffort, text_message
from aether.registry import Registry

if TYPE_CHECKING:
    from aether.llm.budget import Budget
    from aether.tools.contracts import Tool

__all__ = ["CallOptions", "as_messages", "build_request", "set_options"]


class CallOptions(TypedDict, total=False):
    """What every call takes as keywords. Left out or `None` means the default."""

    model: str | None
    """A model's name, or `provider:model`."""
    temperature: float | None
    max_tokens: int | None
    tools: Sequence[str | Tool | Callable[..., Any]]
    tool_choice: str | None
    """`auto`, `none`, `required` or a tool's name; a forced choice holds for the first turn."""
    parallel_tools: bool | None
    max_tool_iterations: int | None
    top_p: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    reasoning: ReasoningEffort | None
    """How much the model reasons before it answers; `none` to `max`, in its provider's words."""
    parallel_tool_calls: bool | None
    """`False` asks the model for one tool call a turn, where its provider has a switch for it."""
    output_schema: Mapping[str, Any] | None
    """A JSON Schema, of an object, that the model is held to or told; the text is not checked."""
    output_retries: int | None
    """How often the model is asked again for an answer of the type `output`; default 2."""
    extra_body: Mapping[str, Any] | None
    """Fields added to the provider's request as they are; objects are merged with its own."""
    extra_headers: Mapping[str, str] | None
    timeout: float | None
    """Seconds for all of it: queues, attempts and the waiting between them, tools, delegates. Then
    what is under way is cancelled, and `DeadlineExceededError` raised."""
    budget: Budget | None
    """What the call may use, besides what its client, session and agent may."""
    cache: bool | str | None
    """`True`: it may be answered from the client's cache, if it has one, and kept there, though
    another answer might have come; a text: the same, under this key. `False`: neither."""


_LIMITS = frozenset({"budget", "cache", "max_tool_iterations", "output_retries", "parallel_tools"})
_RUN_OPTIONS = _LIMITS | {"timeout", "tool_choice", "tools"}
_REQUEST_OPTIONS = frozenset(CallOptions.__annotations__) - _RUN_OPTIONS - {"model", "temperature"}
_CHECKED_LATE = frozenset({"model", "temperature"})
_KNOWN = frozenset(CallOptions.__annotations__) | {"output"}


def as_messages(prompt: str | Sequence[Message]) -> tuple[Message, ...]:
    """The prompt as messages; a string is one user message. The sequence is left as it is."""
    if isinstance(prompt, str):
        return (text_message("user", prompt),)
    if isinstance(prompt, Message) or not isinstance(prompt, Iterable):
        raise TypeError(
            "a prompt is a string or a sequence of Message, such as [Message('user', '...')], "
            f"not {type(prompt).__name__}"
        )
    messages = tuple(prompt)
    for message in messages:
        if not isinstance(message, Message):
            raise TypeError(
                f"a prompt is a string or a sequence of Message, not of {type(message).__name__}"
            )
    if not messages:
        raise InputError("The prompt has no messages.")
    return messages


def build_request(
    messages: tuple[Message, ...],
    options: Mapping[str, Any],
    *,
    model: str | None,
    run: RunContext,
) -> LLMRequest:
    """The first request of a run. Values of a wrong type or range raise `InputError`."""
    fields: dict[str, Any] = _fields(options, run) if options else {}
    is_known = not fields and _CHECKED_LATE.isdisjoint(options) and type(model) is str
    temperature = options.get("temperature")
    if temperature is None:
        temperature = config.temperature_override()
    if temperature is None:
        temperature = config.DEFAULT_TEMPERATURE
        fields["temperature_is_default"] = True
    fields |= {
        "messages": messages,
        "model": model,
        "temperature": temperature,
        "tools": tuple(run.tools.values()),
        "context": run.new_call(),
    }
    if is_known:
        return made_of(LLMRequest, fields | {"extra_body": {}, "extra_headers": {}})
    try:
        return LLMRequest(**fields)
    except InputError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        problems = "; ".join(problems_in(error.__cause__))
        raise InputError(f"Invalid option: {problems}.") from None


def _fields(options: Mapping[str, Any], run: RunContext) -> dict[str, Any]:
    """What the options say of the request, but for its temperature and tools."""
    if not _KNOWN.issuperset(options):
        unknown = options.keys() - _KNOWN
        raise TypeError(
            f"unknown option {', '.join(sorted(unknown))}; known: {', '.join(sorted(_KNOWN))}"
        )
    fields = {
        name: value
        for name, value in options.items()
        if name in _REQUEST_OPTIONS and value is not None
    }
    output = run.output
    if output is not None:
        if "output_schema" in fields:
            raise TypeError("give either output= or output_schema=")
        if output.schema is not None:
            # A copy: the type is remembered, and a provider may change what it is given.
            fields["output_schema"] = deepcopy(output.schema)
    elif "output_schema" in fields:
        _check_schema(fields["output_schema"])
    choice = options.get("tool_choice")
    if choice is not None:
        _check_choice(choice, run.tools)
        fields["tool_choice"] = choice
    return fields


def set_options(run: RunContext, options: Mapping[str, Any], registry: Registry) -> None:
    """Tell the run what the options say of it, its tools resolved. Its `timeout` begins now."""
    if not _LIMITS.isdisjoint(options):
        _set_limits(run, options)
    if options.get("tools"):
        import aether.tools.registry as known_tools  # a `from` looks for a submodule each time

        run.tools = known_tools.resolve_tools(options["tools"], registry=registry)
    if options.get("output") is not None:
        import aether.engine.output as outputs

        run.output = outputs.output_type(options["output"])
    deadline = deadline_after(options.get("timeout"))
    if deadline is not None:
        run.end_by(deadline)


def _set_limits(run: RunContext, options: Mapping[str, Any]) -> None:
    parallel = options.get("parallel_tools")
    if parallel is not None and not isinstance(parallel, bool):
        raise TypeError(f"parallel_tools is True or False, not {parallel!r}")
    iterations = options.get("max_tool_iterations")
    if iterations is not None and (
        isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1
    ):
        raise InputError(f"max_tool_iterations must be at least 1, not {iterations!r}.")
    retries = options.get("output_retries")
    if retries is not None:
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InputError(f"output_retries must be at least 0, not {retries!r}.")
        run.output_retries = retries
    cache = options.get("cache")
    if cache is not None and (not isinstance(cache, bool | str) or cache == ""):
        raise InputError("cache is True, False or a key, which is a text that is not empty.")
    budget = checked_budget(options.get("budget"))
    if budget is not None:
        run.budgets = (budget, *run.budgets)
    run.parallel_tools = parallel
    run.max_tool_iterations = iterations
    run.cache = cache


def _check_schema(schema: object) -> None:
    """Refuse what no provider could hold a model to."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise InputError(
            'output_schema is the JSON Schema of an object: {"type": "object", ...}. For any other '
            "type, pass output=."
        )
    try:
        parts = [from_json(to_json(schema))]
    except ValueError as error:
        raise InputError(f"output_schema cannot be written as JSON: {error}") from error
    root = parts[0]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str) and not _leads_somewhere(reference, root):
                raise InputError(f"output_schema refers to {reference!r}, which it does not have.")
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _leads_somewhere(reference: str, root: Any) -> bool:
    if not reference.startswith("#"):
        return False
    at = root
    for step in reference.removeprefix("#").removeprefix("/").split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if name and not (isinstance(at, dict) and name in at):
            return False
        at = at[name] if name else at
    return True


def _check_choice(choice: object, tools: Mapping[str, Tool]) -> None:
    if not isinstance(choice, str):
        raise TypeError("tool_choice is a string: auto, none, required or a tool's name")
    if choice in ("auto", "none"):
        return
    if choice == "required":
        if not tools:
            raise InputError("tool_choice='required' needs tools.")
    elif choice not in tools:
        offered = ", ".join(tools) or "none"
        raise InputError(f"tool_choice names {choice!r}, which is not offered. Offered: {offered}.")
