"""Loop fusion: traversals over the same rows become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from columba.ir.counts import TYPICAL
from columba.ir.node import Node, rewrite, topological
from columba.ir.plan.dataflow import all_needs, passes_between, schedule_order
from columba.ir.plan.kernels import (
    Kernel,
    Load,
    Store,
    Traversal,
    reads,
    roots_of,
    values_of,
    writes,
)
from columba.ir.plan.plan import Plan
from columba.ir.program.ops import Lift, Reduce
from columba.ir.spaces import WEIGHT_SPACES
from columba.lowering.kernels import load
from columba.passes.pipeline import Pass
from columba.passes.plan.merging import drop_unread, merged, substitute


@dataclass(frozen=True)
class FuseTraversals(Pass[Plan]):
    """``A writes %x; B reads the same row of %x --> AB``, and ``%x`` needs no buffer if nobody else reads it.

    Fuses two traversals that go over the same members of the same owners; a traversal over members with a row-wise one over its
    owners or over its members, if one reads what the other writes; and two row-wise ones of the same rows that share a buffer. A sum of
    all rows, or of those of a type, also takes in what is computed of rows that it reads.
    Values of members that traversals over several kinds of owners read are computed in the one where fewest bytes are loaded, on graphs
    of typical counts: it may gather the same rows anyway, or its owners may hold them.
    It must not fire where B reads rows of A's buffers other than its own, where another kernel stands between the two, or where
    the owners are cut into tiles and members need the whole owner's result; nor on members that are walked as they are stored.
    """

    def run(self, plan: Plan) -> Plan:
        kernels = list(plan.kernels)
        apart: _Pairs = {}
        while (fused := _fuse_one(kernels, apart)) is not None:
            kernels = fused
        kernels = drop_unread(kernels, plan.outputs)
        if len(kernels) == len(plan.kernels) and all(a is b for a, b in zip(kernels, plan.kernels, strict=True)):
            return plan
        return replace(plan, kernels=tuple(schedule_order(kernels)), groups=())


_Pairs = dict[tuple[int, int], tuple[Traversal, Traversal]]
"""Pairs that cannot be fused, by identity: most of them are met again after each fusion."""


def _fuse_one(kernels: Sequence[Kernel], apart: _Pairs) -> list[Kernel] | None:
    """The kernels with the first one fused that can be, with what suits it best."""
    needs = all_needs(kernels)
    for i, first in enumerate(kernels):
        if not isinstance(first, Traversal):
            continue
        found: list[tuple[Traversal, Traversal]] = []
        for second in kernels[i + 1 :]:
            if not isinstance(second, Traversal) or (id(first), id(second)) in apart:
                continue
            if passes_between(needs, first.name, second.name):
                continue
            fused = _fuse(first, second)
            if fused is None:
                apart[id(first), id(second)] = (first, second)
            else:
                found.append((second, fused))
            if found and not _are_for_members(first, found[0][0]):
                break
        if found:
            second, fused = max(found, key=lambda pair: _spared(first, *pair))  # of equals, the first
            rest = [k for k in kernels if k is not first and k is not second]
            return schedule_order([*rest[:i], fused, *rest[i:]])
    return None


def _are_for_members(first: Traversal, second: Traversal) -> bool:
    """Whether ``first`` computes rows of the members of ``second``, which other traversals may have for members too."""
    return first.via is None and second.via is not None and first.owner is second.via.fine


def _spared(first: Traversal, second: Traversal, fused: Traversal) -> int:
    """Bytes that one kernel need not load where two do."""
    return _loaded(first) + _loaded(second) - _loaded(fused)


def _loaded(kernel: Traversal) -> int:
    """Bytes that a traversal loads on a graph of typical counts."""
    loads = {v for v in values_of(kernel) if isinstance(v, Load)}
    return sum(TYPICAL[v.at] * v.type.size * v.dtype.itemsize for v in loads)


def _fuse(first: Traversal, second: Traversal) -> Traversal | None:
    """Both in one, ``second`` reading values instead of the buffers that ``first`` writes; None if that cannot be."""
    frame = _common_frame(first, second)
    if frame is None or frame.schedule.scatter:
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
        if frame.via is None or other.via is not None:
            continue
        if (
            frame.owner in WEIGHT_SPACES
        ):  # many members an owner, which are cut: what reads the same rows reads them once
            related = frame.schedule.split > 0 and other.owner is frame.via.fine and _share(first, second)
        else:
            related = other.owner in (frame.owner, frame.via.fine) and bool(set(writes(first)) & set(reads(second)))
        if related:
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


def _can_split(stores: Sequence[Store], frame: Traversal) -> bool:
    """Whether no member needs a reduction of its owner and nothing follows a reduction."""
    for store in stores:
        below = topological((store.value,))
        if any(isinstance(v, Lift) and any(isinstance(u, Reduce) for u in topological((v,))) for v in below):
            return False
        if store.value.space is frame.owner and not isinstance(store.value, Reduce):
            return False
    return True
