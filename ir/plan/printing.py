"""The text form of level 2, printed: it is parsed back by :mod:`columba.ir.plan.parsing`.

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

from collections.abc import Iterable, Sequence

from columba.ir.plan.groups import Group
from columba.ir.plan.kernels import Buffer, Gemm, GemmReduce, HostCall, Kernel, Schedule, Traversal, values_of
from columba.ir.program.ops import Value
from columba.ir.program.printing import print_field, print_operation


def indented(lines: Iterable[str]) -> list[str]:
    """Lines two columns further to the right."""
    return [f"  {line}" for line in lines]


def print_group(group: Group, body: Sequence[str]) -> list[str]:
    """The lines of a group whose kernels have the lines ``body``."""
    fields = [f"space={group.space}", *_print_schedule(group.schedule)]
    local = [f"local {b}: {b.type}" for b in group.local]
    return [f"group({', '.join(fields)}) {{", *indented([*local, *body]), "}"]


def print_declaration(buffer: Buffer) -> str:
    """A buffer with its type, and the order of its rows if that is not the order of their space."""
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
