"""C++ for reductions of an owner's members."""

from __future__ import annotations

from dataclasses import dataclass

from columba.codegen.cpp.rows import Array, Rows, Scalar
from columba.codegen.cpp.scalars import computed
from columba.codegen.cpp.small_rows import step_of, steps
from columba.ir.interop.ops import Reduce

START = {"sum": "0", "max": "-INFINITY", "min": "INFINITY", "logsumexp": "-INFINITY"}
"""What a reduction starts from."""


@dataclass
class Accumulator:
    """A reduction of wide rows, which are folded in one member after the other. Log-sum-exp keeps a running maximum."""

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
        if self.r.op == "logsumexp":
            rows.declare(f"{self.name}_sum", self.r)
            rows.lines.append(self._each(f"{self.name}_sum[i] = 0;"))

    def fold(self, rows: Rows) -> None:
        if self.r.op == "sum":
            rows.assign(self.place, self.r.x, "+=")
        elif self.r.op == "logsumexp":
            self._fold_logsumexp(rows)
        else:
            rows.fold(self.place, self.r.x, f"cb_{self.r.op}imum")

    def _fold_logsumexp(self, rows: Rows) -> None:
        rows.materialize(self.r.x)
        x, m, s, kind = rows.known[self.r.x].flat("i"), f"{self.name}[i]", f"{self.name}_sum[i]", computed(self.r.dtype)
        rows.lines += [
            self._each("{"),
            f"  const {kind} top = cb_maximum({x}, {m});",
            f"  const {kind} base = top == -({kind})INFINITY ? 0 : top;",
            f"  {s} = {s} * cb_exp({m} - base) + cb_exp({x} - base);",
            f"  {m} = top;",
            "}",
        ]

    def finish(self, rows: Rows) -> None:
        """An owner without members gets 0."""
        m = f"{self.name}[i]"
        if self.r.op in ("max", "min"):
            rows.lines.append(f"if (begin == end) {self._each(f'{m} = 0;')}")
        if self.r.op == "logsumexp":
            kind = computed(self.r.dtype)
            base = f"({m} == -({kind})INFINITY ? 0 : {m})"
            rows.lines.append(self._each(f"{m} = begin == end ? 0 : {base} + cb_log({self.name}_sum[i]);"))
        rows.known[self.r] = self.place


def fold_scratch(rows: Rows, r: Reduce, x: Array, name: str, terms: Array | None = None) -> None:
    """A reduction of small rows that stand in a scratch array. A log-sum-exp leaves its exponentials in ``terms``, if given."""
    kind, size = computed(r.dtype), r.type.size
    if size == 1:
        rows.lines += _scalar_fold(name, kind, r.op, x, terms)
        rows.known[r] = Scalar(name)
        return
    each = f"for (int i = 0; i < {size}; ++i)"
    lines = [f"{kind} {name}[{size}];", *_fold(r, x, name)]
    if r.op == "logsumexp":
        assert terms is not None
        lines += [
            f"{kind} {name}_sum[{size}];",
            f"{each} if ({name}[i] == -({kind})INFINITY) {name}[i] = 0;",
            *_exponentials(r, x, name, terms),
            *_fold(r, terms, f"{name}_sum", "sum", lanes=True),
            "#pragma omp simd",
            f"{each} {name}[i] = begin == end ? 0 : {name}[i] + cb_log({name}_sum[i]);",
        ]
    elif r.op != "sum":
        lines.append(f"if (begin == end) {each} {name}[i] = 0;")
    rows.lines += lines
    rows.known[r] = Array(name, "0", r.shape, r.dtype)


def _extremum(op: str) -> str:
    return "minimum" if op == "min" else "maximum"


def _fold_lanes(kind: str, size: int, op: str, x: Array, out: str) -> str:
    """``out[i] = op over x[.. + i]``, several members at a time."""
    f = {"sum": "cb_sum_of", "min": "cb_smaller_of"}.get(op, "cb_larger_of")
    count = "end - begin" if size == 1 else f"(end - begin) * {size}"
    return f"cb_fold_rows<{kind}, {size}>({out}, {x.base}, {count}, ({kind}){START[op]}, {f}());"


def _fold(r: Reduce, x: Array, name: str, op: str = "", *, lanes: bool = False) -> list[str]:
    """``name[i]`` = the combination of the numbers at ``i``. Sums of few members are as fast member by member, unless ``lanes``."""
    op = op or r.op
    kind, size = computed(r.dtype), r.type.size
    if step_of(size) is not None and (op != "sum" or lanes):
        return [_fold_lanes(kind, size, op, x, name)]
    each, element = f"for (int i = 0; i < {size}; ++i)", x.flat("i")
    combine = f"{name}[i] += {element};" if op == "sum" else f"{name}[i] = cb_{_extremum(op)}({element}, {name}[i]);"
    return [
        f"{each} {name}[i] = ({kind}){START[op]};",
        "for (int64_t k = begin; k < end; ++k) {",
        "  #pragma omp simd",
        f"  {each} {combine}",
        "}",
    ]


def _exponentials(r: Reduce, x: Array, name: str, terms: Array) -> list[str]:
    """``terms = exp(x - maximum)``, for several members at a time where that fills vectors."""
    size, step = r.type.size, step_of(r.type.size)
    if step is None:
        return [
            "for (int64_t k = begin; k < end; ++k) {",
            "  #pragma omp simd",
            f"  for (int i = 0; i < {size}; ++i) {terms.place('i')} = cb_exp({x.flat('i')} - {name}[i]);",
            "}",
        ]
    return [
        f"alignas(64) {computed(r.dtype)} {name}_top[{step}];",
        f"for (int i = 0; i < {step}; ++i) {name}_top[i] = {name}[i % {size}];",
        *steps(size, [f"{terms.base}[j + i] = cb_exp({x.base}[j + i] - {name}_top[i]);"]),
    ]


def _scalar_fold(name: str, kind: str, op: str, x: Array, terms: Array | None) -> list[str]:
    over, element = "for (int64_t k = begin; k < end; ++k)", x.flat("0")
    if op == "sum":
        return [f"{kind} {name} = 0;", f"#pragma omp simd reduction(+:{name})", f"{over} {name} += {element};"]
    lines = [f"{kind} {name};", _fold_lanes(kind, 1, op, x, f"&{name}")]
    if op == "logsumexp":
        keep = "" if terms is None else f"{terms.place('0')} = "
        return [
            *lines,
            f"if ({name} == -({kind})INFINITY) {name} = 0;",
            f"{kind} {name}_sum = 0;",
            f"#pragma omp simd reduction(+:{name}_sum)",
            f"{over} {name}_sum += {keep}cb_exp({element} - {name});",
            f"{name} = begin == end ? 0 : {name} + cb_log({name}_sum);",
        ]
    return [*lines, f"if (begin == end) {name} = 0;"]
