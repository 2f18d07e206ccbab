"""Epilogue fusion: what is done to the rows of a product is done while they are hot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from columba.ir.plan.dataflow import all_needs, passes_between, schedule_order
from columba.ir.plan.kernels import Gemm, Kernel, Store, Traversal, product_of, reads, writes
from columba.ir.plan.plan import Plan
from columba.passes.pipeline import Pass
from columba.passes.plan.merging import drop_unread, merged, substitute


@dataclass(frozen=True)
class FuseEpilogues(Pass[Plan]):
    """``gemm writes %y; row-wise traversal reads the same row of %y --> gemm with both stores``.

    The product's row is in cache, or in registers, when the epilogue reads it. It must not fire where another kernel stands
    between the two, or where the traversal has members.
    """

    def run(self, plan: Plan) -> Plan:
        kernels = list(plan.kernels)
        while (fused := _fuse_one(kernels)) is not None:
            kernels = fused
        if len(kernels) == len(plan.kernels):
            return plan
        return replace(plan, kernels=tuple(schedule_order(drop_unread(kernels, plan.outputs))), groups=())


def _fuse_one(kernels: Sequence[Kernel]) -> list[Kernel] | None:
    needs = all_needs(kernels)
    for i, gemm in enumerate(kernels):
        if not isinstance(gemm, Gemm):
            continue
        for after in kernels[i + 1 :]:
            if not isinstance(after, Traversal) or after.via is not None or after.owner is not product_of(gemm).space:
                continue
            if not set(writes(gemm)) & set(reads(after)) or passes_between(needs, gemm.name, after.name):
                continue
            written = {store.buffer: store.value for store in gemm.stores}
            stores = list(gemm.stores)
            for store in after.stores:
                value = substitute(store.value, written)
                if value is None:
                    break
                stores.append(Store(store.buffer, value))
            else:
                fused = replace(gemm, stores=merged(stores))
                return schedule_order([fused if k is gemm else k for k in kernels if k is not after])
    return None
