"""The cost model: what a plan costs on a graph and a machine: the seconds that the work of its kernels takes at measured rates.

Products count at the rate of a matrix product, other operations at the rate of a pointwise function, rows read or written in order at the
bandwidth of memory, rows gathered at the rate of a gather from a table of that size.
"""

from __future__ import annotations

from columba.ir.counts import Counts
from columba.ir.plan.plan import Plan
from columba.ir.spaces import Space
from columba.selection.rates import Rates
from columba.selection.work import Rows, WorkFormula, plan_formula


def plan_seconds(plan: Plan, counts: Counts, rates: Rates) -> float:
    """The predicted time of a plan."""
    return formula_seconds(plan_formula(plan), counts, rates)


def formula_seconds(formula: WorkFormula, counts: Counts, rates: Rates) -> float:
    """The predicted time of what a formula was made of."""
    return rates.seconds(formula.at(counts, rates.cache))


class LinearCost:
    """A formula at the rates of one machine: seconds for each row of a space.

    They are other ones where other tables fit the cache. For the graphs on which the same ones do, all of the formula is one sum of as many
    products as there are spaces, which takes a tenth of its evaluation: every graph that comes is asked for it.
    """

    def __init__(self, formula: WorkFormula, rates: Rates) -> None:
        self.formula, self.rates = formula, rates
        self.tables = list(formula.gathers)
        self.regimes: dict[tuple[bool, ...], list[tuple[Space, float]]] = {}
        self.fixed = formula.kernels * rates.start

    def seconds(self, counts: Counts) -> float:
        """As :func:`formula_seconds`, but for how sums are rounded."""
        rows, cache = counts.by_space, self.rates.cache
        near = tuple([rows[table] * size <= cache for table, size in self.tables])
        each = self.regimes.get(near)
        if each is None:
            each = self.regimes[near] = self._each(near)
        total = self.fixed
        for space, seconds in each:
            total += rows[space] * seconds
        return total

    def _each(self, near: tuple[bool, ...]) -> list[tuple[Space, float]]:
        """Seconds for each row, where the tables that are near are these."""
        formula, rates = self.formula, self.rates
        parts = [
            (formula.products, rates.products),
            (formula.pointwise, rates.pointwise),
            (formula.streamed, rates.streamed),
            *((formula.gathers[t], rates.near if n else rates.far) for t, n in zip(self.tables, near, strict=True)),
        ]
        found = Rows()
        for rows, rate in parts:
            for space, amount in rows.items():
                found[space] = found.get(space, 0.0) + amount / rate
        return list(found.items())
