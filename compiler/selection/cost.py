"""The cost model: what a plan costs on a graph and a machine: the seconds that the work of its kernels takes at measured rates.

Products count at the rate of a matrix product, other operations at the rate of a pointwise function, rows read or written in order at the
bandwidth of memory, rows gathered at the rate of a gather from a table of that size.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

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


class LinearCosts:
    """Formulas at the rates of one machine: seconds for each row of a space.

    They are other ones where other tables fit the cache. For the graphs on which the same ones do, each formula is one sum of as many
    products as there are spaces, which takes a tenth of its evaluation: every graph that comes is asked for it.
    """

    def __init__(self, formulas: Mapping[str, WorkFormula], rates: Rates) -> None:
        self.formulas, self.rates = formulas, rates
        self.tables = list(dict.fromkeys(table for f in formulas.values() for table in f.gathers))
        used = (
            space
            for f in formulas.values()
            for rows in (f.products, f.pointwise, f.streamed, *f.gathers.values())
            for space in rows
        )
        self.spaces = list(dict.fromkeys(used))
        self.regimes: dict[tuple[bool, ...], list[tuple[str, float, list[float]]]] = {}

    def seconds(self, counts: Counts) -> dict[str, float]:
        """As :func:`formula_seconds` of each, but for how sums are rounded."""
        rows, cache = counts.by_space, self.rates.cache
        near = tuple([rows[table] * size <= cache for table, size in self.tables])
        found = self.regimes.get(near)
        if found is None:
            found = self.regimes[near] = [(name, *self._each(f, near)) for name, f in self.formulas.items()]
        many = [rows[space] for space in self.spaces]
        return {name: sum(map(operator.mul, many, each), fixed) for name, fixed, each in found}

    def _each(self, formula: WorkFormula, near: tuple[bool, ...]) -> tuple[float, list[float]]:
        """Seconds whatever graph it is, and for each row of the spaces, where the tables that are near are these."""
        rates = self.rates
        parts = [
            (formula.products, rates.products),
            (formula.pointwise, rates.pointwise),
            (formula.streamed, rates.streamed),
        ]
        parts += [
            (formula.gathers.get(table, {}), rates.near if is_near else rates.far)
            for table, is_near in zip(self.tables, near, strict=True)
        ]
        each = [sum(rows.get(space, 0.0) / rate for rows, rate in parts) for space in self.spaces]
        return formula.kernels * rates.start, each
