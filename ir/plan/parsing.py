"""A parser of the text form of level 2 that gives back an equal plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from columba.ir.plan.groups import Group, GroupSchedule
from columba.ir.plan.kernels import (
    Buffer,
    Gemm,
    GemmReduce,
    GemmSchedule,
    HostCall,
    Kernel,
    Schedule,
    Store,
    Traversal,
    TraversalSchedule,
)
from columba.ir.plan.plan import Plan
from columba.ir.plan.printing import print_declaration
from columba.ir.program.ops import Value
from columba.ir.program.parsing import Tokens, parse_field, parse_line, parse_program_tokens, parse_type
from columba.ir.spaces import IndexMap, Space


def parse_plan(text: str) -> Plan:
    """The plan that ``text`` describes; :class:`columba.ir.program.parsing.ParseError` if there is none."""
    tokens = Tokens(text)
    tokens.take("plan")
    name = tokens.take()
    inputs = _buffers(tokens, "input")
    tokens.take("->")
    outputs = _buffers(tokens, "output")
    tokens.take("{")
    kernels: list[Kernel] = []
    groups: list[Group] = []
    while tokens.peek() != "}":
        kind = tokens.take("temporary", "group", *_KERNELS)
        if kind == "temporary":
            _buffer(tokens, "temporary")
        elif kind == "group":
            groups.append(_group(tokens, kernels))
        else:
            kernels.append(_KERNELS[kind](tokens))
    tokens.take("}")
    if tokens.peek():
        raise tokens.error(f"unexpected {tokens.peek()!r} after the plan")
    return Plan(name, inputs, outputs, tuple(kernels), tuple(groups))


def _group(tokens: Tokens, kernels: list[Kernel]) -> Group:
    """A group, whose kernels are added to ``kernels``."""
    fields = _fields(tokens, space=Space, schedule=GroupSchedule)
    local: list[Buffer] = []
    names: list[str] = []
    tokens.take("{")
    while tokens.peek() != "}":
        kind = tokens.take("local", *_KERNELS)
        if kind == "local":
            local.append(_buffer(tokens, "temporary"))
        else:
            kernels.append(_KERNELS[kind](tokens))
            names.append(kernels[-1].name)
    tokens.take("}")
    return Group(fields["space"], tuple(names), tuple(local), fields.get("schedule", GroupSchedule()))


def _buffers(tokens: Tokens, role: str) -> tuple[Buffer, ...]:
    return tuple(_list(tokens, lambda: _buffer(tokens, role)))


def _list(tokens: Tokens, item: Callable[[], Any], opening: str = "(", closing: str = ")") -> list[Any]:
    found = []
    tokens.take(opening)
    while tokens.peek() != closing:
        found.append(item())
        if tokens.peek() != closing:
            tokens.take(",")
    tokens.take(closing)
    return found


def _buffer(tokens: Tokens, role: str) -> Buffer:
    name = tokens.take()
    tokens.take(":")
    declared, order = parse_type(tokens), None
    if tokens.peek() == "sorted":
        tokens.take("sorted")
        tokens.take("=")
        order = parse_field(tokens, IndexMap)
    known = tokens.names.get(name)
    if known is not None:
        if (known.type, known.order) != (declared, order):
            raise tokens.error(f"{name} is declared {print_declaration(known)} and {declared}")
        return known  # type: ignore[no-any-return]
    tokens.names[name] = Buffer(name[1:], declared, role, order)
    return tokens.names[name]  # type: ignore[no-any-return]


def _known(tokens: Tokens) -> Buffer:
    name = tokens.take()
    if name not in tokens.names:
        raise tokens.error(f"{name} is not declared")
    return tokens.names[name]  # type: ignore[no-any-return]


def _fields(tokens: Tokens, **kinds: Any) -> dict[str, Any]:
    """``(name=value, ...)`` with each value of the kind that its name says."""
    found = {}
    for name, value in _list(tokens, lambda: _field(tokens, kinds)):
        found[name] = value
    return found


def _field(tokens: Tokens, kinds: dict[str, Any]) -> tuple[str, Any]:
    name = tokens.take(*kinds)
    tokens.take("=")
    kind = kinds[name]
    return name, _schedule(tokens, kind) if kind in _SCHEDULES else parse_field(tokens, kind)


_SCHEDULES = (TraversalSchedule, GemmSchedule, GroupSchedule)


def _schedule(tokens: Tokens, kind: type[Schedule]) -> Schedule:
    """``{field=value, ...}``; a field that is left out is what it is by default."""
    limits = {f.name: int for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    chosen = dict(_list(tokens, lambda: _field(tokens, limits), "{", "}"))
    try:
        return kind(**chosen)
    except ValueError as e:
        raise tokens.error(str(e)) from e


def _body(tokens: Tokens) -> tuple[list[Store], dict[str, Value]]:
    """Operations, then stores and marked values, up to the closing brace."""
    values: dict[str, Value] = {}
    stores: list[Store] = []
    marked: dict[str, Value] = {}
    tokens.take("{")
    while tokens.peek() != "}":
        if tokens.peek().startswith("%"):
            parse_line(tokens, values)
            continue
        word = tokens.take("store", "left", "right")
        if word != "store":
            marked[word] = _value(tokens, values)
            continue
        buffer = _known(tokens)
        if tokens.peek() == "=":
            tokens.take("=")
            stores.append(Store(buffer, _value(tokens, values)))
        else:
            tokens.names["store"] = buffer
    tokens.take("}")
    return stores, marked


def _value(tokens: Tokens, values: dict[str, Value]) -> Value:
    name = tokens.take()
    if name not in values:
        raise tokens.error(f"value {name} is not defined before its use")
    return values[name]


def _traversal(tokens: Tokens) -> Traversal:
    name = tokens.take()
    fields = _fields(tokens, owner=Space, via=IndexMap | None, schedule=TraversalSchedule)
    stores, _ = _body(tokens)
    return Traversal(name, fields["owner"], fields["via"], tuple(stores), fields.get("schedule", TraversalSchedule()))


def _gemm(tokens: Tokens) -> Gemm:
    name = tokens.take()
    fields = _fields(tokens, schedule=GemmSchedule)
    stores, _ = _body(tokens)
    return Gemm(name, tuple(stores), fields.get("schedule", GemmSchedule()))


def _gemm_reduce(tokens: Tokens) -> GemmReduce:
    name = tokens.take()
    fields = _fields(tokens, via=IndexMap, shared=bool, schedule=GemmSchedule)
    _, marked = _body(tokens)
    out = tokens.names.pop("store")
    return GemmReduce(
        name,
        marked["left"],
        marked["right"],
        fields["via"],
        fields["shared"],
        out,
        fields.get("schedule", GemmSchedule()),
    )


def _host(tokens: Tokens) -> HostCall:
    name = tokens.take()
    args = tuple(_list(tokens, lambda: _known(tokens)))
    tokens.take("->")
    results = tuple(_list(tokens, lambda: _known(tokens)))
    tokens.take("{")
    program = parse_program_tokens(tokens)
    tokens.take("}")
    return HostCall(name, program, args, results)


_KERNELS: dict[str, Callable[[Tokens], Kernel]] = {
    "traversal": _traversal,
    "gemm": _gemm,
    "gemm_reduce": _gemm_reduce,
    "host": _host,
}
