"""Space inference: where every tensor of a trace lives, inferred from how it is used.

A lift says where its operand lives; row-wise operations hand that on in both directions. Weights are the exception: what ``e.rel``
and ``n.type`` lift is computed beforehand by plain PyTorch, unless it was itself reduced from the graph. What nothing says anything
about is plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from columba.frontend.counts import RowCount, Rows
from columba.frontend.errors import TraceError, UnsupportedOperation
from columba.frontend.over_rows import is_single_row, reduces_rows
from columba.frontend.record import Record
from columba.frontend.trees import leaves
from columba.ir.spaces import TYPE_SPACES, Space


@dataclass
class Spaces:
    """The space of each record that has one; ``computed`` are those that a compiled program computes.

    ``why`` says how each came to its space, for errors. ``ones`` are records whose size-1 leading dimension decided something.
    ``graph`` is the number of the graph whose spaces they are.
    """

    graph: int = 0
    of: dict[Record, Space] = field(default_factory=dict)
    computed: set[Record] = field(default_factory=set)
    why: dict[Record, str] = field(default_factory=dict)
    ones: set[Record] = field(default_factory=set)

    def counted(self, count: RowCount) -> Space | None:
        """The space of which a number is the number of rows; None if it is of none that is known."""
        of = count.of
        if isinstance(of, Rows):
            return of.space if of.graph == self.graph else None
        space = self.of.get(of) if isinstance(of, Record) else None
        return None if space is Space.ONE else space


def infer(records: Sequence[Record], graph: int = 0) -> Spaces:
    """The spaces of all records of a trace, or of a part of it, and of what these are computed from.

    That a value computed from one for the whole graph and from plain tensors is itself one for the whole graph is only supposed once all
    uses have been heard: in ``h - g.nodes.mean(h)`` it is the use of ``h`` that says that the difference has a row per node.
    """
    found = Spaces(graph)
    for supposing in (False, True):
        changed = True
        while changed:
            changed = False
            for record in records:
                changed |= _forward(found, record, supposing)
            for record in reversed(records):
                changed |= _backward(found, record)
    return found


def _set(found: Spaces, record: Record, space: Space, why: str, *, computed: bool = True) -> bool:
    known = found.of.get(record)
    if known is None:
        found.of[record] = space
        found.why[record] = why
        if computed:
            found.computed.add(record)
        return True
    if known is not space and Space.ONE in (known, space):
        rows, of_rows = (known, found.why[record]) if space is Space.ONE else (space, why)
        raise _conflict(
            found,
            [record],
            f"{record.where}: {record} is one value for the whole graph, but is used with one row per row of space {rows} ({of_rows}); "
            f"expand it first: x.expand({_COUNTS.get(rows, 'rows')}, ...)",
        )
    if known is not space:
        raise _conflict(
            found,
            [record],
            f"{record.where}: {record} lives in space {known} ({found.why[record]}), but also in {space} ({why}). "
            f"If one of the uses is right, declare it: {_declaration(space)} or {_declaration(known)}.",
        )
    if computed and record not in found.computed:
        found.computed.add(record)
        return True
    return False


def _conflict(found: Spaces, records: Sequence[Record], message: str) -> TraceError:
    """The error for records whose spaces are at odds: that of a function on their way which mixes rows, if there is one."""
    seen: set[Record] = set()
    pending = list(records)
    while pending:
        record = pending.pop(0)
        if record in seen or record not in found.computed:
            continue
        seen.add(record)
        if record.graph is None and record.op not in _OWN_ROWS and record.operands and not keeps_rows(record):
            return UnsupportedOperation(message, record)
        if record.graph is None:
            pending += record.operands
    return TraceError(message)


_OWN_ROWS = ("part", "_row_count")


_COUNTS = {
    Space.EDGE: "g.num_edges",
    Space.NODE: "g.num_nodes",
    Space.SRC: "g.num_src",
    Space.DST: "g.num_dst",
    Space.GRAPH: "g.num_graphs",
}


def _declaration(space: Space) -> str:
    view = {Space.SRC: "src_nodes", Space.DST: "dst_nodes"}.get(space, f"{space}s" if space in _PLURAL else space.value)
    return f"g.{view}(x)"


_PLURAL = (Space.EDGE, Space.NODE, Space.GRAPH)
"""Spaces whose views are called ``g.edges``, and so on."""


def _forward(found: Spaces, record: Record, supposing: bool) -> bool:
    """The space of a result, from what it is or from its operands; ``supposing`` that what has none by now is plain."""
    match record.op:
        case "input":
            return False
        case "lift":
            return _set(found, record, record.kwargs["via"].fine, f"lifted at {record.where}")
        case "reduce":
            return _set(found, record, record.kwargs["via"].coarse, f"reduced at {record.where}")
        case "segment_softmax" | "degree":
            return _set(found, record, record.kwargs["via"].fine, f"at {record.where}")
        case "declare":
            return _set(found, record, record.kwargs["space"], f"declared at {record.where}")
    if reduces_rows(record) and record.operands[0] in found.of:
        return _set(found, record, Space.ONE, f"reduced at {record.where}")
    if record.op in EXPANSIONS and (space := _rows_given(found, record)) is not None:
        return record not in found.of and _set(found, record, space, f"expanded at {record.where}")
    operands = [o for o in record.operands if o in found.computed]
    spaces = {found.of[o] for o in operands} - {Space.ONE}
    if len(spaces) > 1:
        a, b = (next(o for o in operands if found.of[o] is s) for s in sorted(spaces)[:2])
        raise _conflict(
            found,
            [a, b],
            f"{record.where}: {record.op} combines {a}, which lives in space {found.of[a]} ({found.why[a]}), with {b}, which lives in "
            f"{found.of[b]} ({found.why[b]}); lift one to the space of the other first (g.edges.src(...), g.edges.dst(...), ...)",
        )
    if spaces:
        return _set(found, record, spaces.pop(), f"computed at {record.where}")
    if operands and (supposing or (len(operands) == len(record.operands) and record.op not in EXPANSIONS)):
        return record not in found.of and _set(found, record, Space.ONE, f"computed at {record.where}")
    return False


EXPANSIONS = ("expand", "broadcast_to", "expand_as")


def _rows_given(found: Spaces, record: Record) -> Space | None:
    """The space whose rows one value for the whole graph is expanded to, if its first size is a number of rows."""
    x, *sizes = record.args
    if found.of.get(x) is not Space.ONE or x not in found.computed or not sizes:
        return None
    first = sizes[0]
    if isinstance(first, Record):
        return found.of.get(first)
    if isinstance(first, (tuple, list)) and first:
        first = first[0]
    return found.counted(first) if isinstance(first, RowCount) else None


def _backward(found: Spaces, record: Record) -> bool:
    """The spaces of operands, from what is done with them."""
    changed = False
    match record.op:
        case "input":
            return False
        case "lift":
            coarse = record.kwargs["via"].coarse
            (x,) = record.operands
            if coarse in TYPE_SPACES:
                return False  # decided use by use: a weight may be lifted along several maps
            return _set(found, x, coarse, f"lifted along {record.kwargs['via'].name} at {record.where}")
        case "reduce" | "segment_softmax":
            (x,) = record.operands
            return _set(
                found, x, record.kwargs["via"].fine, f"{record.kwargs.get('kind', 'softmax')} of it at {record.where}"
            )
        case "declare":
            (x,) = record.operands
            return _set(found, x, record.kwargs["space"], f"declared at {record.where}")
    space = found.of.get(record)
    if space is None or space is Space.ONE:
        return False
    for operand in row_operands(found, record):
        changed |= _set(found, operand, space, f"used with rows of it by {record.op} at {record.where}")
    return changed


def row_operands(found: Spaces, record: Record) -> list[Record]:
    """The plain operands that must have a row per row of the result."""
    plain = [o for o in record.operands if o not in found.of]
    if not plain or not record.meta.dim():
        return []
    if record.op == "part":
        return plain
    if record.op == "einsum":
        return _einsum_rows(record, plain)
    if not keeps_rows(record):
        return []
    operands = record.operands
    if record.op in _BATCHED and max(o.meta.dim() for o in operands) < 3:
        first = operands[record.op == "__rmatmul__"]
        return [first] if first in plain else []
    if record.op in _ROWS_AT:
        first = operands[_ROWS_AT[record.op]]
        return [first] if first in plain else []
    if len(operands) == 1:
        return plain
    rank, rows = max(o.meta.dim() for o in operands), record.meta.shape[0]
    same = [o for o in plain if o.meta.dim() == rank and o.meta.shape[0] == rows]
    if rows == 1:
        same = [o for o in same if not is_single_row(o)]
        found.ones.update(same)
    return same


JOINS = ("cat", "concat", "concatenate", "cat_nodes", "__getitem__", "index_select", "set_items")
"""Operations that take rows of several tensors, each of which may have any number of them."""


def row_carriers(record: Record) -> list[Record]:
    """The operands each row of which becomes a row of the result, or of which the result has rows; as far as that is known."""
    operands, args = record.operands, record.args
    match record.op:
        case "cat" | "concat" | "concatenate":
            dim = record.kwargs.get("dim", record.kwargs.get("axis", args[1] if len(args) > 1 else 0))
            return list(operands) if dim == 0 else row_operands(Spaces(), record)
        case "__getitem__":
            index = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
            rows = [operands[0]] if isinstance(index, (Record, slice)) or index is Ellipsis else []
            return [*rows, index] if isinstance(index, Record) else rows
        case "set_items":
            index = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
            return list(operands) if isinstance(index, slice) else []
        case "index_select":
            return list(operands) if (record.kwargs.get("dim", args[1] if len(args) > 1 else None)) == 0 else []
        case "narrow":
            return [operands[0]] if args[1:2] == (0,) else row_operands(Spaces(), record)
        case "chunk" | "split" if record.kwargs.get("dim", args[2] if len(args) > 2 else 0) == 0:
            return [operands[0]]
        case "cat_nodes" | "nodes_of_type":
            return list(operands)
        case "embedding" | "one_hot" | "cumsum" | "cumprod" | "sort" | "argsort" | "flip":
            return [operands[0]]
        case "lstm" | "gru" | "rnn_tanh" | "rnn_relu":
            return [operands[0]] if args[-1] is True and operands[0].meta.dim() == 3 else []  # batch_first
        case "part" if operands[0].op in ("lstm", "gru", "rnn_tanh", "rnn_relu") and args[1]:
            return []  # the last states
    return row_operands(Spaces(), record)


def origin_of_rows(record: Record) -> Record:
    """The furthest of what a record is computed from that has as many rows, as far as that is known before spaces are."""
    while record.source is None and record.op not in GRAPH_OPERATIONS and record.meta.dim():
        rows = record.meta.shape[0]
        operands = row_operands(Spaces(), record) if keeps_rows(record) else record.operands[: record.op in KEEP_COUNT]
        found = [o for o in operands if o.meta.dim() and o.meta.shape[0] == rows > 1]
        if not found:
            break
        record = found[0]
    return record


KEEP_COUNT = ("cumsum", "cumprod", "sort", "argsort", "flip")
"""What mixes rows, and gives as many."""

GRAPH_OPERATIONS = ("lift", "reduce", "segment_softmax", "degree", "declare")


def _einsum_rows(record: Record, plain: Sequence[Record]) -> list[Record]:
    equation = record.args[0]
    if not isinstance(equation, str) or "->" not in equation:
        return []
    terms, out = equation.replace(" ", "").split("->")
    rows = out[:1]
    named = list(zip(terms.split(","), record.operands, strict=False))
    return [o for term, o in named if o in plain and rows and term.startswith(rows)]


def keeps_rows(record: Record) -> bool:
    """Whether an operation acts on each row of its operands alone, whatever their number, as far as its arguments tell."""
    name, args, kwargs = record.op, record.args, record.kwargs
    if name in ROW_WISE or name in _ROWS_AT or name in _BATCHED:
        return True
    if name in ("max", "min") and len(record.operands) > 1:
        return True  # the larger one of two tensors' numbers
    if name in ("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as"):
        x = record.operands[0].meta
        return (
            x.dim() > 0 and x.shape[0] == record.meta.shape[0] and x.shape[1:].numel() == record.meta.shape[1:].numel()
        )
    if name in ("expand", "expand_as", "broadcast_to"):
        x = record.operands[0].meta
        return x.dim() == record.meta.dim() and x.shape[0] == record.meta.shape[0]
    rank = record.operands[0].meta.dim() if record.operands else 0
    if name in ("transpose", "swapaxes", "swapdims", "movedim", "moveaxis"):
        return all(isinstance(d, int) and d % max(rank, 1) for d in leaves([*args[1:], *kwargs.values()]))
    if name == "permute":
        order = kwargs.get("dims", args[1] if len(args) == 2 and not isinstance(args[1], int) else args[1:])
        return len(order) > 0 and order[0] % rank == 0
    if name == "t":
        return False
    if name == "mT":
        return rank > 2
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        if len(index) and index[0] is Ellipsis:
            return sum(i is not None for i in index[1:]) < rank
        rows = (
            index[0] if len(index) else slice(None)
        )  # whose bounds are not to be compared: they may be numbers of rows
        return isinstance(rows, slice) and rows.start is None and rows.stop is None and rows.step is None
    if name == "repeat":
        times = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
        return len(times) == rank > 0 and type(times[0]) is int and times[0] == 1
    if name in ("pad", "constant_pad_nd"):
        padded = kwargs.get("pad", args[1] if len(args) > 1 else ())
        return len(padded) // 2 < rank or not any(padded[2 * rank - 2 :])
    if name in _DIMENSION:
        position, default = _DIMENSION[name]
        given = args[position] if len(args) > position else default
        dim = next((kwargs[k] for k in ("dim", "axis", "dims") if k in kwargs), given)
        dims = dim if isinstance(dim, (tuple, list)) else (dim,)
        extra = name in ("unsqueeze", "stack")
        return all(isinstance(d, int) and d % (rank + extra) for d in dims) and len(dims) > 0
    return False


_ROWS_AT = {
    "linear": 0, "typed_linear": 0, "mm": 0, "mv": 0, "addmm": 1, "layer_norm": 0, "prelu": 0, "rms_norm": 0, "normalize": 0,
    "group_norm": 0,
}  # fmt: skip
"""Operations whose rows are those of one operand, and which."""

_BATCHED = ("matmul", "__matmul__", "__rmatmul__", "bmm")
"""Products of matrices, whose rows are those of the left one, or of many matrices side by side, one a row."""

_DIMENSION = {
    "sum": (1, None), "mean": (1, None), "amax": (1, None), "amin": (1, None), "max": (1, None), "min": (1, None), "var": (1, None),
    "std": (1, None), "softmax": (1, None), "log_softmax": (1, None), "logsumexp": (1, None), "norm": (2, None), "vector_norm": (2,
    None), "linalg_vector_norm": (2, None), "cat": (1, 0), "concat": (1, 0), "concatenate": (1, 0), "stack": (1, 0), "split": (2,
    0), "chunk": (2, 0), "unbind": (1, 0), "narrow": (1, None), "select": (1, None), "unsqueeze": (1, None), "squeeze": (1, None),
    "prod": (1, None), "argmax": (1, None), "argmin": (1, None), "any": (1, None), "all": (1, None), "topk": (2, -1),
    "glu": (1, -1), "cosine_similarity": (2, 1), "roll": (2, None),
}  # fmt: skip
"""Operations along a dimension: where it is among the arguments, and its default."""

ROW_WISE: set[str] = {
    "clone",
    "contiguous",
    "to",
    "type",
    "float",
    "double",
    "half",
    "bfloat16",
    "type_as",
    "dropout",
    "int",
    "long",
    "bool",
    "detach",
    "_constant",
}
"""Operations of one number each; the pointwise rules add theirs."""
