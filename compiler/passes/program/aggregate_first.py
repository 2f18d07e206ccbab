"""Aggregation before products: rows are summed before they are multiplied by the weight that they share."""

from __future__ import annotations

from dataclasses import dataclass

from columba.ir.node import Node, rewrite
from columba.ir.program import build as b
from columba.ir.program.ops import Lift, Linear, Pointwise, Reduce, Reshape, Value
from columba.ir.program.program import Program
from columba.ir.spaces import (
    FURTHER_ENDS,
    NODE_SPACES,
    PAIR_SPACES,
    WEIGHT_SPACES,
    IndexMap,
    Space,
    compose,
    factor,
    maps_from,
)
from columba.ir.types import Shape
from columba.passes.pipeline import Pass
from columba.passes.program.facts import is_square
from columba.passes.program.rewriting import settled

ENDS = {end: (end, f"{end}_rel", *(name for name in FURTHER_ENDS if name.startswith(end))) for end in ("dst", "src")}


@dataclass(frozen=True)
class AggregateFirst(Pass[Program]):
    """``reduce(s * linear(lift x, W, edge->rel), edge->dst)
    --> reduce(linear(reduce(s * lift x, edge->dst_rel), W, dst_rel->rel), dst_rel->dst)``.

    Within a group of edges that share the weight and the destination, the product of the sum is the sum of the products: a product
    a group instead of one a source, and what edges read are rows of ``x``, of which there are few. Groups are the join of the
    two maps: pairs for a weight per relation, destinations for one per destination type or for all. Factors ``s`` may differ
    from edge to edge and from head to head (norms, attention), each head then summing its own rows. ``end`` says which sums to
    rewrite: those over the edges of a destination, or of a source, as gradients are. ``edges_only`` leaves alone the products that have
    a row per pair or node, where cost decides: a product that has a row per edge is always worth being put off until there are
    fewer rows, and is then never stored per edge.

    It must not fire where a factor differs among the features that one product mixes, for extrema, where anything but factors,
    signs and views stands between the product and the sum, where groups are edges, or where the product has a row per node and
    the groups are pairs, which are more.
    """

    end: str = "dst"
    edges_only: bool = False

    def run(self, program: Program) -> Program:
        square = is_square(program) is not False

        def rule(node: Node) -> Node:
            if not isinstance(node, Reduce) or node.op != "sum" or node.via.fine is not Space.EDGE:
                return node
            return node if node.via.name not in ENDS[self.end] else self._aggregated(node, square)

        return settled(program, lambda p: p.with_results(rewrite(p.results, rule)))

    def _aggregated(self, node: Reduce, square: bool) -> Value:
        value, outer = node.x, node.shape
        while isinstance(value, Reshape):
            value = value.x
        message = _read(value)
        if message is None or (self.edges_only and message.linear.space is not Space.EDGE):
            return node
        group = _group(node.via, message.select, square)
        if group is None or not _may_gain(message.linear, group):
            return node
        product = message.summed(group, value.shape)
        if product is None:
            return node
        if group.coarse not in PAIR_SPACES:  # the empty sum of an owner without members is 0, whatever the weight is
            product = Pointwise((b.occupied(group, product.dtype), product, b.constant_like(product, 0.0)), "where")
        rest = None if group == node.via else factor(node.via, group)
        return b.reshape(product if rest is None else b.reduce_sum(product, rest), outer)


@dataclass(frozen=True)
class _Message:
    """``factors * linear(x, w)`` per edge; ``select`` says which weight an edge takes, ``signs`` how often it is negated."""

    linear: Linear
    lifted: IndexMap | None
    factors: tuple[Value, ...]
    divisors: tuple[Value, ...]
    negative: bool

    @property
    def select(self) -> IndexMap:
        assert self.linear.via is not None
        return self.linear.via if self.lifted is None else compose(self.lifted, self.linear.via)

    def summed(self, group: IndexMap, shape: Shape) -> Value | None:
        """The product of the sum over each group, of ``shape``; None if a factor does not commute with the product."""
        linear, x = self.linear, self.linear.x
        x = x if self.lifted is None else b.lift(x, self.lifted)
        w = linear.w
        scales = [_features(f, len(shape)) for f in (*self.factors, *self.divisors)]
        scalar = all(f.type.size == 1 for f in scales)
        if not scalar and any(f.shape and f.shape[-1] != 1 for f in scales):
            return None
        transpose = linear.transpose
        if scalar:
            scales = [b.reshape(f, ()) for f in scales]
        elif shape != linear.shape:
            if len(linear.shape) != 1:
                return None
            w, transpose = _by_head(linear, shape), False
            x = b.reshape(x, (*(1,) * (len(shape) - 1), x.shape[-1]))
        for n, f in enumerate(scales):
            x = b.pointwise("mul" if n < len(self.factors) else "div", x, f)
        total = b.reduce_sum(x, group)
        if len(w.shape) > 2 and total.shape[:-1] != w.shape[:-2]:
            return None
        rest = self.select if group == self.select else factor(self.select, group)
        assert rest is not None
        product = b.reshape(Linear(total, w, rest, transpose), shape)
        return Pointwise((product,), "neg") if self.negative else product


def _read(value: Value) -> _Message | None:
    """A per-edge value taken apart, if it is a product with a weight that has a row per relation, type or graph."""
    factors: list[Value] = []
    divisors: list[Value] = []
    negative = False
    lifted: IndexMap | None = None
    plain = True  # no reshape met yet: below one, a factor's features are other ones

    def at_edge(factor_: Value) -> Value:
        return factor_ if lifted is None else b.lift(factor_, lifted)

    while True:
        match value:
            case Linear():
                if value.via is None or value.via.coarse not in WEIGHT_SPACES:
                    return None
                return _Message(value, lifted, tuple(factors), tuple(divisors), negative)
            case Lift():
                if lifted is not None:
                    return None
                lifted, value = value.via, value.x
            case Reshape():
                plain, value = False, value.x
            case Pointwise(function="neg"):
                negative, value = not negative, value.args[0]
            case Pointwise(function="mul" | "div"):
                main = _main(value)
                other = next((a for a in value.args if a is not main), None)
                if main is None or other is None or not (plain or other.type.size == 1):
                    return None
                (factors if value.function == "mul" else divisors).append(at_edge(other))
                value = main
            case _:
                return None


def _main(value: Pointwise) -> Value | None:
    """The operand that holds the product."""
    candidates = value.args[:1] if value.function == "div" else value.args
    return next((a for a in candidates if a.shape == value.shape and _holds_product(a)), None)


def _holds_product(value: Value) -> bool:
    while not isinstance(value, Linear):
        if isinstance(value, (Lift, Reshape)):
            value = value.x
        elif isinstance(value, Pointwise) and value.function in ("mul", "div", "neg"):
            operands = value.args if value.function == "mul" else value.args[:1]
            return any(a.shape == value.shape and _holds_product(a) for a in operands)
        else:
            return False
    return value.via is not None and value.via.coarse in WEIGHT_SPACES


def _group(via: IndexMap, select: IndexMap, square: bool) -> IndexMap | None:
    """The coarsest map whose rows share both the owner and the weight, short of the edges themselves."""
    for m in reversed(maps_from(via.fine, square=square, further=True)):
        if all(whole == m or factor(whole, m) is not None for whole in (via, select)):
            return m
    return None


def _may_gain(linear: Linear, group: IndexMap) -> bool:
    """Whether some graph has fewer groups than products, or else the rows to be summed become narrower."""
    if linear.space not in NODE_SPACES:
        return True
    return group.coarse in NODE_SPACES and linear.x.type.size < linear.type.size


def _features(value: Value, rank: int) -> Value:
    return b.reshape(value, (1,) * (rank - len(value.shape)) + value.shape)


def _by_head(linear: Linear, shape: Shape) -> Value:
    """The weight ``[K, N]`` as a matrix for each head: ``[*heads, K, N / heads]``."""
    w = b.swap_last(linear.w) if linear.transpose else linear.w
    split = b.reshape(w, (w.shape[0], *shape))
    heads = len(shape) - 1
    return b.permute(split, (*range(1, heads + 1), 0, heads + 1))
