"""IR construction: from records to a level-1 program: what has rows is compiled, what is plain stays PyTorch, before or after."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from columba.frontend.errors import TraceError, UnsupportedOperation
from columba.frontend.infer import Spaces
from columba.frontend.operands import Operand
from columba.frontend.over_rows import reduces_rows
from columba.frontend.record import Record
from columba.frontend.rules import INSTEAD, RULES, Call
from columba.frontend.trees import mapped
from columba.frontend.views import left_to_pytorch
from columba.ir.program import build as b
from columba.ir.program.ops import Degree, Input, Reduce, Softmax, Value
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.ir.types import DType, TensorType
from columba.runtime.dtypes import ir_dtype


@dataclass
class Translated:
    """A program, where its inputs come from, and what runs in PyTorch.

    ``inputs[i]`` is the record that gives input ``i`` (None: the seed of random numbers), with its space. ``results[i]`` is the record
    that result ``i`` is. ``prelude`` runs before the program, ``postlude`` after it, in order. From the ``inner`` records
    the program itself computes further ones.
    """

    program: Program
    inputs: list[tuple[Record | None, Space]]
    results: list[Record]
    prelude: list[Record]
    postlude: list[Record]
    inner: frozenset[Record]


def translate(
    name: str, records: Sequence[Record], found: Spaces, wanted: Iterable[Record], given: Container[Record] = ()
) -> Translated:
    """The program that computes those of ``wanted`` that have rows, or are reduced from rows.

    Args:
        name: of the program.
        records: what may be computed, operands first.
        found: their spaces.
        wanted: what is asked for.
        given: what has been computed before, and is not computed again.
    """
    wanted = list(dict.fromkeys(wanted))
    conversion = _Conversion(found, _compiled(records, found, given), given)
    left = left_to_pytorch(wanted, conversion.compiled.__contains__)
    computed = conversion.compiled - left
    after = _replayed(wanted, lambda r: r in found.of and r not in computed and not conversion.is_input(r))
    needed = dict.fromkeys([*wanted, *(o for r in after for o in r.operands)])
    results = [r for r in needed if r in computed]
    values = [conversion.operand(r).value for r in results]
    names = [conversion.name("out" if len(values) == 1 else f"out{n}") for n in range(len(values))]
    program = Program(name, tuple(conversion.inputs), tuple(values), tuple(names))
    sources = [conversion.origin[i] for i in conversion.inputs]
    roots = [r for r, _ in sources if r is not None]
    roots += [r for r in needed if r not in found.of or conversion.is_input(r)]
    prelude = _replayed(roots, lambda r: r.source is None and r not in given)
    inner = frozenset(o for r in conversion.compiled for o in r.operands if o in conversion.compiled)
    return Translated(program, sources, results, prelude, after, inner)


def _is_boundary(found: Spaces, record: Record, given: Container[Record]) -> bool:
    """Whether a record with rows is computed by PyTorch, nothing that it is computed from having rows, or was computed before."""
    if record in given:
        return True
    if record.op == "part":
        return _is_boundary(found, record.operands[0], given)
    fixed = record.op in ("lift", "reduce", "segment_softmax", "degree", "declare")
    return not fixed and not any(o in found.of for o in record.operands)


def _reduces(found: Spaces, record: Record) -> bool:
    """Whether a record combines rows."""
    if record.graph is None and reduces_rows(record):
        return found.of.get(record.operands[0], Space.ONE) is not Space.ONE
    return record.op == "reduce"


def _compiled(records: Sequence[Record], found: Spaces, given: Container[Record]) -> set[Record]:
    """The records that the program computes: all with rows that something wants; of those reduced to one row, what leads back to rows."""
    users: dict[Record, list[Record]] = {}
    for record in records:
        for operand in record.operands:
            users.setdefault(operand, []).append(record)
    compiled: set[Record] = set()
    for record in reversed(records):
        if record not in found.of or _is_boundary(found, record, given):
            continue
        plain_after = found.of[record] is Space.ONE and not _reduces(found, record)
        if not plain_after or any(u in compiled for u in users.get(record, ())):
            compiled.add(record)
    compiled.update(r for r in records if r.op == "part" and r.operands[0] in compiled)  # nobody else has the whole
    return compiled


def _replayed(roots: Iterable[Record], keep: Any) -> list[Record]:
    """What PyTorch has to compute for ``roots``, operands first."""
    order: dict[Record, None] = {}

    def visit(record: Record) -> None:
        if record in order or not keep(record):
            return
        for operand in record.operands:
            visit(operand)
        order[record] = None

    for root in roots:
        visit(root)
    return list(order)


@dataclass
class _Conversion:
    found: Spaces
    compiled: set[Record]
    given: Container[Record] = ()
    inputs: list[Input] = field(default_factory=list)
    origin: dict[Input, tuple[Record | None, Space]] = field(default_factory=dict)
    made: dict[tuple[Record, Space], Input] = field(default_factory=dict)
    operands: dict[Record, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    seed_input: Input | None = None
    salts: int = 0

    def is_input(self, record: Record) -> bool:
        return record in self.found.of and _is_boundary(self.found, record, self.given)

    # -------------------------------------------------------------------------------------------- inputs

    def input(self, record: Record, space: Space) -> Input:
        """The program's input for a value that PyTorch provides, as rows of ``space``."""
        if (record, space) not in self.made:
            shape = tuple(record.meta.shape)
            if space is not Space.ONE and not shape:
                raise TraceError(
                    f"{record.where}: {record} has no dimensions, but is used as a tensor with one row per row of {space}"
                )
            features = shape if space is Space.ONE else shape[1:]
            made = self._new_input(
                str(record.source or record.op), TensorType(space, features, ir_dtype(record.meta.dtype))
            )
            self.origin[made] = (record, space)
            self.made[record, space] = made
        return self.made[record, space]

    def _new_input(self, name: str, type: TensorType) -> Input:
        made = Input(self.name(name), type)
        self.inputs.append(made)
        return made

    def name(self, wish: str) -> str:
        base = "".join(c if c.isalnum() and c.isascii() else "_" for c in wish).strip("_") or "x"
        base = base if not base[0].isdigit() else f"x_{base}"
        name, n = base, 1
        while name in self.names:
            n += 1
            name = f"{base}_{n}"
        self.names.add(name)
        return name

    def seed(self) -> tuple[Value, int]:
        if self.seed_input is None:
            self.seed_input = self._new_input("seed", TensorType(Space.ONE, (), DType.I64))
            self.origin[self.seed_input] = (None, Space.ONE)
        self.salts += 1
        return self.seed_input, self.salts - 1

    # -------------------------------------------------------------------------------------------- values

    def operand(self, record: Record, space: Space = Space.ONE) -> Any:
        """The operand for a record; ``space`` is where a plain one lives."""
        if record not in self.compiled:
            return Operand(self.input(record, self.found.of.get(record, space)), record)
        if record not in self.operands:
            for operand in _unconverted(record, self):
                self._convert(operand)
        return self.operands[record]

    def _convert(self, record: Record) -> None:
        value = self._language(record) if record.op in _LANGUAGE else self._torch(record)
        if isinstance(value, list):
            self.operands[record] = value
            return
        value = b.to_space(value, self.found.of[record])
        operand = Operand(value, record)
        meta = record.meta
        features = tuple(meta.shape) if value.space is Space.ONE else tuple(meta.shape[1:])
        if value.shape != features or value.dtype is not ir_dtype(meta.dtype):
            raise TraceError(
                f"{record.where}: {record} was converted to {value.type}, torch gives {list(meta.shape)} {meta.dtype}"
            )
        self.operands[record] = operand

    def _language(self, record: Record) -> Value:
        """The operations of the language."""
        data = record.kwargs
        match record.op:
            case "part":
                whole, n = record.args
                parts = self.operand(whole)
                if parts[n] is None:
                    message = f"{record.where}: {whole.op}: only its values are available, not the indices of them"
                    raise UnsupportedOperation(message, whole)
                return parts[n]
            case "declare":
                return self.operand(record.args[0], data["space"]).value
            case "degree":
                return b.lift(_occupied(Degree(data["via"], ir_dtype(record.meta.dtype))), data["via"])
            case "lift":
                x, via = self.operand(record.args[0], data["via"].coarse).value, data["via"]
                if x.space is not via.coarse:
                    raise TraceError(
                        f"{record.where}: lifting along {via.name} needs one row per row of space {via.coarse}, and {record.args[0]} "
                        f"lives in space {x.space}"
                    )
                return b.lift(x, via)
            case "segment_softmax":
                return Softmax(self.operand(record.args[0]).value, data["via"])
        x, via = self.operand(record.args[0]).value, data["via"]
        if data["kind"] != "mean":
            return Reduce(x, via, data["kind"])
        return b.pointwise("div", Reduce(x, via, "sum"), _occupied(Degree(via, x.dtype)))

    def _torch(self, record: Record) -> Value | list[Value]:
        rule = RULES.get(record.op)
        if rule is None:
            name = record.op.strip("_")
            instead = INSTEAD.get(name, "Rewrite it with others (docs/language.md lists them)")
            raise UnsupportedOperation(
                f"{record.where}: torch function {name!r} is not supported on rows of a graph. {instead}, or compute it outside the "
                "compiled function and pass the result in.",
                record,
            )

        def operand(x: Any) -> Any:
            return self.operand(x) if isinstance(x, Record) else x

        args, kwargs = mapped(operand, (record.args, record.kwargs))
        try:
            return rule(Call(record, self.found.of[record], self.seed, self.found.counted), *args, **kwargs)  # type: ignore[no-any-return]
        except UnsupportedOperation as e:
            e.record = e.record or record
            raise
        except (TraceError, NotImplementedError):
            raise
        except (TypeError, ValueError) as e:
            message = f"{record.where}: {record.op.strip('_')} is not supported with these arguments: {e}"
            raise UnsupportedOperation(message, record) from e


_LANGUAGE = ("part", "declare", "degree", "lift", "segment_softmax", "reduce")


def _occupied(degree: Degree) -> Value:
    """A degree as members see it: never 0. Passes may then divide by it before it is lifted to them."""
    return b.pointwise("maximum", degree, 1.0) if degree.dtype.is_float else degree


def _unconverted(record: Record, conversion: _Conversion) -> list[Record]:
    """What has to be converted for ``record``, operands first, itself last; without recursion over long programs."""
    order: list[Record] = []
    seen: set[Record] = set()
    stack: list[tuple[Record, bool]] = [(record, False)]
    while stack:
        current, ready = stack.pop()
        if ready:
            order.append(current)
        elif current not in seen and current in conversion.compiled and current not in conversion.operands:
            seen.add(current)
            stack.append((current, True))
            stack.extend((o, False) for o in reversed(current.operands))
    return order
