"""Recomputation: what the forward program hands to the backward one, chosen as a minimum cut.

Every forward value that the backward program needs is saved, or is computed again from its operands, which are then needed in turn.
Saving costs the bytes that are written and read; computing again costs the operations, weighed against bytes by what this
class of machine does of each in the same time, and the bytes that its reads gather. The cheapest choice for the whole
program is a minimum cut between the inputs and what the backward program reads (as in the partitioner of
PyTorch's AOTAutograd).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from columba.ir.counts import TYPICAL, Counts
from columba.ir.node import topological
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import (
    VIEWS,
    Cast,
    Constant,
    Degree,
    FeatureReduce,
    Input,
    Lift,
    Linear,
    OuterReduce,
    Pointwise,
    Reduce,
    Uniform,
    Value,
)
from columba.ir.spaces import Space

if TYPE_CHECKING:
    import networkx as nx

PRODUCT_FLOPS = 5.0
"""Floating-point operations of a matrix product in the time of a byte."""

POINTWISE_FLOPS = 2.0
"""Other floating-point operations in the time of a byte."""

SMALL_ROW = 16
"""Elements that may be saved for every edge: numbers a head, never features."""

HIGHEST_PRICE, REFINEMENTS = 1e6, 5
"""Where the search for a price below the budget gives up and saves nothing, and how often it halves the interval it found."""

FREE = (*VIEWS, Constant, Lift)
"""What is done in place where it is read."""


@dataclass(frozen=True)
class Saving:
    """How to choose what is saved.

    ``counts`` are the rows of each space. ``budget`` is the most bytes that saved values may take in all, on a graph with these
    counts (None: any number); the choice is the cheapest that a growing price of a byte finds below it. Inputs and results of
    the forward program are kept by their owners and do not count. ``price`` weighs the bytes of saved values against everything
    else: where it is low, more is saved.
    """

    counts: Counts = TYPICAL
    budget: int | None = None
    price: float = 1.0

    def choose(self, results: Sequence[Value], needed: Sequence[Value]) -> list[Value]:
        """The values to save, in the program's order.

        ``results`` are those of the forward program, ``needed`` the values, not depending on gradients from outside, that the
        backward program reads.
        """
        if self.budget is not None and self.budget < 0:
            raise ValueError(f"memory budget must not be negative, got {self.budget}")
        saved = self._cut(results, needed, self.price)
        if self._fits(saved, results):
            return saved
        low, high = self.price, self.price
        while not self._fits(saved, results):
            low, high = high, high * 4.0 if high < HIGHEST_PRICE else math.inf
            saved = self._cut(results, needed, high)
        for _ in range(REFINEMENTS if math.isfinite(high) else 0):
            middle = math.sqrt(low * high)
            candidate = self._cut(results, needed, middle)
            if self._fits(candidate, results):
                high, saved = middle, candidate
            else:
                low = middle
        return saved

    def _fits(self, saved: Sequence[Value], results: Sequence[Value]) -> bool:
        return self.budget is None or self.bytes(v for v in saved if v not in results) <= self.budget

    def bytes(self, values: Iterable[Value]) -> int:
        """Bytes that values take."""
        return sum(self._bytes(v) for v in values)

    def _bytes(self, value: Value) -> int:
        return self.counts.bytes(value.type)

    # -------------------------------------------------------------------------------------------- the cut

    def _cut(self, results: Sequence[Value], needed: Sequence[Value], price: float) -> list[Value]:
        """A node for "computed again" (2n) and one for "there" (2n + 1) of each value; what is cut between them is saved."""
        import networkx as nx  # takes long to import, and plans that are cached need none of it

        order = [v for v in topological(needed) if isinstance(v, Value) and not isinstance(v, Input)]
        forward = set(topological(results))
        number = {v: n for n, v in enumerate(order)}
        graph = nx.DiGraph()
        graph.add_nodes_from(("source", "sink"))
        for n, v in enumerate(order):
            save = self._saving_cost(v, v in results, price) if v in forward else math.inf
            _arc(graph, 2 * n, 2 * n + 1, save)
            _arc(graph, "source", 2 * n, self._computing_cost(v))
            for operand in v.children:
                if operand in number:
                    _arc(graph, 2 * number[operand] + 1, 2 * n, math.inf)  # type: ignore[index]
        for v in needed:
            if v in number:
                _arc(graph, 2 * number[v] + 1, "sink", math.inf)
        _, (kept, lost) = nx.minimum_cut(graph, "source", "sink")
        return [v for n, v in enumerate(order) if 2 * n in kept and 2 * n + 1 in lost]

    def _saving_cost(self, v: Value, is_result: bool, price: float) -> float:
        """Bytes written and read. What is a result is only read; what is a buffer anyway is written anyway."""
        if is_result:
            return float(self._bytes(v))
        if (
            math.isinf(price)
            or isinstance(v, (*FREE, Degree, Uniform))
            or (v.space is Space.EDGE and not _worth_an_edge(v))
        ):
            return math.inf
        return price * (1.0 if _is_product(v) else 2.0) * self._bytes(v)

    def _computing_cost(self, v: Value) -> float:
        rows = self.counts[v.space]
        match v:
            case Linear():
                return 2.0 * rows * v.x.type.size * v.shape[-1] / PRODUCT_FLOPS + 2.0 * self._bytes(v)
            case OuterReduce():
                return 2.0 * self.counts[v.x.space] * v.x.type.size * v.y.shape[-1] / PRODUCT_FLOPS + self._bytes(v)
            case Reduce():
                return float(self._bytes(v.x) + self._bytes(v))
            case FeatureReduce():
                return rows * v.x.type.size / POINTWISE_FLOPS
            case Pointwise():
                return rows * v.type.size * POINTWISE[v.function].flops / POINTWISE_FLOPS
            case _:
                return 0.0


def _worth_an_edge(v: Value) -> bool:
    """Whether a value may be saved for every edge.

    A few numbers that a dot product of wide rows or a matrix product made may be. Wide rows may not, with one exception: the product
    of an edge feature of the user's, for whom edges hold wide rows already, and who would have it filled a second time.
    """
    if isinstance(v, FeatureReduce):
        return v.type.size <= SMALL_ROW < v.x.type.size
    return isinstance(v, Linear) and (v.type.size <= SMALL_ROW or _is_wide_feature(v.x))


def _is_wide_feature(v: Value) -> bool:
    while isinstance(v, VIEWS):
        v = v.x
    return isinstance(v, Input) and v.type.size > SMALL_ROW


def _is_product(v: Value) -> bool:
    """Whether a matrix product, or the epilogue of one, makes the value."""
    if isinstance(v, Cast) and v.loose:
        return _is_product(v.x)
    if isinstance(v, Pointwise):
        return any(isinstance(a, Linear) and a.type == v.type for a in v.args)
    return isinstance(v, (Linear, OuterReduce))


def _arc(graph: nx.DiGraph, start: object, end: object, capacity: float) -> None:
    """An arc; a networkx arc without a capacity is one that cannot be cut."""
    if math.isinf(capacity):
        graph.add_edge(start, end)
    else:
        graph.add_edge(start, end, capacity=capacity)
