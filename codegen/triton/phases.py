"""Loop distribution: traversals with several loops over the members, as traversals with one loop each, whose owners can be cut into tiles.

``softmax, then weighted sum --> maximum to a buffer; sums of exponentials, weighted too, to buffers; what the owners make of them``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from columba.codegen.triton.schedule import IllegalSchedule
from columba.ir.node import Node, rewrite, topological
from columba.ir.plan.kernels import Buffer, Load, Store, Traversal, TraversalSchedule, values_of
from columba.ir.program.ops import Cast, Degree, Reduce, Value
from columba.ir.types import DType, TensorType


@dataclass(frozen=True, eq=False, repr=False)
class KeptLoad(Load):
    """A value of type ``to`` that a kernel before has computed, and kept as it was computed, in 32 bits."""

    to: DType

    def _infer(self) -> TensorType:
        return super()._infer().with_dtype(self.to)


def is_one_loop(kernel: Traversal) -> bool:
    """Whether owners can be cut as the traversal is: its stores are plain reductions that no member waits for, or members' own."""
    reductions = [v for v in values_of(kernel) if isinstance(v, Reduce)]
    if any(_phase(r) > 1 for r in reductions):
        return False
    return all(_is_plain(s, kernel) for s in kernel.stores)


def _is_plain(store: Store, kernel: Traversal) -> bool:
    if store.value.space is kernel.owner:
        return isinstance(store.value, Reduce)
    return _phase(store.value) == 0


def in_single_loops(kernel: Traversal, split: int, taken: set[str]) -> list[Traversal]:
    """``kernel`` with every loop over its members on its own, owners cut into tiles of at most ``split`` members.

    ``taken``: names of buffers that there are; those of new ones are added.

    Raises:
        IllegalSchedule: there is no loop.
    """
    assert kernel.via is not None
    cut = TraversalSchedule(split)
    known: dict[Node, Node] = {}
    stores = list(kernel.stores)
    made: list[Traversal] = []
    reductions = [v for v in topological([s.value for s in stores]) if isinstance(v, Reduce)]
    of_members = [s for s in stores if _is_of_members(s, kernel)]
    loops = max((*map(_phase, reductions), *(_phase(s.value) + 1 for s in of_members)), default=0)
    if not loops:
        raise IllegalSchedule(f"traversal {kernel.name} has no loop over members that could be split")
    for loop in range(1, loops + 1):
        members = [s for s in of_members if _phase(s.value) + 1 == loop]
        own = [r for r in reductions if _phase(r) == loop]
        values = rewrite([*own, *(s.value for s in members)], lambda node: node, known)
        parts = [Store(s.buffer, v) for s, v in zip(members, values[len(own) :], strict=True)]
        for r, value in zip(own, values, strict=False):
            store, loaded = _kept(r, value, stores, taken, f"{kernel.name}_{r.op}")
            parts.append(store)
            known[r] = loaded
        made.append(Traversal(f"{kernel.name}_loop_{loop}", kernel.owner, kernel.via, tuple(parts), cut))
    written = {s.buffer for t in made for s in t.stores}
    rest = [s for s in stores if s.buffer not in written]
    if rest:
        values = rewrite([s.value for s in rest], lambda node: node, known)
        needs_degree = any(isinstance(v, Degree) for v in topological(values))
        finish = tuple(Store(s.buffer, v) for s, v in zip(rest, values, strict=True))
        made.append(Traversal(kernel.name, kernel.owner, kernel.via if needs_degree else None, finish))
    else:
        made[-1] = replace(made[-1], name=kernel.name)
    return made


def _kept(r: Reduce, value: Value, stores: Sequence[Store], taken: set[str], name: str) -> tuple[Store, Load]:
    """Where a reduction is kept, in at least 32 bits, and how it is read there: in its own buffer if it is stored as it is."""
    is_half = r.dtype in (DType.BF16, DType.F16)
    own = next((s.buffer for s in stores if s.value is r), None)
    if own is not None and not is_half:
        return Store(own, value), Load(own, None, r.space)
    while name in taken:
        name += "_"
    taken.add(name)
    buffer = Buffer(name, r.type.with_dtype(DType.F32) if is_half else r.type, "temporary")
    if is_half:
        return Store(buffer, Cast(value, DType.F32)), KeptLoad(buffer, None, r.space, r.dtype)
    return Store(buffer, value), Load(buffer, None, r.space)


def _is_of_members(store: Store, kernel: Traversal) -> bool:
    assert kernel.via is not None
    return store.value.space is kernel.via.fine


def _phase(value: Value) -> int:
    """How many loops over the members have to be done for a value."""
    depth: dict[Node, int] = {}
    for node in topological((value,)):
        below = max((depth[c] for c in node.children), default=0)
        depth[node] = below + isinstance(node, Reduce)
    return depth[value]
