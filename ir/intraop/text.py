"""The text form of level 2: a printer, and a parser that gives back an equal plan.

    plan sums(@h: node[4] f32) -> (@out: node[4] f32) {
      traversal out_kernel(owner=node, via=dst:edge->node, schedule={ahead=16}) {
        %0: edge[4] f32 = load(buffer=@h, via=src:edge->node, at=edge)
        %1: node[4] f32 = reduce(%0, via=dst:edge->node, op=sum)
        store @out = %1
      }
    }

Buffers that are neither inputs nor outputs are declared by ``temporary`` lines; ``sorted=`` and a map say in which order rows stand, if
not in that of their space. An output that is an input is marked so. A schedule shows the fields that are not what they are by default,
and nothing if there are none. Kernels that run part by part stand in a block, which declares the buffers that need memory for a part of
their rows only:

      group(space=src_rel, schedule={rows=1024}) {
        local @t: src_rel[64] f32
        traversal ...
        gemm ...
      }
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from columba.ir.interop.ops import Value
from columba.ir.interop.text import (
    Tokens,
    parse_field,
    parse_line,
    parse_program_tokens,
    parse_type,
    print_field,
    print_operation,
)
from columba.ir.intraop.groups import Group, GroupSchedule
from columba.ir.intraop.kernels import (
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
    roots_of,
    values_of,
)
from columba.ir.intraop.plan import Plan
from columba.ir.node import value_numbers
from columba.ir.spaces import IndexMap, Space

# ------------------------------------------------------------------------------------------------ printing


def print_plan(plan: Plan) -> str:
    """The text of a plan."""
    inputs = ", ".join(map(_declaration, plan.inputs))
    outputs = ", ".join(map(_declaration, plan.outputs))
    lines = [f"plan {plan.name}({inputs}) -> ({outputs}) {{"]
    local = {b for group in plan.groups for b in group.local}
    lines += [f"  temporary {_declaration(b)}" for b in plan.buffers if b.role == "temporary" and b not in local]
    for group, kernels in plan.units:
        body = [line for kernel in kernels for line in print_kernel(kernel).splitlines()]
        lines += _indented(body if group is None else _print_group(group, body))
    return "\n".join([*lines, "}"])


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _print_group(group: Group, body: Sequence[str]) -> list[str]:
    fields = [f"space={group.space}", *_print_schedule(group.schedule)]
    local = [f"local {b}: {b.type}" for b in group.local]
    return [f"group({', '.join(fields)}) {{", *_indented([*local, *body]), "}"]


def _declaration(buffer: Buffer) -> str:
    order = "" if buffer.order is None else f" sorted={print_field(buffer.order)}"
    return f"{buffer}: {buffer.type}{order}"


def print_kernel(kernel: Kernel) -> str:
    """The text of one kernel."""
    match kernel:
        case Traversal():
            head = _head("traversal", kernel, f"owner={kernel.owner}", f"via={print_field(kernel.via)}")
            return _block(head, kernel, [(f"store {s.buffer} = ", s.value) for s in kernel.stores])
        case Gemm():
            return _block(_head("gemm", kernel), kernel, [(f"store {s.buffer} = ", s.value) for s in kernel.stores])
        case GemmReduce():
            return _block(
                _head("gemm_reduce", kernel, f"via={kernel.via}", f"shared={print_field(kernel.shared)}"),
                kernel,
                [("left ", kernel.x), ("right ", kernel.y)],
                [f"store {kernel.out}"],
            )
        case HostCall():
            args, results = (", ".join(map(str, buffers)) for buffers in (kernel.args, kernel.results))
            program = "\n".join(f"  {line}" for line in str(kernel.program).splitlines())
            return f"host {kernel.name}({args}) -> ({results}) {{\n{program}\n}}"


def _head(kind: str, kernel: Traversal | Gemm | GemmReduce, *fields: str) -> str:
    return f"{kind} {kernel.name}({', '.join([*fields, *_print_schedule(kernel.schedule)])})"


def _print_schedule(schedule: Schedule) -> list[str]:
    changes = ", ".join(f"{name}={value}" for name, value in schedule.changes.items())
    return [f"schedule={{{changes}}}"] if changes else []


def _block(head: str, kernel: Kernel, roots: Sequence[tuple[str, Value]], tail: Sequence[str] = ()) -> str:
    names: dict[Value, str] = {}
    lines = [f"{head} {{"]
    for value in values_of(kernel):
        names[value] = f"%{len(names)}"
        lines.append(f"  {names[value]}: {value.type} = {print_operation(value, names)}")
    lines += [f"  {prefix}{names[value]}" for prefix, value in roots]
    return "\n".join([*lines, *(f"  {line}" for line in tail), "}"])


# ------------------------------------------------------------------------------------------------ parsing


def parse_plan(text: str) -> Plan:
    """The plan that ``text`` describes; :class:`columba.ir.interop.text.ParseError` if there is none."""
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
            raise tokens.error(f"{name} is declared {_declaration(known)} and {declared}")
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
    knobs = {f.name: int for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    chosen = dict(_list(tokens, lambda: _field(tokens, knobs), "{", "}"))
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


# ------------------------------------------------------------------------------------------------ equality


def plans_equal(a: Plan, b: Plan) -> bool:
    """Whether two plans run the same kernels over the same buffers."""
    heads = [(p.name, p.inputs, p.outputs, p.groups, len(p.kernels)) for p in (a, b)]
    if heads[0] != heads[1]:
        return False
    numbers: dict[Any, int] = {}
    return all(_key(x, numbers) == _key(y, numbers) for x, y in zip(a.kernels, b.kernels, strict=True))


def _key(kernel: Kernel, numbers: dict[Any, int]) -> tuple[Any, ...]:
    """What a kernel says, with values numbered across both plans."""
    if isinstance(kernel, HostCall):
        return (kernel.name, str(kernel.program), kernel.args, kernel.results)
    found = value_numbers(roots_of(kernel), numbers)
    roots = tuple(found[r] for r in roots_of(kernel))
    match kernel:
        case Traversal():
            return (
                kernel.name,
                kernel.owner,
                kernel.via,
                kernel.schedule,
                tuple(s.buffer for s in kernel.stores),
                roots,
            )
        case Gemm():
            return (kernel.name, kernel.schedule, tuple(s.buffer for s in kernel.stores), roots)
        case GemmReduce():
            return (kernel.name, kernel.via, kernel.shared, kernel.out, kernel.schedule, roots)
