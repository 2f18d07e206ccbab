"""Matrix products as text: operands put into the form that ``tl.dot`` takes, the loop in depth, the result put where its axes are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from columba.codegen.triton.items import Axis, BlockShape, Item, Text, Writer, below_unknown
from columba.codegen.triton.levels import ROW
from columba.codegen.triton.scalars import HALVES, STORED, computed
from columba.ir.types import DType


@dataclass(frozen=True)
class Descriptor:
    """A dense operand that is loaded by a tensor descriptor: what makes it, and what loads its block at ``depth``."""

    made: str
    name: str
    load: str


@dataclass(frozen=True)
class Dot:
    """A product at some index: the blocks that are multiplied, and the axes of the result.

    ``batch``: each of the leading axes has a matrix of its own in the block. Operands with a descriptor are loaded by it.
    """

    item: Item
    left: Item
    right: Item
    lead: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    batch: bool
    left_depth: Axis
    right_depth: Axis
    left_descriptor: Descriptor | None = None
    right_descriptor: Descriptor | None = None


def operand(text: str, dtype: DType) -> str:
    """An operand of a matrix product in the type that the launch says, rounded to the stored type first."""
    rounded = f"{Text(text):a}.to({STORED[dtype]})" if dtype in HALVES else f"{Text(text):a}"
    return f"{rounded}.to(OPERAND)"


def arranged(writer: Writer, item: Item, groups: Sequence[Sequence[Axis]]) -> str:
    """An item as a block with one dimension for each group of axes, in this order."""
    axes = [a for group in groups for a in group]
    text = str(writer.read(item))
    if not set(axes) <= item.axes:
        text = f"tl.broadcast_to({text}, {writer.layout.shape(axes)})"
    stands = sorted(axes, key=lambda a: a.dim)
    if stands != axes:
        order = ", ".join(str(stands.index(a)) for a in axes)
        text = f"tl.permute(tl.reshape({text}, ({', '.join(a.block for a in stands)})), ({order}))"
        if all(len(group) == 1 for group in groups):
            return text
    return f"tl.reshape({text}, ({', '.join(lanes(group) for group in groups)}))"


def lanes(axes: Sequence[Axis]) -> str:
    """The product of blocks."""
    known = math.prod(int(a.block) for a in axes if a.block.isdigit())
    unknown = [a.block for a in axes if not a.block.isdigit()]
    return " * ".join([*unknown, *([str(known)] if known != 1 or not unknown else [])])


def write_dot(dot: Dot, dtype: DType, k: int, depth: int, writer: Writer) -> None:
    """The product of ``k`` in depth, ``depth`` at a time."""
    batches = [dot.lead] if dot.batch else []
    rows = [ROW] if dot.batch else [ROW, *dot.lead]
    shape = ", ".join(lanes(group) for group in [*batches, rows, dot.columns])
    for root, descriptor in ((dot.left, dot.left_descriptor), (dot.right, dot.right_descriptor)):
        for item in below_unknown(root, writer.known) if descriptor is None else ():
            if not {dot.left_depth, dot.right_depth} & item.axes and (item.name or item.args):
                writer.write([item])
    total = writer.fresh("total")
    writer.lines.append(f"{total} = tl.full(({shape}), 0, {computed(dtype)})")
    looped = k > depth
    inner = writer.inner() if looped else writer
    left = _operand(inner, dot.left, dot.left_descriptor, [*batches, rows, [dot.left_depth]], dtype)
    right = _operand(inner, dot.right, dot.right_descriptor, [*batches, [dot.right_depth], dot.columns], dtype)
    at = "depth" if looped else "0"
    inner.lines.append(f"left = {left}".replace("{depth}", at))
    inner.lines.append(f"right = {right}".replace("{depth}", at))
    kind = ", out_dtype=tl.float64" if dtype is DType.F64 else ""
    inner.lines.append(f"{total} = tl.dot(left, right, {total}, input_precision=PRECISION{kind})")
    if looped:
        writer.lines.append(f"# The product, DEPTH of its {k} columns and rows at a time.")
        writer.lines.append(f"for depth in range(0, {k}, DEPTH):")
        writer.lines += [f"    {line}" for line in inner.lines]
    name = writer.fresh("product")
    writer.lines.append(f"{name} = {_placed(writer.layout, dot, total)}")
    writer.known[dot.item] = Text(name)


def _operand(
    inner: Writer, item: Item, descriptor: Descriptor | None, groups: Sequence[Sequence[Axis]], dtype: DType
) -> str:
    if descriptor is not None:
        return f"{descriptor.load}.to(OPERAND)"
    return operand(arranged(inner, item, groups), dtype)


def _placed(layout: BlockShape, dot: Dot, total: str) -> str:
    """The result with each axis in its own dimension."""
    axes = [*dot.lead, ROW, *dot.columns] if dot.batch else [ROW, *dot.lead, *dot.columns]
    belong = sorted(axes, key=lambda a: a.dim)
    if belong != axes:
        order = ", ".join(str(axes.index(a)) for a in belong)
        total = f"tl.permute(tl.reshape({total}, ({', '.join(a.block for a in axes)})), ({order}))"
    return f"tl.reshape({total}, {layout.shape(axes)})"
