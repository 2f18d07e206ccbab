"""Triton that puts together what the tiles of each owner have made, in their order."""

from __future__ import annotations

import math

from columba.codegen.triton.functions import Function, rows_of
from columba.codegen.triton.launches import GridSize, Launch, Loop, Variant, Workspace
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.scalars import computed
from columba.codegen.triton.schedule import clamp, power_of_two
from columba.codegen.triton.values import start_of
from columba.ir.indices import TileStarts
from columba.ir.plan.kernels import Buffer
from columba.ir.spaces import TYPE_SPACES, Space

_BLOCKS = {
    "whole": ((math.inf, 128, 32),),
    "types": ((4096, 16, 512), (16384, 64, 128), (math.inf, 256, 32)),
    "others": ((math.inf, 4, 1024),),
}
"""Up to how many rows an owner has on average, parts that a program reads at once, and its lanes. The whole graph is one owner with all
parts: many programs, each for few elements. Types have a part or two or, where rows are many, hundreds, and some have most of them."""


def combination(name: str, out: Buffer, parts: Workspace, starts: TileStarts | None, op: str) -> Function:
    """A function that combines the parts of each owner in the order of its tiles, which stand where ``starts`` says.

    Without that, a workspace has a row for each owner, which is its only part.
    """
    names = TritonNames()
    owner, size = out.type.space, out.type.size
    fields = {
        "parts": names.workspace(parts),
        "out": names.buffer(out),
        "first": "owner",
        "last": "owner + 1",
        "size": size,
        "op": op,
        "kind": computed(parts.dtype),
        "start": start_of(op),
    }
    blocks: tuple[tuple[float, int, int], ...] = ((math.inf, 1, 1024),)
    by_degree = None
    if starts is not None:
        array = names.array(starts)
        fields |= {"first": f"tl.load({array} + owner)", "last": f"tl.load({array} + owner + 1)"}
        blocks = _BLOCKS["whole" if owner is Space.ONE else "types" if owner in TYPE_SPACES else "others"]
        by_degree = (starts.map.fine, owner, tuple(most for most, *_ in blocks)) if len(blocks) > 1 else None
    variants = tuple(_variant(owner, size, *block) for _, *block in blocks)
    loops = () if starts is None else (Loop("tiles", starts.tiles, "PARTS"),)
    launch = Launch(name, tuple(names.arguments.items()), variants, members_per_owner=by_degree, loops=loops)
    return Function(name, "combine.py.jinja", launch, fields)


def _variant(owner: Space, size: int, at_once: int, lanes: int) -> Variant:
    lanes = min(lanes, max(32, power_of_two(size)))
    grid = (GridSize(rows_of(owner)), GridSize(size, lanes))
    return Variant(grid, (("PARTS", at_once), ("LANES", lanes)), clamp(at_once * lanes // 256, 1, 8))
