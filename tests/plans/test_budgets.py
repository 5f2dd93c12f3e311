"""Kinds of budget: one record each, for planner, flags, forms and figures."""

import pytest

from ctrlab.models.profile import Cost
from ctrlab.plans.budgets import BUDGET_KINDS, COUNTED_KINDS, Budget, BudgetError

COST = Cost(parameters_tables=10, parameters_dense=5, bytes_tables=40, bytes_dense=20, macs=7)


def test_each_kind_counts_its_own_part_of_a_cost():
    assert {name: BUDGET_KINDS[name].amount(COST) for name in COUNTED_KINDS} == {
        "parameters": 15.0, "bytes": 60.0, "table_bytes": 40.0, "macs": 7.0,
    }  # fmt: skip
    with pytest.raises(BudgetError, match="measured, not counted"):
        BUDGET_KINDS["latency_ms"].amount(COST)


def test_goals_and_flags_come_from_the_records():
    assert [kind.goal for kind in BUDGET_KINDS][:2] == ["Parameters, at most", "Size in MB, at most"]
    assert [kind.flag for kind in BUDGET_KINDS] == ["--parameters", "--bytes", "--table-bytes", "--macs", "--latency-ms"]


def test_a_budget_names_its_unit_when_it_is_refused():
    with pytest.raises(BudgetError, match="a budget of 0 bytes of tables is none"):
        Budget(kind="table_bytes", limit=0)
    with pytest.raises(BudgetError, match="milliseconds needs the batch size"):
        Budget(kind="latency_ms", limit=3)
