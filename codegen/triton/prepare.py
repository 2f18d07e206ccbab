"""Plans as the Triton backend runs them: tiles of sizes that suit a GPU, and matrix products cut where no block can hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from columba.codegen.triton.gemm import fits, one_matrix_at_a_time
from columba.codegen.triton.schedule import SUMMED_ROWS, product_blocks
from columba.ir.intraop.kernels import Buffer, Gemm, GemmReduce, Kernel, Load, Store, Traversal, product_of, roots_of
from columba.ir.intraop.plan import Plan
from columba.ir.node import Node, rewrite


def prepared(plan: Plan) -> Plan:
    """``plan`` with kernels that can be emitted."""
    taken = {b.name for b in plan.buffers}
    return replace(plan, kernels=tuple(made for k in plan.kernels for made in _prepared(k, taken)))


def _prepared(kernel: Kernel, taken: set[str]) -> Sequence[Kernel]:
    match kernel:
        case Gemm():
            kernel = replace(kernel, schedule=replace(kernel.schedule, tile_rows=_rows(kernel)))
            return [kernel] if fits(kernel) else _cut(kernel, taken)
        case GemmReduce():
            return [replace(kernel, schedule=replace(kernel.schedule, tile_rows=SUMMED_ROWS))]
        case _:
            return [kernel]


def _rows(kernel: Gemm) -> int:
    product = product_of(kernel)
    lead = 1 if one_matrix_at_a_time(kernel) else math.prod(product.x.shape[:-1])
    return product_blocks(product.x.shape[-1], product.shape[-1], lead, product.dtype).rows


def _cut(kernel: Gemm, taken: set[str]) -> Sequence[Kernel]:
    """``gemm with stores of functions of the product --> gemm that stores the product; row-wise traversal``."""
    product = product_of(kernel)
    name = f"{kernel.name}_product"
    while name in taken:
        name += "_"
    taken.add(name)
    buffer = Buffer(name, product.type, "temporary")
    loaded: dict[Node, Node] = {product: Load(buffer, None, product.space)}
    values = rewrite(roots_of(kernel), lambda node: node, loaded)
    stores = tuple(Store(s.buffer, v) for s, v in zip(kernel.stores, values, strict=True))
    return [
        replace(kernel, name=f"{kernel.name}_product", stores=(Store(buffer, product),)),
        Traversal(kernel.name, product.space, None, stores),
    ]
