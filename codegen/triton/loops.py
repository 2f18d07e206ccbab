"""Loops over members as text: reductions are started before one, folded in it, and finished after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from columba.codegen.triton.functions import write_statements
from columba.codegen.triton.items import Item, Text, Writer, below_unknown
from columba.codegen.triton.levels import MEMBER, OWNER, WithMembers
from columba.codegen.triton.scalars import computed
from columba.codegen.triton.values import fold_of, start_of
from columba.ir.program.ops import Reduce


def write_loop(
    writer: Writer, level: WithMembers, phase: int, stores: Sequence[Item], stages: str = ""
) -> list[Accumulator]:
    """One loop over the members: what it folds, which its caller finishes, and ``stores`` of members' own.

    ``stages``: the name of the parameter that says how many steps of loads are under way.
    """
    folds = [f for f in level.folds if f.phase == phase + 1]
    roots = [*(f.args[0] for f in folds), *(a for s in stores for a in s.args)]
    for root in roots:
        for item in below_unknown(root, writer.known):
            if MEMBER not in item.axes and (item.name or item.args):
                writer.write([item])
    accumulators: dict[Item, Accumulator] = {}
    for f in folds:  # a weighted sum comes after the maximum that its weights are below
        of = level.weighted.get(f)
        if of is not None:
            accumulators[of].weighs = True
        accumulators[f] = Accumulator(f, level.folds[f], writer, None if of is None else accumulators[of])
    for a in accumulators.values():
        writer.lines += a.start()
    inner = writer.inner()
    for a in accumulators.values():
        inner.lines += a.fold(inner)
    write_statements(inner, list(stores))
    steps = f"tl.range(0, longest, MEMBERS, num_stages={stages})" if stages else "range(0, longest, MEMBERS)"
    writer.lines.append(f"# {_comment(level, accumulators.values(), stores)}")
    writer.lines += [f"for start in {steps}:", *(f"    {line}" for line in inner.lines)]
    return list(accumulators.values())


def _comment(level: WithMembers, accumulators: Iterable[Accumulator], stores: Sequence[Item]) -> str:
    """What a loop is for."""
    done = list(dict.fromkeys(a.what for a in accumulators)) + (["what each member stores"] if stores else [])
    return f"Over the rows of {level.via.fine}, MEMBERS of each owner at a time: {', '.join(done)}."


def finish(writer: Writer, level: WithMembers, accumulators: Iterable[Accumulator]) -> None:
    """What was folded over all members of each owner."""
    some = Text(f"{writer.known[level.end]} > {writer.known[level.begin]}")
    for a in accumulators:
        writer.lines += a.finish(some)
        writer.known[a.item] = Text(a.name)


NAN = "propagate_nan=tl.PropagateNan.ALL"


class Accumulator:
    """A reduction of members in the making: each lane folds its own members, and the lanes are put together after the loop.

    ``below``: the members are weighted by exponentials of logits less their maximum, which is in the making in the same loop and
    ``weighs``. The sum is kept relative to the largest logit so far, and scaled down whenever there is a larger one.
    """

    def __init__(self, item: Item, r: Reduce, writer: Writer, below: Accumulator | None = None) -> None:
        self.item = item
        self.r = r
        self.writer = writer
        self.below = below
        self.name = writer.fresh({"sum": "total", "max": "largest", "min": "smallest"}.get(r.op, r.op))
        self.weighs = False
        self.scale = self.weight = self.rescale = ""

    @property
    def what(self) -> str:
        if self.below is not None:
            weighted = "of products with" if len(self.item.args) > 1 else "of"
            return f"the sum {weighted} an online softmax's exponentials"
        return f"their {self.r.op}"

    def start(self) -> list[str]:
        axes = frozenset({OWNER, MEMBER}).union(*(a.axes for a in self.item.args))
        shape, kind = self.writer.layout.shape(axes), computed(self.r.dtype)
        return [f"{self.name} = tl.full({shape}, {start_of(self.r.op)}, {kind})"]

    def fold(self, inner: Writer) -> list[str]:
        if self.below is not None:
            *value, _ = self.item.args
            more = "".join(f" * {inner.read(v):a}" for v in value)
            return [
                "# What is summed so far shrinks where there is a new largest logit.",
                f"{self.name} = {self.name} * {self.below.scale} + {self.below.weight}{more}",
            ]
        if self.weighs:
            return self._fold_online(inner)
        x = inner.read(self.item.args[0])
        if self.r.op == "sum":
            return [f"{self.name} += {x}"]
        return [f"{self.name} = tl.{self.r.op}imum({self.name}, {x}, {NAN})"]

    def _fold_online(self, inner: Writer) -> list[str]:
        x = inner.named(self.item.args[0])
        top, base = inner.fresh("top"), inner.fresh("base")
        self.scale, self.weight = inner.fresh("scale"), inner.fresh("weight")
        return [
            f"{top} = tl.maximum({self.name}, {x}, {NAN})",
            f"{base} = tl.where({top} == -float('inf'), 0, {top})",
            f"{self.scale} = tl.exp({self.name} - {base})",
            f"{self.weight} = tl.exp({x} - {base})",
            f"{self.name} = {top}",
        ]

    def finish(self, some: str) -> list[str]:
        """The lanes put together; an owner without members gets 0."""
        if self.below is not None:
            return [f"{self.name} = sum_along({self.name} * {self.below.rescale}, 1)"]
        if self.r.op == "sum":
            return [f"{self.name} = sum_along({self.name}, 1)"]
        largest = f"{fold_of(self.r.op)}({self.name}, 1)"
        if not self.weighs:
            return [f"{self.name} = tl.where({some}, {largest}, 0)"]
        return self._rescaled(f"tl.where({some}, {largest}, 0)")

    def finish_part(self) -> list[str]:
        """The same of a part of an owner's members, of which there is at least one.

        Sums of exponentials are relative to the part's maximum; but to 0 where that is minus infinity, as in the loop: other parts may
        have larger members.
        """
        if self.below is not None or self.r.op == "sum":
            return self.finish("")
        largest = f"{fold_of(self.r.op)}({self.name}, 1)"
        if not self.weighs:
            return [f"{self.name} = {largest}"]
        return self._rescaled(largest, "tl.where({0} == -float('inf'), 0, {0})")

    def _rescaled(self, largest: str, base: str = "{0}") -> list[str]:
        top = self.writer.fresh("top")
        self.rescale = self.writer.fresh("rescale")
        return [
            f"{top} = {largest}",
            f"{self.rescale} = tl.exp({self.name} - {base.format(top)})",
            f"{self.name} = {top}",
        ]
