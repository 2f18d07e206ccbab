"""The cost model: what a plan costs on a graph and a machine: the seconds that the work of its kernels takes at measured rates.

Products count at the rate of a matrix product, other operations at the rate of a pointwise function, rows read or written in order at the
bandwidth of memory, rows gathered at the rate of a gather from a table of that size.
"""

from __future__ import annotations

from columba.ir.counts import Counts
from columba.ir.plan.plan import Plan
from columba.selection.rates import Rates
from columba.selection.work import WorkFormula, plan_formula


def plan_seconds(plan: Plan, counts: Counts, rates: Rates) -> float:
    """The predicted time of a plan."""
    return formula_seconds(plan_formula(plan), counts, rates)


def formula_seconds(formula: WorkFormula, counts: Counts, rates: Rates) -> float:
    """The predicted time of what a formula was made of."""
    return rates.seconds(formula.at(counts, rates.cache))
