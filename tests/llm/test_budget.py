"""A budget by itself: what is a limit, what it says, and that it holds in a chain of parents."""

from __future__ import annotations

import copy
import math
import pickle
import sys
import threading
from decimal import Decimal, getcontext, localcontext
from typing import Any

import pytest

from aether import Budget
from aether.errors import ConfigurationError
from aether.llm.budget import with_parents
from aether.llm.holding import Amount, Hold, Used


def dollars(usd: str, tokens: int = 0, requests: int = 0) -> Amount:
    return Amount(Decimal(usd), tokens, requests)


def held(need: Amount, *budgets: Budget) -> Hold:
    hold = Hold(with_parents(budgets))
    assert hold.open(need) == ()
    return hold


class TestLimits:
    @pytest.mark.parametrize(
        "limits",
        [
            {},
            {"usd": -1},
            {"usd": -0.01},
            {"usd": math.nan},
            {"usd": math.inf},
            {"usd": Decimal("NaN")},
            {"usd": Decimal("sNaN")},
            {"usd": Decimal("-Infinity")},
            {"usd": True},
            {"usd": "5"},
            {"usd": 5j},
            {"usd": [5]},
            {"tokens": -1},
            {"tokens": 1.5},
            {"tokens": True},
            {"tokens": "many"},
            {"requests": -1},
            {"requests": 2.0},
            {"requests": False},
            {"parent": 5},
            {"usd": 5, "parent": "the other"},
            {"usd": 5, "unknown_price": "guess"},
            {"usd": 5, "unknown_price": None},
        ],
        ids=repr,
    )
    def test_what_is_no_limit_is_refused_with_what_it_should_be(
        self, limits: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"[Bb]udget.*(is|needs) "):
            Budget(**limits)

    @pytest.mark.parametrize(
        ("given", "limit"),
        [
            (5, 5.0),
            (0, 0.0),
            (0.1, 0.1),
            (Decimal("0.30"), 0.3),
            (10**20, 1e20),
            (1e-9, 1e-9),
        ],
    )
    def test_dollars_are_any_number(self, given: Any, limit: float) -> None:
        assert Budget(usd=given).usd == limit
        assert Budget(given).remaining_usd == limit

    def test_a_limit_is_as_it_was_written_and_not_as_the_machine_rounds_it(self) -> None:
        budget = Budget(usd=0.3)
        for _ in range(3):
            held(dollars("0.1"), budget)
        assert budget.remaining_usd == 0.0
        assert Hold([budget]).open(dollars("0.000000000000000001"))

    def test_sums_are_exact_whatever_precision_a_thread_has_set(self) -> None:
        budget = Budget(usd=Decimal("1.000000000000000000000000000003"))
        with localcontext() as context:
            context.prec = 2
            assert getcontext().prec == 2
            for _ in range(3):
                held(dollars("0.333333333333333333333333333334"), budget).settle(
                    Used(dollars("0.333333333333333333333333333334"))
                )
            assert Hold([budget]).open(dollars("0.000000000000000000000000000002"))
            assert not Hold([budget]).open(dollars("0.000000000000000000000000000001"))

    def test_without_a_limit_of_a_kind_nothing_remains_or_lacks_of_it(self) -> None:
        budget = Budget(requests=2)
        assert (budget.usd, budget.tokens, budget.requests) == (None, None, 2)
        assert (budget.remaining_usd, budget.remaining_tokens) == (None, None)
        held(dollars("1000", 10**9, 2), budget)
        assert budget.remaining_requests == 0

    def test_a_parent_alone_is_enough(self) -> None:
        budget = Budget(parent=Budget(requests=1))
        assert (budget.usd, budget.tokens, budget.requests) == (None, None, None)
        held(Amount(requests=1), budget)
        assert Hold(with_parents([budget])).open(Amount(requests=1))


class TestParents:
    def test_the_parent_cannot_be_changed(self) -> None:
        budget = Budget(usd=1, parent=Budget(usd=2))
        with pytest.raises(AttributeError):
            budget.parent = budget  # type: ignore[misc]  # what nobody should write

    def test_no_budget_can_become_its_own_parent(self) -> None:
        first = Budget(usd=1)
        second = Budget(usd=2, parent=first)
        with pytest.raises(ConfigurationError, match="own parent"):
            first.__init__(usd=1, parent=second)  # type: ignore[misc]  # what nobody should write
        assert first.parent is None

    def test_a_chain_is_drawn_on_as_a_whole_or_not_at_all(self) -> None:
        root = Budget(usd=1)
        child = Budget(tokens=100, parent=root)
        leaf = Budget(requests=5, parent=child)
        held(dollars("0.6", 50, 1), leaf)
        assert (root.remaining_usd, child.remaining_tokens, leaf.remaining_requests) == (0.4, 50, 4)
        assert Hold(with_parents([leaf])).open(dollars("0.6", 50, 1))
        assert (root.remaining_usd, child.remaining_tokens, leaf.remaining_requests) == (0.4, 50, 4)

    def test_a_budget_that_is_reached_twice_counts_once(self) -> None:
        root = Budget(usd=1)
        first, second = Budget(usd=1, parent=root), Budget(usd=1, parent=root)
        assert with_parents([first, second, root, first]) == (first, root, second)
        hold = held(dollars("0.6"), first, second, root)
        assert root.remaining_usd == 0.4
        hold.settle(Used(dollars("0.5")))
        assert (root.spent_usd, first.spent_usd, second.spent_usd) == (0.5, 0.5, 0.5)


class TestFigures:
    def test_what_is_set_aside_does_not_remain_and_what_was_not_used_comes_back(self) -> None:
        budget = Budget(usd=1, tokens=100, requests=3)
        hold = held(dollars("0.75", 60, 1), budget)
        assert (budget.spent_usd, budget.spent_tokens, budget.spent_requests) == (0.0, 0, 0)
        assert (budget.remaining_usd, budget.remaining_tokens) == (0.25, 40)
        assert budget.remaining_requests == 2
        hold.settle(Used(dollars("0.25", 20, 1), dollars("0.5", 40), unpriced=0))
        assert (budget.spent_usd, budget.spent_tokens, budget.spent_requests) == (0.25, 20, 1)
        assert (budget.remaining_usd, budget.remaining_tokens) == (0.75, 80)
        assert (budget.uncertain_usd, budget.uncertain_tokens) == (0.5, 40)

    def test_more_than_the_limit_is_told_and_nothing_remains(self) -> None:
        budget = Budget(usd=1)
        held(dollars("1"), budget).settle(Used(dollars("1.5")))
        assert budget.spent_usd == 1.5
        assert budget.remaining_usd == 0.0
        assert "$1.50 spent, $0.00 left" in repr(budget)

    def test_another_attempt_takes_the_place_of_the_last_one(self) -> None:
        budget = Budget(usd=1, requests=3)
        hold = held(dollars("0.6", 0, 1), budget)
        assert hold.extend(Used(dollars("0.1", 0, 1)), dollars("0.6", 0, 1))
        assert (budget.spent_usd, budget.remaining_usd) == (0.1, 0.3)
        assert not hold.extend(Used(dollars("0.5", 0, 1)), dollars("0.6", 0, 1))
        assert (budget.spent_usd, budget.remaining_usd, budget.remaining_requests) == (0.6, 0.4, 1)
        hold.settle(Used())
        assert (budget.spent_usd, budget.remaining_usd, budget.remaining_requests) == (0.6, 0.4, 1)

    def test_what_is_under_way_stays_set_aside_beside_another_attempt(self) -> None:
        budget = Budget(requests=2)
        hold = held(dollars("0", 0, 1), budget)
        assert hold.extend(Used(), dollars("0", 0, 1), kept=dollars("0", 0, 1))
        assert budget.remaining_requests == 0
        assert not hold.extend(Used(), dollars("0", 0, 1), kept=dollars("0", 0, 2))
        assert budget.remaining_requests == 0
        hold.settle(Used(dollars("0", 0, 2)))
        assert (budget.spent_requests, budget.account.held.requests) == (2, 0)

    def test_it_shows_what_is_set_aside(self) -> None:
        budget = Budget(usd=1, tokens=100, requests=3)
        held(dollars("0.75", 60, 1), budget)
        assert repr(budget) == (
            "Budget(usd=1: $0.00 spent, $0.75 set aside, $0.25 left; tokens=100: 0 spent, "
            "60 set aside, 40 left; requests=3: 0 spent, 1 set aside, 2 left)"
        )

    def test_it_shows_its_limits_and_what_became_of_them(self) -> None:
        root = Budget(usd=20)
        budget = Budget(usd=0.5, tokens=1_000, requests=3, parent=root)
        held(dollars("0.1", 10, 1), budget).settle(
            Used(dollars("0.00123", 7, 1), dollars("0.0004", 3), unpriced=1)
        )
        assert repr(budget) == (
            "Budget(usd=0.5: $0.00123 spent, $0.0004 uncertain, $0.4988 left; "
            "unpriced requests: 1; tokens=1000: 7 spent, 993 left; requests=3: 1 spent, 2 left; "
            "parent=Budget(usd=20: $0.00123 spent, $0.0004 uncertain, $19.9988 left; "
            "unpriced requests: 1))"
        )

    def test_a_copy_is_the_budget_itself_and_none_leaves_its_process(self) -> None:
        budget = Budget(usd=1)
        assert copy.copy(budget) is budget
        assert copy.deepcopy({"budget": budget})["budget"] is budget
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(budget)


def test_threads_together_never_set_aside_more_than_there_is() -> None:
    root = Budget(usd=1, requests=1_000)
    children = [Budget(tokens=2_000, parent=root) for _ in range(4)]
    need = dollars("0.01", 10, 1)
    passed: list[str] = []
    interval = sys.getswitchinterval()

    def draw(child: Budget) -> None:
        for _ in range(300):
            hold = Hold(with_parents([child, root]))
            if hold.open(need):
                continue
            if root.account.held.usd > 1 or child.account.held.tokens > 2_000:
                passed.append(repr(root))
            hold.extend(Used(dollars("0.001", 1, 1)), need)
            hold.settle(Used(dollars("0.001", 1, 1)))

    threads = [threading.Thread(target=draw, args=(child,)) for child in children * 2]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not passed
    assert root.account.held == Amount()
    assert root.account.spent.usd <= 1
    assert root.spent_requests == sum(child.spent_requests for child in children)
    assert root.account.spent.usd == Decimal("0.001") * root.spent_requests
