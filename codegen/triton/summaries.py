"""Docstrings of kernels: what a kernel does, in a sentence: the docstring of its function."""

from __future__ import annotations

import textwrap

from columba.ir.node import topological
from columba.ir.plan.kernels import Gemm, GemmReduce, Kernel, Load, Traversal, product_of, values_of, writes
from columba.ir.program.ops import FeatureReduce, Pointwise, Reduce, Value
from columba.ir.spaces import Space

INDENT = 4


def summary(kernel: Kernel) -> str:
    """One sentence on a kernel: what it goes over, what it computes, what it stores."""
    stored = ", ".join(b.name for b in writes(kernel))
    match kernel:
        case Traversal(via=None):
            text = f"{_each(kernel.owner)}: {_pointwise(kernel)}."
        case Traversal():
            assert kernel.via is not None
            reductions = dict.fromkeys(v.op for v in values_of(kernel) if isinstance(v, Reduce))
            over = f"over its rows of {kernel.via.fine} ({kernel.via})"
            text = f"{_each(kernel.owner)}, {over}: {', '.join((*reductions, *_functions(kernel))) or 'lift'}."
        case Gemm():
            product = product_of(kernel)
            weight = f"{product.w.name}{' transposed' if product.transpose else ''}"
            assert product.via is not None
            of = "" if product.via.coarse is Space.ONE else f" of the row's {product.via.name}"
            rest = _functions(kernel)
            text = f"{_each(product.space)}: {_sources(product.x)} times {weight}{of}{'; ' if rest else ''}{', '.join(rest)}."
        case GemmReduce():
            rows = f"the rows of {kernel.x.space}"
            of = rows if kernel.via.coarse is Space.ONE else f"{rows} of each {kernel.via.coarse}"
            text = f"The sum over {of} of {_sources(kernel.x)} by {_sources(kernel.y)}, for every tile on its own."
        case _:
            text = "By PyTorch."
    return _wrapped(f"{text} Stores {stored}.")


def summary_of_parts(kernel: Kernel) -> str:
    """One sentence on the function that puts together what the tiles of a kernel have made."""
    return _wrapped(f"Puts together what the tiles of {kernel.name} have made, in their order.")


def _each(space: Space) -> str:
    return "For the whole graph" if space is Space.ONE else f"For each row of {space}"


def _pointwise(kernel: Kernel) -> str:
    return ", ".join(_functions(kernel)) or "copies"


def _functions(kernel: Kernel) -> list[str]:
    """The functions that a kernel applies to single rows, each once, in the order in which they are first needed."""
    found: dict[str, None] = {}
    for v in values_of(kernel):
        if isinstance(v, Pointwise):
            found[v.function] = None
        if isinstance(v, FeatureReduce):
            found[f"{v.op} over features"] = None
    return list(found)


def _sources(value: Value) -> str:
    """The buffers that a value is made of."""
    loads = dict.fromkeys(v.buffer.name for v in topological((value,)) if isinstance(v, Load))
    return " and ".join(loads) or "a constant"


def _wrapped(text: str) -> str:
    lines = textwrap.wrap(text, 110)
    if len(lines) == 1:
        return lines[0]
    return "\n".join([lines[0], *(" " * INDENT + line for line in lines[1:]), " " * INDENT])
