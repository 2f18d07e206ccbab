"""Traversals over the same rows become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from columba.ir.interop.ops import Lift, Reduce, Value
from columba.ir.intraop.kernels import (
    Buffer,
    Kernel,
    Load,
    Store,
    Traversal,
    reads,
    roots_of,
    writes,
)
from columba.ir.intraop.plan import Plan
from columba.ir.node import Node, rewrite, topological
from columba.lowering import load, schedule_order
from columba.passes.interop.legalize_linear import WEIGHT_SPACES
from columba.pipeline import Pass


@dataclass(frozen=True)
class FuseTraversals(Pass[Plan]):
    """``A writes %x; B reads the same row of %x --> AB``, and ``%x`` needs no buffer if nobody else reads it.

    Fuses two traversals that go over the same members of the same owners; a traversal over members with a row-wise one over its
    owners or over its members, if one reads what the other writes; and two row-wise ones of the same rows that share a buffer.
    It must not fire where B reads rows of A's buffers other than its own, where another kernel stands between the two, or where
    the owners are cut into tiles and members need the whole owner's result.
    """

    def run(self, plan: Plan) -> Plan:
        kernels = list(plan.kernels)
        apart: _Pairs = {}
        while (fused := _fuse_one(kernels, apart)) is not None:
            kernels = fused
        kernels = drop_unread(kernels, plan.outputs)
        if len(kernels) == len(plan.kernels) and all(a is b for a, b in zip(kernels, plan.kernels, strict=True)):
            return plan
        return replace(plan, kernels=tuple(schedule_order(kernels)))


_Pairs = dict[tuple[int, int], tuple[Traversal, Traversal]]
"""Pairs that cannot be fused, by identity: most of them are met again after each fusion."""


def _fuse_one(kernels: Sequence[Kernel], apart: _Pairs) -> list[Kernel] | None:
    """The kernels with the first pair fused that can be."""
    flow = dataflow(kernels)
    for i, first in enumerate(kernels):
        for second in kernels[i + 1 :]:
            if not isinstance(first, Traversal) or not isinstance(second, Traversal):
                continue
            if (id(first), id(second)) in apart or passes_between(flow, first.name, second.name):
                continue
            fused = _fuse(first, second)
            if fused is not None:
                rest = [k for k in kernels if k is not first and k is not second]
                return schedule_order([*rest[:i], fused, *rest[i:]])
            apart[id(first), id(second)] = (first, second)
    return None


Dataflow = dict[str, set[str]]
"""By the name of a kernel, those of all kernels whose results it needs, directly or not."""


def dataflow(kernels: Sequence[Kernel]) -> Dataflow:
    """What needs what among kernels that stand in an order in which they can run."""
    writer: dict[Buffer, str] = {}
    needs: Dataflow = {}
    for k in kernels:
        sources = {writer[b] for b in reads(k) if b in writer}
        needs[k.name] = sources.union(*(needs[s] for s in sources))
        writer.update(dict.fromkeys(writes(k), k.name))
    return needs


def passes_between(flow: Dataflow, first: str, second: str) -> bool:
    """Whether a third kernel needs the first and is needed by the second."""
    return any(first in flow[middle] for middle in flow[second])


def _fuse(first: Traversal, second: Traversal) -> Traversal | None:
    """Both in one, ``second`` reading values instead of the buffers that ``first`` writes; None if that cannot be."""
    frame = _common_frame(first, second)
    if frame is None:
        return None
    written = {store.buffer: store.value for store in _reframed(first, frame)}
    stores = list(_reframed(first, frame))
    for store in _reframed(second, frame):
        value = substitute(store.value, written)
        if value is None:
            return None
        stores.append(Store(store.buffer, value))
    if frame.schedule.split and not _can_split(stores, frame):
        return None
    return replace(frame, name=second.name, stores=merged(stores))  # the reader looks for what is computed last


def _common_frame(first: Traversal, second: Traversal) -> Traversal | None:
    """The traversal whose owners and members serve both."""
    if (first.owner, first.via) == (second.owner, second.via):
        if first.via is None and not _share(first, second):
            return None
        return first if first.schedule == second.schedule else None
    for frame, other in ((first, second), (second, first)):
        if frame.via is None or other.via is not None or frame.owner in WEIGHT_SPACES:
            continue
        flows = set(writes(first)) & set(reads(second))
        if other.owner in (frame.owner, frame.via.fine) and flows:
            return frame
    return None


def _share(first: Traversal, second: Traversal) -> bool:
    mine, yours = set(reads(first)) | set(writes(first)), set(reads(second))
    return bool(mine & yours)


def _reframed(kernel: Traversal, frame: Traversal) -> tuple[Store, ...]:
    """The stores of a kernel with loads written for members of the frame."""
    along = frame.via
    if along is None or kernel.via == along:
        return kernel.stores

    def rule(node: Node) -> Node:
        if isinstance(node, Load) and node.via is not None and node.at is along.fine:
            return load(node.buffer, node.via, along)
        return node

    values = rewrite(roots_of(kernel), rule)
    return tuple(Store(s.buffer, v) for s, v in zip(kernel.stores, values, strict=True))


def substitute(value: Value, written: dict[Buffer, Value]) -> Value | None:
    """``value`` with loads of written buffers replaced by what was written; None if it reads another row of one."""
    possible = True

    def rule(node: Node) -> Node:
        nonlocal possible
        if isinstance(node, Load) and node.buffer in written:
            if node.via is not None:
                possible = False
                return node
            return written[node.buffer]
        return node

    (result,) = rewrite((value,), rule)
    return result if possible else None


def _can_split(stores: Sequence[Store], frame: Traversal) -> bool:
    """Whether no member needs a reduction of its owner and nothing follows a reduction."""
    for store in stores:
        below = topological((store.value,))
        if any(isinstance(v, Lift) and any(isinstance(u, Reduce) for u in topological((v,))) for v in below):
            return False
        if store.value.space is frame.owner and not isinstance(store.value, Reduce):
            return False
    return True


def merged(stores: Sequence[Store]) -> tuple[Store, ...]:
    """Equal values of all stores made one."""
    seen: dict[Any, Node] = {}

    def rule(node: Node) -> Node:
        key = (type(node), tuple(map(id, node.children)), tuple(node.data.items()))
        return seen.setdefault(key, node)

    values = rewrite([s.value for s in stores], rule)
    return tuple(Store(s.buffer, v) for s, v in zip(stores, values, strict=True))


def drop_unread(kernels: Sequence[Kernel], outputs: Sequence[Buffer]) -> list[Kernel]:
    """Without the stores that nobody reads, and the kernels left with none."""
    kept = list(kernels)
    while True:
        read = {*outputs, *(b for k in kept for b in reads(k))}
        smaller: list[Kernel] = []
        for k in kept:
            if not isinstance(k, Traversal):
                smaller.append(k)
                continue
            stores = tuple(s for s in k.stores if s.buffer in read)
            if stores:
                smaller.append(k if len(stores) == len(k.stores) else replace(k, stores=stores))
        if len(smaller) == len(kept) and all(a is b for a, b in zip(smaller, kept, strict=True)):
            return smaller
        kept = smaller
