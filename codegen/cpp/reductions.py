"""C++ for reductions of an owner's members."""

from __future__ import annotations

from dataclasses import dataclass

from columba.codegen.cpp.rows import Array, Rows, Scalar
from columba.codegen.cpp.scalars import computed
from columba.codegen.cpp.small_rows import step_of
from columba.ir.program.ops import Pointwise, Reduce

START = {"sum": "0", "max": "-INFINITY", "min": "INFINITY"}
"""What a reduction starts from."""


@dataclass
class Accumulator:
    """A reduction of wide rows, which are folded in one member after the other."""

    r: Reduce
    name: str

    @property
    def place(self) -> Array:
        return Array(self.name, "0", self.r.shape, self.r.dtype)

    def _each(self, statement: str) -> str:
        return f"for (int i = 0; i < {self.r.type.size}; ++i) {statement}"

    def start(self, rows: Rows) -> None:
        kind = computed(self.r.dtype)
        rows.declare(self.name, self.r)
        rows.lines.append(self._each(f"{self.name}[i] = ({kind}){START[self.r.op]};"))

    def fold(self, rows: Rows) -> None:
        if self.r.op == "sum":
            rows.assign(self.place, self.r.x, "+=")
        else:
            rows.fold(self.place, self.r.x, f"cb_{self.r.op}imum")

    def finish(self, rows: Rows) -> None:
        """An owner without members gets 0."""
        m = f"{self.name}[i]"
        if self.r.op in ("max", "min"):
            rows.lines.append(f"if (begin == end) {self._each(f'{m} = 0;')}")
        rows.known[self.r] = self.place


def fold_scratch(rows: Rows, r: Reduce, x: Array, name: str) -> None:
    """A reduction of small rows that stand in a scratch array."""
    kind, size = computed(r.dtype), r.type.size
    if size == 1:
        rows.lines += _scalar_fold(name, kind, r.op, x)
        rows.known[r] = Scalar(name)
        return
    each = f"for (int i = 0; i < {size}; ++i)"
    rows.lines += [f"{kind} {name}[{size}];", *_fold(r, x, name)]
    if r.op != "sum":
        rows.lines.append(f"if (begin == end) {each} {name}[i] = 0;")
    rows.known[r] = Array(name, "0", r.shape, r.dtype)


def _extremum(op: str) -> str:
    return "minimum" if op == "min" else "maximum"


def _fold_lanes(kind: str, size: int, op: str, x: Array, out: str) -> str:
    """``out[i] = op over x[.. + i]``, several members at a time."""
    f = {"sum": "cb_sum_of", "min": "cb_smaller_of"}.get(op, "cb_larger_of")
    count = "end - begin" if size == 1 else f"(end - begin) * {size}"
    return f"cb_fold_rows<{kind}, {size}>({out}, {x.base}, {count}, ({kind}){START[op]}, {f}());"


def _fold(r: Reduce, x: Array, name: str) -> list[str]:
    """``name[i]`` = the combination of the numbers at ``i``. Sums are as fast member by member, but for those of exponentials: these
    have just been computed for several members at a time, as their maximum was."""
    kind, size = computed(r.dtype), r.type.size
    exponentials = isinstance(r.x, Pointwise) and r.x.function == "exp"
    if step_of(size) is not None and (r.op != "sum" or exponentials):
        return [_fold_lanes(kind, size, r.op, x, name)]
    each, element = f"for (int i = 0; i < {size}; ++i)", x.flat("i")
    combine = (
        f"{name}[i] += {element};" if r.op == "sum" else f"{name}[i] = cb_{_extremum(r.op)}({element}, {name}[i]);"
    )
    return [
        f"{each} {name}[i] = ({kind}){START[r.op]};",
        "for (int64_t k = begin; k < end; ++k) {",
        "  #pragma omp simd",
        f"  {each} {combine}",
        "}",
    ]


def _scalar_fold(name: str, kind: str, op: str, x: Array) -> list[str]:
    if op == "sum":
        over, element = "for (int64_t k = begin; k < end; ++k)", x.flat("0")
        return [f"{kind} {name} = 0;", f"#pragma omp simd reduction(+:{name})", f"{over} {name} += {element};"]
    lines = [f"{kind} {name};", _fold_lanes(kind, 1, op, x, f"&{name}")]
    return [*lines, f"if (begin == end) {name} = 0;"]
