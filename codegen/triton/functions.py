"""The functions of a module before they are rendered, and what those of all kinds of kernels are made with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from columba.codegen.triton.index import Digit, flat, linear
from columba.codegen.triton.items import Axis, Item, Writer, below
from columba.codegen.triton.launches import Launch
from columba.codegen.triton.schedule import power_of_two
from columba.codegen.triton.values import Values, pieces_of
from columba.ir.plan.kernels import Buffer, Store
from columba.ir.spaces import Space


@dataclass(frozen=True)
class Function:
    """One function of the module: a template, what goes into it, and how it is launched. ``about``: what it is for, where the kernel's
    own summary does not say it."""

    name: str
    template: str
    launch: Launch
    fields: dict[str, Any] = field(default_factory=dict)
    about: str = ""


def rows_of(space: Space) -> Space | int:
    """The rows of a space as grids count them."""
    return 1 if space is Space.ONE else space


def width_of(roots: Iterable[Item], rows: int) -> int:
    """The lanes of the widest block beside its rows."""
    widest = 1
    for item in below(roots):
        lanes = 1
        for axis in item.axes:
            if axis.dim >= rows:
                lanes *= int(axis.block)
        widest = max(widest, lanes)
    return widest


def row_stores(values: Values, store: Store, row: Item, pieces: int = 1) -> Iterator[Item]:
    """The statements of a store to row ``row``, or to a piece of it."""
    for value, whole in pieces_of(values.items, store.value):
        index = values.iteration(value.shape)
        if pieces > 1:
            n = value.shape[0]
            block = power_of_two(n) // pieces
            axis = Axis(values.rows, str(block), None if n == block * pieces else n, f"piece * {block}")
            index = ((Digit(values.lanes(axis), n),), *index[1:])
        at = linear(values.items, flat(whole(index)))
        place = values.pointer(values.names.buffer(store.buffer), row, store.buffer.type.size, at)
        yield values.store(Store(Buffer(store.buffer.name, value.type, store.buffer.role), value), index, place)


def write_statements(writer: Writer, statements: list[Item]) -> None:
    """Statements, with what they need before them."""
    for statement in statements:
        text = str(writer.read(statement))
        writer.lines.append(text)
