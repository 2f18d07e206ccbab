"""Positions in a row as functions of the lanes of a block.

An index has one component for each feature dimension; a component is a number in mixed radix, most significant digit first, whose
radices multiply to the size of the dimension. Reshaping regroups digits, and what was split apart and is put together again
disappears, so that a chain of views in front of a load costs no arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from columba.codegen.triton.items import Item, Items
from columba.ir.types import Shape


@dataclass(frozen=True)
class Digit:
    """``value`` in ``range(radix)``; where the ``guards`` do not hold it may be anything, and nothing may be read with it.

    ``part`` says that it is the quotient or the remainder of another item by a number.
    """

    value: Item
    radix: int
    guards: tuple[Item, ...] = ()
    part: tuple[str, Item, int] | None = None


Component = tuple[Digit, ...]
Index = tuple[Component, ...]


def flat(index: Index) -> Component:
    """The position in row-major order."""
    return tuple(d for component in index for d in component)


def linear(items: Items, component: Component) -> Item | None:
    """The number that a component stands for; None for 0."""
    digits = _joined(component)
    if not digits:
        return None
    if len(digits) == 1:
        return digits[0].value
    terms, stride = [], 1
    for n, digit in reversed(list(enumerate(digits))):
        terms.append(f"{{{n}:a}} * {stride}" if stride != 1 else f"{{{n}:a}}")
        stride *= digit.radix
    return items(" + ".join(reversed(terms)), *(d.value for d in digits), name="at", nested=True)


def _joined(component: Component) -> list[Digit]:
    """Digits with neighbours put together that are the quotient and the remainder of one item."""
    found: list[Digit] = []
    for digit in component:
        last = found[-1] if found else None
        if (
            last is not None
            and last.part is not None
            and digit.part is not None
            and last.part[0] == "quotient"
            and digit.part[0] == "remainder"
            and last.part[1:] == digit.part[1:]
            and digit.radix == digit.part[2]
        ):
            found[-1] = Digit(last.part[1], last.radix * digit.radix, (*last.guards, *digit.guards))
        else:
            found.append(digit)
    return found


def merged(items: Items, component: Component) -> Digit | None:
    """A component as one digit; None if it is always 0."""
    value = linear(items, component)
    if value is None:
        return None
    guards = tuple(dict.fromkeys(g for d in component for g in d.guards))
    return Digit(value, math.prod(d.radix for d in component), guards)


def regroup(items: Items, digits: Component, shape: Shape) -> Index:
    """The index in a row of ``shape`` whose row-major position the digits are."""
    stack = list(digits)
    found: list[Component] = []
    for n in reversed(shape):
        component: list[Digit] = []
        need = n
        while need > 1:
            digit = stack.pop()
            if need % digit.radix == 0:
                component.append(digit)
                need //= digit.radix
            elif digit.radix % need == 0:
                high, low = _split(items, digit, need)
                component.append(low)
                stack.append(high)
                need = 1
            else:
                stack += [digit, *reversed(component)]
                component, need = [], n
                whole = merged(items, tuple(stack))
                assert whole is not None
                stack = [whole]
        found.append(tuple(reversed(component)))
    return tuple(reversed(found))


def _split(items: Items, digit: Digit, by: int) -> tuple[Digit, Digit]:
    """A digit as two, the lower one of radix ``by``."""
    v = digit.value
    high = items(f"{{0:a}} // {by}", v, name="quotient", nested=True)
    low = items(f"{{0:a}} % {by}", v, name="remainder", nested=True)
    return (
        replace(digit, value=high, radix=digit.radix // by, part=("quotient", v, by)),
        replace(digit, value=low, radix=by, part=("remainder", v, by)),
    )


def broadcast(index: Index, to: Shape) -> Index:
    """The index of an operand of shape ``to``, aligned at the last dimension."""
    return tuple(() if n == 1 else c for c, n in zip(index[len(index) - len(to) :], to, strict=True))


def moved(items: Items, component: Component, step: int, start: int, size: int) -> Component:
    """``component * step + start``, an index in a dimension of ``size``."""
    if size == 1:
        return ()
    digit = merged(items, component)
    if digit is None:
        return (Digit(items(str(start)), size),)
    if (step, start) == (1, 0):
        return (replace(digit, radix=size, part=None),)
    scaled = "{0:a}" if step == 1 else f"{{0:a}} * {step}"
    text = f"{scaled} + {start}" if start else scaled
    return (Digit(items(text, digit.value, name="at", nested=True), size, digit.guards),)


def unpadded(items: Items, component: Component, step: int, start: int, size: int) -> tuple[Component, Item]:
    """The index in the operand of a padded dimension, of ``size`` elements, and whether there is one."""
    digit = merged(items, component)
    value = items("0") if digit is None else digit.value
    conditions = [f"({{0:a}} >= {start})", f"({{0:a}} < {start + (size - 1) * step + 1})"]
    if step > 1:
        conditions.append(f"(({{0:a}} - {start}) % {step} == 0)")
    inside = items(" & ".join(conditions), value, name="inside")
    if size == 1:
        return (), inside
    text = f"({{0:a}} - {start}) // {step}" if step > 1 else f"{{0:a}} - {start}" if start else "{0}"
    guards = (*(digit.guards if digit else ()), inside)
    return (Digit(items(text, value, name="at", nested=True), size, guards),), inside
