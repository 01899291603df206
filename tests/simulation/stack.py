"""One default stack, from a provider's server to cost tracking, with taps that watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from zlib import crc32

from aether.extensions.llm._pacing import Pace
from aether.extensions.llm.anthropic import AnthropicProvider
from aether.extensions.llm.circuit_breaker import CircuitBreakerProvider
from aether.extensions.llm.cost_tracking import CostTrackingProvider, Usage
from aether.extensions.llm.gemini import GeminiProvider
from aether.extensions.llm.openai import OpenAIProvider
from aether.extensions.llm.retrying import RetryingProvider
from aether.http.contracts import Timeout
from aether.llm.contracts import LLMProvider, LLMRequest
from aether.testing.faults import WireRequest
from aether.testing.wires import (
    AnthropicWire,
    GeminiWire,
    OpenAIChatWire,
    OpenAIResponsesWire,
    Wire,
)
from tests.simulation.calls import Call
from tests.simulation.circuit import Circuit, Rules
from tests.simulation.judging import Judge
from tests.simulation.money import Prices
from tests.simulation.network import Exchange, Network
from tests.simulation.retry import BUDGET, Dice, Retries
from tests.simulation.taps import AboveAdapter, AboveBreaker, AboveRetry
from tests.simulation.weather import Weather

__all__ = ["MODELS", "PROTOCOLS", "Stack", "Tuning"]

MODELS = ("m-1", "m-2")
KEY = "sk-canary-of-the-simulation"
CONNECTION: dict[str, Any] = {"base_url": "http://model.test", "timeout": Timeout(read=20.0)}


@dataclass(frozen=True)
class Tuning:
    """What of a world is not left to chance."""

    protocol: str | None = None
    breaking: bool | None = None
    rules: Rules | None = None


class Stack:
    """The stack, the weather at its server, and the models of its layers. `on_call` is told of each
    call.
    """

    def __init__(
        self,
        protocol: str,
        chance: Random,
        tuning: Tuning,
        *,
        clock: Callable[[], float],
        judge: Judge,
        on_call: Callable[[Call], None],
    ) -> None:
        self._clock = clock
        self.judge = judge
        self._on_call = on_call
        self.calls: dict[str, Call] = {}
        wire, adapter = PROTOCOLS[protocol]
        self.weather = Weather(wire, Random(chance.random()), clock)
        self.network = Network(wire, self._begin)
        self._dice = Dice(Random(chance.random()))
        self._budget = chance.choice((BUDGET, BUDGET, chance.randrange(30)))
        """Tenths of a retry that are left to begin with."""
        if tuning.rules is not None:
            self._budget = BUDGET
        pause = chance.choice((0.5, 2.0, 30.0))
        self._rules = tuning.rules or Rules(
            threshold=chance.choice((1, 2, 5)),
            pause=pause,
            longest=chance.choice((pause, 3 * pause, 300.0)),
            probe=chance.choice((3.0, 15.0, 600.0)),
        )
        self._circuits: dict[str | None, Circuit] = {}
        self._retries: dict[str | None, Retries] = {}
        self._breaking = chance.random() < 0.8 if tuning.breaking is None else tuning.breaking
        self.usage = Usage(prices=Prices())
        self.provider = self._build(adapter(self.network), protocol, Random(chance.random()))

    def _build(self, adapter: Any, name: str, chance: Random) -> CostTrackingProvider:
        """The layers in the order of `aether.extensions.llm.builder`, with taps in between."""
        clock = self._clock
        adapter._exchange._endpoint._clock = clock
        retrying = RetryingProvider(
            AboveAdapter(adapter, self), provider=name, clock=clock, random=self._dice
        )
        if self._budget < BUDGET:
            for model in MODELS:
                _spend(retrying._paces[model], self._budget)
        provider: LLMProvider = AboveRetry(retrying, self)
        if self._breaking:
            provider = CircuitBreakerProvider(
                provider,
                failure_threshold=self._rules.threshold,
                recovery_timeout=self._rules.pause,
                max_recovery_timeout=self._rules.longest,
                probe_timeout=self._rules.probe,
                provider=name,
                clock=clock,
                random=chance.random,
            )
        provider = AboveBreaker(provider, self)
        return CostTrackingProvider(provider, usage=self.usage, clock=clock)

    def open_call(self, request: LLMRequest, tag: str, *, streaming: bool) -> Call:
        assert request.context is not None
        call = Call(tag, request, request.context, streaming, self._clock())
        self.calls[request.context.call_id] = call
        self._on_call(call)
        return call

    def close_call(self, call: Call) -> None:
        came = f"{call.outcome} {''.join(call.shown)!r}"
        self.judge.note(f"call {call.tag} {len(call.attempts)} attempts {came}")

    def call_of(self, request: LLMRequest) -> Call:
        assert request.context is not None
        return self.calls[request.context.call_id]

    def circuit(self, model: str | None) -> Circuit | None:
        if self._breaking and model not in self._circuits:
            self._circuits[model] = Circuit(str(model), self._rules, self._clock, self.judge)
        return self._circuits.get(model)

    def retries(self, model: str | None) -> Retries:
        if model not in self._retries:
            self._retries[model] = Retries(
                self.circuit(model), self._dice, self._clock, self.judge, budget=self._budget
            )
        return self._retries[model]

    def _begin(self, request: WireRequest, call_id: str) -> Exchange:
        call = self.calls[call_id]
        exchange = Exchange(request.body, self.weather.plan(request, call))
        call.exchanges.append(exchange)
        same = exchange.body == call.exchanges[0].body
        self.judge.check(same, "I1: %s was sent with another body the second time", call.tag)
        plan = exchange.plan
        fate = "is lost" if plan.unreachable else ", ".join(each.name for each in plan.faults)
        self.judge.note(f"request {call.tag} {crc32(request.body):08x} {fate or 'goes well'}")
        return exchange


def _spend(pace: Pace, left: int) -> None:
    """Leave so many tenths of a retry in the budget."""
    for _ in range(BUDGET // 10):
        pace.take_retry()
    for _ in range(left):
        pace.put_back(0)


def _chat(transport: Network) -> LLMProvider:
    return OpenAIProvider(KEY, MODELS[0], api="chat", transport=transport, **CONNECTION)


def _responses(transport: Network) -> LLMProvider:
    return OpenAIProvider(KEY, MODELS[0], api="responses", transport=transport, **CONNECTION)


def _messages(transport: Network) -> LLMProvider:
    return AnthropicProvider(KEY, MODELS[0], transport=transport, **CONNECTION)


def _gemini(transport: Network) -> LLMProvider:
    return GeminiProvider(KEY, MODELS[0], transport=transport, **CONNECTION)


PROTOCOLS: dict[str, tuple[Wire, Callable[[Network], LLMProvider]]] = {
    "openai chat": (OpenAIChatWire(), _chat),
    "openai responses": (OpenAIResponsesWire(), _responses),
    "anthropic": (AnthropicWire(), _messages),
    "gemini": (GeminiWire(), _gemini),
}
