"""The cost model: what a plan costs on a graph and a machine: the seconds that the work of its kernels takes at measured rates.

Products count at the rate of a matrix product, other operations at the rate of a pointwise function, rows read or written in order at the
bandwidth of memory, rows gathered at the rate of a gather from a table of that size.
"""

from __future__ import annotations

from columba.ir.counts import Counts
from columba.ir.plan.plan import Plan
from columba.selection.rates import Rates
from columba.selection.work import kernel_work


def plan_seconds(plan: Plan, counts: Counts, rates: Rates) -> float:
    """The predicted time of a plan."""
    return sum(rates.seconds(kernel_work(k, counts, rates.cache)) for k in plan.kernels)
