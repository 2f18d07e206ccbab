"""Utilities of fusion: values read in place of buffers, equal values made one, stores that nobody reads dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from columba.ir.node import Node, rewrite
from columba.ir.plan.kernels import Buffer, Gemm, Kernel, Load, Store, Traversal, reads
from columba.ir.program.ops import Value


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
            if not isinstance(k, (Traversal, Gemm)):
                smaller.append(k)
                continue
            stores = tuple(s for s in k.stores if s.buffer in read)
            if stores:
                smaller.append(k if len(stores) == len(k.stores) else replace(k, stores=stores))
        if len(smaller) == len(kept) and all(a is b for a, b in zip(smaller, kept, strict=True)):
            return smaller
        kept = smaller
