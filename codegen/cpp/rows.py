"""C++ for what happens to one row: expressions, the arrays that hold intermediate rows, and loops over elements.

Views (reshape, permute, slice, ...) are index arithmetic; pointwise functions nest into one expression; what is read several
times, or by elements of a larger row, is first put into a local array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from columba.codegen.cpp.scalars import computed, is_narrow, literal, spell, stored
from columba.ir.pointwise import POINTWISE
from columba.ir.program.ops import (
    Cast,
    Concat,
    Constant,
    Expand,
    FeatureReduce,
    Lift,
    Pad,
    Permute,
    Pointwise,
    Reshape,
    Slice,
    Uniform,
    Value,
)
from columba.ir.types import DType, Shape

Index = tuple[str, ...]

STACK_BYTES = 16384
"""Rows larger than this are kept on the heap of the thread, not on its stack."""


@dataclass(frozen=True)
class Array:
    """A row in memory: ``base[offset + i]`` is its element ``i``."""

    base: str
    offset: str
    shape: Shape
    dtype: DType

    def place(self, i: str) -> str:
        """Element ``i``, to be assigned to."""
        return f"{self.base}[{_sum(self.offset, i)}]"

    def flat(self, i: str) -> str:
        if is_narrow(self.dtype):
            return f"({computed(self.dtype)}){self.place(i)}"
        return f"({self.place(i)} != 0)" if self.dtype is DType.BOOL else self.place(i)

    def at(self, index: Index) -> str:
        return self.flat(flatten(index, self.shape))


@dataclass(frozen=True)
class Scalar:
    """A row of one element in a variable."""

    name: str

    def flat(self, i: str) -> str:
        return self.name

    def at(self, index: Index) -> str:
        return self.name


Access = Array | Scalar


def _sum(a: str, b: str) -> str:
    return b if a == "0" else a if b == "0" else f"{a} + {b}"


def flatten(index: Index, shape: Shape) -> str:
    """Row-major position of ``index``.

    >>> flatten(("h", "d"), (4, 16))
    'h * 16 + d'
    """
    terms = []
    stride = math.prod(shape)
    for i, n in zip(index, shape, strict=True):
        stride = stride // n if n else 0
        if i != "0":
            terms.append(i if stride == 1 else f"{i} * {stride}" if i.isidentifier() else f"({i}) * {stride}")
    return " + ".join(terms) or "0"


def squeezed(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def local_type(dtype: DType) -> str:
    return "bool" if dtype is DType.BOOL else computed(dtype)


def array_type(dtype: DType) -> str:
    """Of local rows. GCC makes no vectors of loops that read arrays of ``bool``, but for one of bytes that are compared with 0."""
    return "uint8_t" if dtype is DType.BOOL else computed(dtype)


class Rows:
    """Emits code for rows into ``lines``; knows which values stand where.

    ``row_number`` gives the C++ expression of a space's current row, which random numbers need; ``fresh`` numbers names. ``rounded``
    values are not added to another number unrounded, so that the sum is the same to the last bit wherever it is computed.
    """

    def __init__(
        self, row_number: Callable[[Value], str], fresh: Callable[[str], str], *, rounded: frozenset[Value]
    ) -> None:
        self.rounded = rounded
        self.lines: list[str] = []
        self.known: dict[Value, Access] = {}
        self.row_number = row_number
        self.fresh = fresh

    def child(self) -> Rows:
        """A scope inside this one: sees what is known here, and its lines are its own."""
        inner = Rows(self.row_number, self.fresh, rounded=self.rounded)
        inner.known = dict(self.known)
        return inner

    # -------------------------------------------------------------------------------------------- expressions

    def expression(self, v: Value, index: Index) -> str:
        """Element ``index`` of ``v``."""
        if v in self.known:
            return self.known[v].at(index)
        match v:
            case Constant():
                return literal(v.value, v.dtype)
            case Pointwise():
                args = [self.expression(a, broadcast(index, v.shape, a.shape)) for a in v.args]
                return self._spell(v, args)
            case Cast():
                return _cast(v, self.expression(v.x, index))
            case Lift():
                return self.expression(v.x, index)
            case Expand():
                return self.expression(v.x, broadcast(index, v.shape, v.x.shape))
            case Permute():
                inner = dict(zip(v.order, index, strict=True))
                return self.expression(v.x, tuple(inner[a] for a in range(len(index))))
            case Slice():
                moved = _affine(index[v.axis], v.step, v.start)
                return self.expression(v.x, (*index[: v.axis], moved, *index[v.axis + 1 :]))
            case Pad():
                return self._pad(v, index)
            case Reshape():
                if squeezed(v.shape) == squeezed(v.x.shape):
                    return self.expression(v.x, _reshaped_index(index, v.shape, v.x.shape))
                return self.known[v.x].flat(flatten(index, v.shape))
            case Uniform():
                return self._uniform(v, flatten(index, v.shape))
        raise TypeError(f"no C++ expression for {v.op_name}")

    def flat_expression(self, v: Value, i: str) -> str:
        """Element ``i`` of ``v`` in row-major order; only where :meth:`is_flat` holds."""
        if v in self.known:
            return self.known[v].flat(i if v.type.size > 1 else "0")
        match v:
            case Constant():
                return literal(v.value, v.dtype)
            case Pointwise():
                return self._spell(v, [self.flat_expression(a, i) for a in v.args])
            case Cast():
                return _cast(v, self.flat_expression(v.x, i))
            case Uniform():
                return self._uniform(v, i if v.type.size > 1 else "0")
            case Lift() | Expand() | Reshape():
                return self.flat_expression(v.x, i)
        raise TypeError(f"{v.op_name} cannot be read in row-major order")

    def is_flat(self, v: Value, size: int) -> bool:
        """Whether ``v`` can be read element by element in row-major order, beside rows of ``size`` elements."""
        if v.type.size not in (1, size):
            return False
        if v in self.known or isinstance(v, (Constant, Uniform)):
            return True
        if isinstance(v, (Pointwise, Cast, Lift, Expand, Reshape)):
            return all(self.is_flat(c, size) for c in v.children if isinstance(c, Value))
        return False

    def _spell(self, v: Pointwise, args: Sequence[str]) -> str:
        return spell(v.function, args, v.scalars, v.args[-1].dtype, rounded=v in self.rounded)

    def _pad(self, v: Pad, index: Index) -> str:
        i = index[v.axis]
        n = v.x.shape[v.axis]
        inner = f"({i} - {v.start})" if v.start else i
        inside = f"({i} >= {v.start} && {i} < {v.start + (n - 1) * v.step + 1}"
        if v.step > 1:
            inside += f" && {inner} % {v.step} == 0"
            inner = f"({inner} / {v.step})"
        value = self.expression(v.x, (*index[: v.axis], inner, *index[v.axis + 1 :]))
        return f"({inside}) ? {value} : {literal(0, v.dtype)})"

    def _uniform(self, v: Uniform, element: str) -> str:
        seed = self.expression(v.seed, ())
        number = f"(int64_t)({self.row_number(v)}) * {v.type.size} + {element}"
        return f"cb_uniform<{computed(v.dtype)}>({seed}, {v.salt}, {number})"

    # -------------------------------------------------------------------------------------------- statements

    def materialize(self, v: Value) -> None:
        """Puts ``v`` into a local variable or array, unless it stands somewhere already."""
        if v in self.known:
            return
        self.prepare([v])
        if v in self.known:
            return
        name = self.fresh(v.op_name)
        kind = local_type(v.dtype)
        if isinstance(v, FeatureReduce):
            self._reduce_features(v, name)
        elif isinstance(v, Concat):
            self.declare(name, v)
            whole = Array(name, "0", v.shape, v.dtype)
            self.known[v] = whole
            self._concat(v, whole)
        elif v.type.size == 1:
            self.lines.append(f"const {kind} {name} = {self.expression(v, ('0',) * len(v.shape))};")
            self.known[v] = Scalar(name)
        else:
            self.declare(name, v)
            self.assign(Array(name, "0", v.shape, v.dtype), v)
            self.known[v] = Array(name, "0", v.shape, v.dtype)

    def declare(self, name: str, v: Value) -> None:
        kind = array_type(v.dtype)
        if v.type.size * v.dtype.itemsize <= STACK_BYTES:
            self.lines.append(f"alignas(64) {kind} {name}[{v.type.size}];")
        else:
            self.lines.append(f"static thread_local {kind} {name}[{v.type.size}];")

    def prepare(self, roots: Sequence[Value]) -> None:
        """Materializes, below the roots, what an expression cannot hold or should not compute twice."""
        order, readers = self._below(roots)
        top = set(roots)
        for v in order:
            if v in self.known and self._read_in_loop(v, readers[v]):
                self._to_variable(v)
            if v in top or v in self.known:
                continue
            if isinstance(v, (FeatureReduce, Concat)) or self._read_often(v, readers[v]):
                self.materialize(v)
        for v in order:
            if not isinstance(v, Reshape) or v.x in self.known or squeezed(v.shape) == squeezed(v.x.shape):
                continue
            if not all(self.is_flat(root, root.type.size) for root in roots):
                self.materialize(v.x)

    def _below(self, roots: Sequence[Value]) -> tuple[list[Value], dict[Value, list[Value]]]:
        """What the roots are computed from, down to what is known, operands first; and who reads each."""
        order: dict[Value, None] = {}
        readers: dict[Value, list[Value]] = {}

        def visit(v: Value) -> None:
            if v in order:
                return
            if v not in self.known:
                for c in v.children:
                    assert isinstance(c, Value)
                    if not isinstance(v, Uniform):
                        visit(c)
                        readers.setdefault(c, []).append(v)
            order[v] = None
            readers.setdefault(v, [])

        for root in roots:
            visit(root)
        return list(order), readers

    def _read_often(self, v: Value, readers: Sequence[Value]) -> bool:
        """Whether computing ``v`` inside its readers' loops would do the work again and again."""
        if not isinstance(v, (Pointwise, Cast, Uniform)):
            return False
        if isinstance(v, Pointwise) and POINTWISE[v.function].flops <= 1 and v.type.size == 1:
            return len(readers) > 1
        times = sum(max(1, _elements_read(r) // max(1, v.type.size)) for r in readers)
        return times > 1

    def _read_in_loop(self, v: Value, readers: Sequence[Value]) -> bool:
        """Whether ``v`` is one number in memory, read again for each element of a row."""
        return v.type.size == 1 and isinstance(self.known[v], Array) and any(_elements_read(r) > 1 for r in readers)

    def _to_variable(self, v: Value) -> None:
        """Reads a number once: a compiler, for all that it knows, must read it again after each write of a loop, and makes no vectors."""
        name = self.fresh(v.op_name)
        self.lines.append(f"const {local_type(v.dtype)} {name} = {self.known[v].flat('0')};")
        self.known[v] = Scalar(name)

    def _reduce_features(self, v: FeatureReduce, name: str) -> None:
        kind = local_type(v.dtype)
        start = {"sum": literal(0, v.dtype), "max": literal(-math.inf, v.dtype), "min": literal(math.inf, v.dtype)}[
            v.op
        ]

        def accumulate(total: str, element: str) -> str:
            return f"{total} += {element};" if v.op == "sum" else f"{total} = cb_{v.op}imum({element}, {total});"

        if v.op == "sum" and v.dtype.is_float and self._sums_of_runs(v, name):
            return
        if v.type.size == 1:
            self.lines.append(f"{kind} {name} = {start};")
            self.lines += self._nest(v.x.shape, lambda idx: accumulate(name, self.expression(v.x, idx)), simd=None)
            self.known[v] = Scalar(name)
            return
        self.declare(name, v)
        out = Array(name, "0", v.shape, v.dtype)
        kept = [a for a in range(len(v.x.shape)) if a not in v.axes]
        self.lines += self._loop(v.type.size, lambda i: f"{name}[{i}] = {start};", "#pragma omp simd")

        def body(index: Index) -> str:
            place = out.place(flatten(tuple(index[a] for a in kept), out.shape))
            return accumulate(place, self.expression(v.x, index))

        self.lines += self._nest(v.x.shape, body, simd=None)
        self.known[v] = out

    def _sums_of_runs(self, v: FeatureReduce, name: str) -> bool:
        """A sum over the last axes of a row, one run of elements for each result; False where it is over others."""
        wide = [a for a, n in enumerate(v.x.shape) if n != 1]
        summed = [a for a in wide if a in v.axes]
        if not summed or summed != wide[-len(summed) :] or v.x.type.size == 0:
            return False
        kind, run = local_type(v.dtype), math.prod(v.x.shape[a] for a in summed)
        kept = [a for a in wide if a not in v.axes]
        if not kept and self.is_flat(v.x, run):
            term = self.flat_expression(v.x, "i")
        elif len(summed) == 1:
            index = tuple("i" if a == summed[0] else f"i{a}" if a in kept else "0" for a in range(len(v.x.shape)))
            term = self.expression(v.x, index)
        else:
            return False
        total = f"cb_sum<{kind}, {run}>([&](int i) __attribute__((always_inline)) {{ return {term}; }})"
        if v.type.size == 1:
            self.lines.append(f"const {kind} {name} = {total};")
            self.known[v] = Scalar(name)
            return True
        self.declare(name, v)
        if len(kept) == 1:
            (a,) = kept
            each = f"[&](int i{a}, int i) __attribute__((always_inline)) {{ return {term}; }}"
            self.lines.append(f"cb_sums<{kind}, {v.x.shape[a]}, {run}>({name}, {each});")
            self.known[v] = Array(name, "0", v.shape, v.dtype)
            return True
        place = flatten(tuple(f"i{a}" for a in kept), tuple(v.x.shape[a] for a in kept))
        self.lines += [f"for (int i{a} = 0; i{a} < {v.x.shape[a]}; ++i{a})" for a in kept]
        self.lines.append(f"  {name}[{place}] = {total};")
        self.known[v] = Array(name, "0", v.shape, v.dtype)
        return True

    def _concat(self, v: Concat, out: Array) -> None:
        start = 0
        for part in v.args:
            self.prepare([part])

            def body(index: Index, part: Value = part, start: int = start) -> str:
                moved = (*index[: v.axis], _affine(index[v.axis], 1, start), *index[v.axis + 1 :])
                return f"{out.base}[{_sum(out.offset, flatten(moved, v.shape))}] = {self.expression(part, index)};"

            self.lines += self._nest(part.shape, body)
            start += part.shape[v.axis]

    def assign(self, out: Array, v: Value, operator: str = "=") -> None:
        """``out[i] operator v[i]`` for all elements."""
        self.prepare([v])
        if v not in self.known and isinstance(v, (FeatureReduce, Concat)):
            self.materialize(v)
        size = v.type.size
        if self.is_flat(v, size):
            self.lines += self._loop(
                size, lambda i: f"{out.base}[{_sum(out.offset, i)}] {operator} {self.flat_expression(v, i)};"
            )
        else:
            self.lines += self._nest(
                v.shape,
                lambda idx: (
                    f"{out.base}[{_sum(out.offset, flatten(idx, v.shape))}] {operator} {self.expression(v, idx)};"
                ),
            )

    def fold(self, out: Array, v: Value, function: str) -> None:
        """``out[i] = function(v[i], out[i])`` for all elements."""
        self.prepare([v])
        if v not in self.known and isinstance(v, (FeatureReduce, Concat)):
            self.materialize(v)

        size = v.type.size
        if self.is_flat(v, size):

            def flat(i: str) -> str:
                target = out.place(i)
                return f"{target} = {function}({self.flat_expression(v, i)}, {target});"

            self.lines += self._loop(size, flat)
            return

        def body(index: Index) -> str:
            target = f"{out.base}[{_sum(out.offset, flatten(index, v.shape))}]"
            return f"{target} = {function}({self.expression(v, index)}, {target});"

        self.lines += self._nest(v.shape, body)

    # -------------------------------------------------------------------------------------------- loops

    def _loop(self, n: int, body: Callable[[str], str], pragma: str | None = "#pragma omp simd") -> list[str]:
        if n == 0:
            return []
        if n == 1:
            return [body("0")]
        lines = [pragma] if pragma and n >= 4 else []
        return [*lines, f"for (int i = 0; i < {n}; ++i) {body('i')}"]

    def _nest(self, shape: Shape, body: Callable[[Index], str], simd: str | None = "#pragma omp simd") -> list[str]:
        """Loops over all elements of a shape; axes of one element need none."""
        if 0 in shape:
            return []
        index = tuple("0" if n == 1 else f"i{a}" for a, n in enumerate(shape))
        wide = [a for a, n in enumerate(shape) if n != 1]
        text = body(index)
        lines = []
        for a in wide:
            if a == wide[-1] and simd and shape[a] >= 4:
                lines.append(simd)
            lines.append(f"for (int i{a} = 0; i{a} < {shape[a]}; ++i{a})")
        return [*lines, f"  {text}"]


def _elements_read(reader: Value) -> int:
    """How many elements the loop around a reader's expression goes over."""
    if isinstance(reader, FeatureReduce):
        return reader.x.type.size
    return max(1, reader.type.size)


def broadcast(index: Index, shape: Shape, to: Shape) -> Index:
    """The index of an operand of shape ``to`` when the result, of shape ``shape``, is at ``index``."""
    return tuple("0" if n == 1 else i for i, n in zip(index[len(shape) - len(to) :], to, strict=True))


def _reshaped_index(index: Index, shape: Shape, to: Shape) -> Index:
    """The same for shapes that differ in axes of one element only."""
    wide = iter([i for i, n in zip(index, shape, strict=True) if n != 1])
    return tuple("0" if n == 1 else next(wide) for n in to)


def _affine(i: str, step: int, start: int) -> str:
    scaled = i if step == 1 else f"{i} * {step}"
    if not start:
        return scaled
    return str(start) if i == "0" else f"({scaled} + {start})"


def _cast(v: Cast, expression: str) -> str:
    target = v.dtype
    if target is DType.BOOL:
        return f"({expression} != 0)"
    if is_narrow(target) and not v.loose:  # rounded, as a buffer would round it
        return f"({computed(target)}){stored(target)}({expression})"
    return f"({local_type(target)})({expression})"
