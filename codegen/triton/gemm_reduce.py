"""Triton for sums of outer products: each program sums a tile of rows, and a second function sums the tiles of a segment."""

from __future__ import annotations

import math

from columba.codegen.triton.combine import combination
from columba.codegen.triton.dots import arranged, operand
from columba.codegen.triton.functions import Function
from columba.codegen.triton.gemm import ProductRows, table_items
from columba.codegen.triton.index import Digit, flat, regroup
from columba.codegen.triton.items import Axis, BlockShape, Item, Items, Writer, below, below_unknown, count_readers
from columba.codegen.triton.launches import GridSize, Launch, Loop, Variant, Workspace
from columba.codegen.triton.levels import ROW
from columba.codegen.triton.names import TritonNames
from columba.codegen.triton.scalars import computed
from columba.codegen.triton.schedule import LEAST, OuterSchedule, default_outer, power_of_two
from columba.codegen.triton.values import Row, Values
from columba.ir.indices import Tiles, TileStarts
from columba.ir.plan.kernels import GemmReduce
from columba.ir.program.ops import Value
from columba.ir.types import DType


def schedule_of_outer(kernel: GemmReduce) -> OuterSchedule:
    """How a sum of outer products runs where nobody says."""
    return default_outer(kernel.x.shape[-1], kernel.y.shape[-1], kernel.x.dtype)


def gemm_reduce_functions(kernel: GemmReduce, name: str, schedule: OuterSchedule) -> list[Function]:
    """The functions of a sum of outer products, whose tiles are those of ``kernel.schedule``: the parts of tiles, and their sums."""
    if kernel.out.type.size == 0:
        return []
    made = _Outer(kernel, name, schedule)
    return [
        made.function(),
        combination(f"{name}_of_parts", kernel.out, made.workspace, TileStarts(made.tiles), "sum"),
    ]


class _Outer:
    def __init__(self, kernel: GemmReduce, name: str, schedule: OuterSchedule) -> None:
        self.kernel = kernel
        self.name = name
        self.dtype = kernel.x.dtype
        self.k, self.n = kernel.x.shape[-1], kernel.y.shape[-1]
        self.lead = kernel.x.shape[:-1]
        self.matrices = 1 if kernel.shared else math.prod(self.lead)
        self.items, self.names = Items(), TritonNames()
        self.schedule = schedule
        self.depth = min(schedule.depth, max(LEAST, power_of_two(self.k)))
        self.columns = min(schedule.columns, max(LEAST, power_of_two(self.n)))
        self.tiles = Tiles(kernel.via, schedule.summed, schedule.least)
        _, begin, self.end = table_items(self.items, self.names, self.tiles)
        self.begin = begin
        position = self.items("{0:a} + start + tl.arange(0, ROWS){at0}", begin, name="position", add=[ROW])
        self.valid = self.items("{0:a} < {1:a}", position, self.end, name="valid")
        self.level = ProductRows(self.items, self.names, kernel.via, Row(position, self.valid))
        self.values = Values(self.items, self.names, 1, self.level)
        self.left, self.left_axes = self._operand(kernel.x, "DEPTH", self.k, 0)
        self.right, self.right_axes = self._operand(kernel.y, "COLUMNS", self.n, 1)
        dtype = DType.F64 if self.dtype is DType.F64 else DType.F32
        size = self.matrices * self.k * self.n
        self.workspace = Workspace(f"{kernel.out.name}_parts", GridSize(self.tiles), size, dtype)

    def _operand(self, value: Value, block: str, size: int, part: int) -> tuple[Item, list[Axis]]:
        """Vectors of a row: by leading dimension if all are summed, of this program's matrix otherwise."""
        blocks, lanes = (self._depth_blocks, self.depth) if part == 0 else (self._column_blocks, self.columns)
        of = f"tl.program_id(1) // {self._column_blocks}" if part == 0 else f"tl.program_id(1) % {self._column_blocks}"
        start = f"{of} * {block}" if blocks > 1 else ""
        axis = Axis(1 + len(self.lead), block, size if size % lanes else None, start)
        vector = self.values.lanes(axis)
        if self.kernel.shared:
            lead = self.values.iteration(self.lead)
        else:
            matrix = Digit(self.items("tl.program_id(2)", name="matrix"), self.matrices)
            lead = regroup(self.items, (matrix,), self.lead)
        x = self.values.value(value, (*lead, (Digit(vector, size),)))
        x = self.values.block(x, value.dtype)
        lead_axes = sorted({a for d in flat(lead) for a in d.value.axes}, key=lambda a: a.dim)
        x = self.values.restricted(x, [self.valid, *self.values.masks([*lead_axes, axis])], "0")
        return x, [ROW, *lead_axes, axis]

    @property
    def _depth_blocks(self) -> int:
        return -(-self.k // self.depth)

    @property
    def _column_blocks(self) -> int:
        return -(-self.n // self.columns)

    def _steps(self, rows: str) -> dict[str, str]:
        """The loop over the rows of a tile.

        TF32 wants one operand transposed, and copies that are under way to where it stands transposed are of 4 bytes each.
        """
        if self.dtype is not DType.F32 or self.schedule.stages == 1:
            return {"steps": f"range(0, {rows}, ROWS)", "why": ""}
        stages = f'{self.schedule.stages} if PRECISION == "ieee" else 1'
        return {
            "steps": f"tl.range(0, {rows}, ROWS, num_stages={stages})",
            "why": "Copies that transpose, which TF32 wants, are not worth having under way.",
        }

    def function(self) -> Function:
        parts = self.names.workspace(self.workspace)
        layout = BlockShape()
        roots = [self.left, self.right]
        layout.see(below(roots))
        writer = Writer(layout, {*self.names.arguments, "start", "tile"}, count_readers(roots))
        begin, end = writer.named(self.begin), writer.named(self.end)
        for root in roots:
            for item in below_unknown(root, writer.known):
                if ROW not in item.axes and (item.name or item.args):
                    writer.write([item])
        inner = writer.inner()
        left = arranged(inner, self.left, [self.left_axes[:-1], self.left_axes[-1:]])
        right = arranged(inner, self.right, [self.right_axes[:-1], self.right_axes[-1:]])
        fields = {
            "before": writer.lines,
            "loop": inner.lines,
            **self._steps(f"{end} - {begin}"),
            "left": operand(f"tl.trans({left})", self.dtype),
            "right": operand(right, self.dtype),
            "kind": computed(self.dtype),
            "parts": parts,
            "size": self.workspace.size,
            "depth": self.k,
            "columns": self.n,
            "column_blocks": self._column_blocks,
            "depth_blocks": self._depth_blocks,
            "matrices": self.matrices,
        }
        pieces = GridSize(self._depth_blocks * self._column_blocks)
        constants = (("ROWS", self.schedule.rows), ("DEPTH", self.depth), ("COLUMNS", self.columns))
        variant = Variant(
            (self.workspace.tiles, pieces, GridSize(self.matrices)),
            constants,
            self.schedule.warps,
            self.schedule.stages,
        )
        arguments = tuple(self.names.arguments.items())
        loops = (Loop("tile", self.tiles, "ROWS"),)
        launch = Launch(self.name, arguments, (variant,), dot=self.dtype, workspaces=(self.workspace,), loops=loops)
        return Function(self.name, "gemm_reduce.py.jinja", launch, fields)
