"""Pieces of edges: slices of rows that were gathered, and tensors that are put together of pieces and then summed.

The rows ``[0::4]`` of ``x[src]`` are the rows ``src[0::4]`` of ``x``; a sum by ``dst`` of what was written into ``m[0::4]``,
``m[1::4]``, ... is the sum of the sums by ``dst[0::4]``, ``dst[1::4]``, ... So are halves of edges that are stored in both directions, side
by side or one after the other, and messages of both directions joined by ``cat``. Which rows of the indices these are follows from the
indices alone: each piece moves along a graph of its own edges, and no tensor holds all of them.

::

    h = x[src]                                        a, b = x[src[0::2]], x[src[1::2]]
    m = torch.empty(h.shape)                          u, v = f(a - b), g(a + b)
    m[0::2] = f(h[0::2] - h[1::2])         -->
    m[1::2] = g(h[0::2] + h[1::2])
    out.index_add_(0, dst, m)                         out + u summed by dst[0::2] + v summed by dst[1::2]

It must not fire where something else needs the whole, so that it is there anyway; where pieces overlap, and so would be computed twice; for
random numbers; and where a join is not of pieces that were gathered. PyTorch takes slices and joins then, between programs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from columba.frontend.counts import Extent, RowCount
from columba.frontend.infer import Spaces, keeps_rows, origin_of_rows, row_operands
from columba.frontend.moves import Scatter, gather, is_all, scatter
from columba.frontend.record import Recorder
from columba.frontend.recorded import Record, meta_tensor
from columba.frontend.structure import RANDOM, Call, Structure
from columba.frontend.trees import leaves, mapped

T = TypeVar("T")


@dataclass(frozen=True)
class Cut:
    """Some of the rows of whatever has as many.

    Attributes:
        key: what is equal for equal cuts.
        op, args: the function of one tensor that takes them, as it is recorded, and its arguments.
        function: the same, of tensors.
        part: which of several results.
        of_integers: another function with its arguments, which takes the same rows of integers, or fails where they are not so many.
    """

    key: Hashable
    op: str
    args: tuple[Any, ...]
    function: Callable[..., Any]
    part: int | None = None
    of_integers: tuple[Any, ...] = ()

    def of_index(self, index: Record) -> Call:
        """The call that takes them of integers."""
        function, *args = self.of_integers or (self.function, *self.args)
        return Call(_taken, (function, self.part, index, *args), {})

    def of(self, x: Record) -> list[Record]:
        """What PyTorch takes of anything else: the last one; what it is computed from stands before."""
        with torch._C.DisableTorchFunction():
            found = self.function(x.meta, *mapped(_plain, self.args))
        metas = found if isinstance(found, (tuple, list)) else (found,)
        metas = [meta_tensor(m.shape, m.dtype) for m in metas]
        whole = Record(self.op, (x, *self.args), {}, metas[0], x.where, self.function)
        if self.part is None:
            return [whole]
        return [whole, Record("part", (whole, self.part), {}, metas[self.part], x.where, operator.getitem)]

    def rows(self, x: Record) -> int:
        return int(self.of(x)[-1].meta.shape[0])


def _taken(function: Callable[..., Any], part: int | None, x: torch.Tensor, *args: Any) -> Any:
    found = function(x, *args)
    return found if part is None else found[part]


def _plain(x: Any) -> Any:
    if isinstance(x, slice):
        return slice(_plain(x.start), _plain(x.stop), _plain(x.step))
    return int.__int__(x) if isinstance(x, RowCount) else x


def _key(x: Any) -> Hashable:
    if isinstance(x, slice):
        return "slice", _key(x.start), _key(x.stop), _key(x.step)
    if isinstance(x, (tuple, list)):
        return tuple(map(_key, x))
    return ("count", x.of) if isinstance(x, RowCount) else (type(x), x)


def _cut(op: str, function: Callable[..., Any], *args: Any, part: int | None = None) -> Cut:
    return Cut((op, _key(args), part), op, args, function, part)


def _of_slice(rows: slice) -> Cut:
    return _cut("__getitem__", operator.getitem, rows)


def _one_of_each(x: torch.Tensor, groups: int, size: int, place: int) -> torch.Tensor:
    """The row at a place in each of so many groups of rows that follow each other."""
    return x.view(groups, size, *x.shape[1:])[:, place]


def _of_groups(groups: Any, size: int, place: int) -> Cut:
    rows = slice(place % size, None, size)
    key = "groups", _key(groups), size, place % size
    return Cut(key, "__getitem__", (rows,), operator.getitem, None, (_one_of_each, groups, size, place % size))


def _groups(record: Record) -> tuple[Record, Any, int] | None:
    """Of a view ``[groups, size, ...]`` of rows ``[groups * size, ...]``: of what, how many groups, and their size."""
    x, shape = record.operands[0] if record.operands else record, tuple(record.meta.shape)
    if record.op not in ("view", "reshape") or record.kwargs or len(shape) != x.meta.dim() + 1:
        return None
    groups, size = _sizes(record)[:2]
    if shape[2:] != tuple(x.meta.shape[1:]) or type(size) is not int or size < 1 or not _varies(groups):
        return None
    return x, groups, size


def _sizes(view: Record) -> Sequence[Any]:
    given = view.args[1:]
    return given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given


def _varies(rows: Any) -> bool:
    """Whether a size that a view is given is that of each call, and no number."""
    return isinstance(rows, RowCount) or rows == -1


def _grouped(x: Record) -> list[Record] | None:
    """The rows of which each group is made whose rows a record has one after the other: ``torch.stack([a, b], 1).view(-1, n)``."""
    whole = x.operands[0] if x.operands else x
    if x.op not in ("view", "reshape", "flatten") or whole.op != "stack":
        return None
    parts, dim = whole.args[0], whole.kwargs.get("dim", whole.args[1] if len(whole.args) > 1 else 0)
    flattens = x.op == "flatten" and x.args[1:] == (0, 1) and not x.kwargs
    if dim != 1 or x.meta.shape[1:] != whole.meta.shape[2:] or not (flattens or (_sizes(x) and _varies(_sizes(x)[0]))):
        return None
    return list(parts)


def cut_of(record: Record) -> tuple[Record, Cut, tuple[Any, ...]] | None:
    """What some rows are taken of, which, and what of their features; None where it is something else that is computed."""
    args, of = record.args, record.operands[0] if record.operands else record
    if record.op == "__getitem__":
        rows, *features = args[1] if isinstance(args[1], tuple) and args[1] else (args[1],)
        if isinstance(rows, slice) and not is_all(rows) and isinstance(args[0], Record):
            bounds = (rows.start, rows.stop, rows.step)
            rest = () if all(map(is_all, features)) else tuple(features)
            return (of, _of_slice(rows), rest) if all(n is None or isinstance(n, int) for n in bounds) else None
        if features and type(features[0]) is int and is_all(rows) and (found := _groups(of)) is not None:
            rest = () if all(map(is_all, features[1:])) else tuple(features[1:])
            return found[0], _of_groups(*found[1:], features[0]), rest
    elif record.op == "select" and type(args[-1]) is int and args[1:-1] == (1,) and (found := _groups(of)) is not None:
        return found[0], _of_groups(*found[1:], args[-1]), ()
    elif record.op == "narrow" and len(args) == 4 and not record.kwargs and args[1] == 0:
        return (of, _cut("narrow", torch.narrow, *args[1:]), ()) if len(record.operands) == 1 else None
    elif record.op == "part" and of.op in ("chunk", "split", "tensor_split"):
        dim = of.kwargs.get("dim", of.args[2] if len(of.args) > 2 else 0)
        if dim == 0 and len(of.args) > 1 and len(of.operands) == 1:
            return of.args[0], _cut(of.op, getattr(torch, of.op), of.args[1], part=args[1]), ()
    elif record.op == "part" and of.op == "unbind" and (of.args[1:] == (1,) or of.kwargs == {"dim": 1}):
        found = _groups(of.operands[0])
        return None if found is None else (found[0], _of_groups(*found[1:], args[1]), ())
    return None


def chosen_by(x: Record, structure: Structure) -> Record | None:
    """The integers by which rows were chosen of which a record's are computed, one for one; None if that is not so."""
    seen: set[Record] = set()
    pending = [x]
    while pending:
        x = pending.pop()
        if x in seen or x.source is not None or x in structure.values:
            continue
        seen.add(x)
        move = gather(x, structure)
        if move is not None:
            return move.index
        x = x.operands[0] if x.op == "part" else x
        if x.graph is None and x.meta.dim() and x.meta.shape[0] != 1 and keeps_rows(x):
            pending += [o for o in row_operands(Spaces(), x) if o.meta.shape[0] == x.meta.shape[0]]
    return None


def move_pieces(recorder: Recorder, wanted: Iterable[Record]) -> None:
    """Rewrites the records of a trace.

    Args:
        recorder: of the function that has run.
        wanted: what is computed for its own sake: it stays.
    """
    if any(cut_of(record) is not None or record.op in (*_JOINS, "stack") for record in recorder.records):
        _Pieces(recorder, set(wanted)).rewrite()


_JOINS = ("set_items", "cat", "concat", "concatenate")

_FRESH = tuple(f"{p}{name}{s}" for name in ("empty", "zeros") for p, s in (("", ""), ("", "_like"), ("new_", "")))
"""Functions that give a tensor whose rows add nothing to a sum until something is written to them."""

_SHAPED_AS = ("expand_as", "view_as", "reshape_as", "type_as")
"""Functions that take only the shape of their second argument, or its dtype."""

Joined = list[tuple[Cut, Record]]
"""What a tensor is put together of: which of its rows are the rows of what."""


class _Pieces:
    def __init__(self, recorder: Recorder, wanted: set[Record]) -> None:
        self.recorder, self.structure, self.wanted = recorder, recorder.structure, wanted
        self.live = _reached(wanted)
        self.users: dict[Record, list[Record]] = {}
        for record in recorder.records:
            if record in self.live:
                for operand in dict.fromkeys(record.operands):
                    self.users.setdefault(operand, []).append(record)
        self.made: list[Record] = []
        self.pieces: dict[tuple[Record, Hashable], Record] = {}
        self.known: dict[tuple[str, Record], Any] = {}
        self.by_pieces: set[Record] = set()

    def rewrite(self) -> None:
        rewritten: list[Record] = []
        for record in list(self.recorder.records):
            if record in self.live and record not in self.structure.values:
                self._rewrite(record)
                for one in self.made:
                    one.number = record.number
                rewritten += self.made
                self.made = []
            rewritten.append(record)
        self.recorder.records = rewritten

    def _rewrite(self, record: Record) -> None:
        found = cut_of(record)
        if found is not None and record not in self.wanted:
            x, cut, features = found
            if self._is_taken_apart(x) and self._stays_rows(record):
                if features:
                    piece = self._piece(x, cut)
                    _become(record, "__getitem__", (piece, (slice(None), *features)), operator.getitem)
                else:
                    self._piece(x, cut, into=record)
            return
        move = scatter(record, self.structure)
        pieces = self._joined(move.source) if move is not None and move.kind == "sum" else None
        if move is not None and pieces and any(self._index(piece) is not None for _, piece in pieces):
            self._sum(record, move, pieces)

    # -------------------------------------------------------------------------------------------- what there is

    def _once(self, question: str, x: Record, find: Callable[[Record], T], meanwhile: T | None = None) -> T:
        """What is found out of a record, once; ``meanwhile`` is what it is taken for until it is known."""
        if (question, x) not in self.known:
            self.known[question, x] = meanwhile
            self.known[question, x] = find(x)
        known: T = self.known[question, x]
        return known

    def _uses(self, x: Record) -> list[Record]:
        """What is computed of the numbers of a record: the parts that it is split into, in the place of all of them."""
        found: list[Record] = []
        for user in self.users.get(x, ()):
            parts = [part for part in self.users.get(user, ()) if part.op == "part"]
            is_shape = user in self.structure.values or (user.op in _SHAPED_AS and user.args[0] is not x)
            found += [] if is_shape else parts or self._of_groups(user, x) or [user]
        return found

    def _of_groups(self, view: Record, x: Record) -> list[Record]:
        """What is taken of groups of rows, if nothing else is done with them."""
        if view in self.wanted or _groups(view) is None:
            return []
        found = self._uses(view)
        cuts = [cut_of(use) for use in found]
        return found if all(cut is not None and cut[0] is x for cut in cuts) else []

    def _is_taken_apart(self, x: Record) -> bool:
        """Whether pieces are all that is needed of rows that were gathered, or computed of such."""
        if gather(x, self.structure) is not None:
            return x not in self.wanted
        if not self._is_only_cut(x) or not self._is_gathered(x):
            return False
        return all(self._is_taken_apart(o) or not self._is_gathered(o) for o in self._carriers(x))

    def _is_only_cut(self, x: Record) -> bool:
        """Whether the rows that a record computes are only taken in pieces, each of them once."""

        def find(x: Record) -> bool:
            if x in self.wanted or not self._acts_on_rows(x):
                return False
            cuts: dict[Hashable, int] = {}
            for user in self._uses(x):
                found = cut_of(user)
                if found is not None and found[0] is x and user not in self.wanted and self._stays_rows(user):
                    cuts[found[1].key] = found[1].rows(x)
                elif user not in self.by_pieces and not self._is_only_cut(user):
                    return False
            return sum(cuts.values()) <= x.meta.shape[0]

        return bool(self._once("only cut", x, find, False))

    def _stays_rows(self, x: Record) -> bool:
        """Whether programs can compute what is computed of a piece, up to where rows are put together."""

        def find(x: Record) -> bool:
            for user in self._uses(x):
                is_joined = (
                    user.op in (*_JOINS, "stack")
                    or cut_of(user) is not None
                    or scatter(user, self.structure) is not None
                )
                is_known = (user.op == "part" or user.op in self.recorder.known) and self._acts_on_rows(user)
                if not is_joined and not (is_known and self._stays_rows(user)):
                    return False
            return True

        return bool(self._once("stays rows", x, find, True))

    def _is_gathered(self, x: Record) -> bool:
        return self._index(x) is not None

    def _index(self, x: Record) -> Record | None:
        return self._once("index", x, lambda x: chosen_by(x, self.structure))

    def _acts_on_rows(self, x: Record) -> bool:
        """Whether a record computes of each row of its operands one of its own, and of pieces the same."""
        if x.op == "part":
            return self._acts_on_rows(x.operands[0])
        if x.source is not None or x.graph is not None or x.function is None or x.op in RANDOM or not x.operands:
            return False
        if x in self.structure.values or x in self.recorder.between:
            return False
        if not x.meta.dim() or x.meta.shape[0] == 1 or not keeps_rows(x):
            return False
        sizes = [n for n in leaves((x.args, x.kwargs)) if isinstance(n, RowCount)]
        return all(int.__int__(n) == x.meta.shape[0] for n in sizes) and bool(self._carriers(x))

    def _carriers(self, x: Record) -> list[Record]:
        """The operands whose rows those of a record are computed of, one for one."""
        if x.op == "part":
            return self._carriers(x.operands[0])
        found = row_operands(Spaces(), x)
        return list(dict.fromkeys(o for o in found if o.meta.dim() and o.meta.shape[0] == x.meta.shape[0]))

    # -------------------------------------------------------------------------------------------- slices

    def _piece(self, x: Record, cut: Cut, into: Record | None = None) -> Record:
        """Some rows of a record; written down as ``into``, if that is given."""
        known = self.pieces.get((x, cut.key))
        if known is not None and into is None:
            return known
        if x in self.structure.values:
            piece = self._structural(cut.of_index(x))
        elif (move := gather(x, self.structure)) is not None:
            index = self._structural(cut.of_index(move.index))
            args = (move.table, 0, index)
            piece = self._record("index_select", args, {}, x, index.meta.shape[0], torch.index_select, into)
        elif self._is_only_cut(x):
            piece = self._computed(x, {o: self._piece(o, cut) for o in self._carriers(x)}, into)
        else:  # of something else than edges: PyTorch takes it
            found = cut.of(x)
            self.made += found
            self.recorder.between.update(found)
            piece = found[-1]
        self.pieces[x, cut.key] = piece
        return piece

    def _computed(self, x: Record, of: dict[Record, Record], into: Record | None = None) -> Record:
        """What a record computes of its operands' rows, of pieces of them."""
        carrier = next(iter(of.values()))
        if x.op == "part":
            of = {x.operands[0]: self._computed(x.operands[0], of)}

        def taken(arg: Any) -> Any:
            if isinstance(arg, RowCount):
                return RowCount(carrier.meta.shape[0], carrier, self.recorder)
            return of.get(arg, arg) if isinstance(arg, Record) else arg

        args, kwargs = mapped(taken, (x.args, x.kwargs))
        return self._record(x.op, args, kwargs, x, carrier.meta.shape[0], x.function, into)

    # -------------------------------------------------------------------------------------------- joins

    def _sum(self, record: Record, move: Scatter, pieces: Joined) -> None:
        """Sums pieces, each by its own integers."""
        base, total = record.args[0], None
        for n, (cut, piece) in enumerate(pieces):
            index = self._structural(cut.of_index(move.index))
            last = record if n == len(pieces) - 1 and total is None else None
            args = (base, 0, index, piece)
            one = self._record("index_add", args, {}, record, record.meta.shape[0], torch.index_add, last)
            if total is not None:
                last = record if n == len(pieces) - 1 else None
                one = self._record("add", (total, one), {}, record, record.meta.shape[0], torch.add, last)
            total = one

    def _joined(self, x: Record) -> Joined | None:
        """The pieces that a tensor is put together of, if all that is done with it can be done with them."""

        def find(x: Record) -> Joined | None:
            if not self._is_only_summed(x):
                return None
            if x.op == "set_items":
                return self._written(x)
            if x.op in ("cat", "concat", "concatenate"):
                return self._concatenated(x)
            if (parts := _grouped(x)) is not None:
                alone = self._uses(x.operands[0]) == [x] and x.operands[0] not in self.wanted
                same = all(p.meta.dtype is x.meta.dtype for p in parts)
                return [(_of_groups(-1, len(parts), n), p) for n, p in enumerate(parts)] if alone and same else None
            return self._computed_of_joins(x) if self._acts_on_rows(x) else None

        return self._once("joined", x, find)

    def _is_only_summed(self, x: Record) -> bool:
        def find(x: Record) -> bool:
            if x in self.wanted:
                return False
            for user in self._uses(x):
                move = scatter(user, self.structure)
                is_sum = move is not None and move.kind == "sum" and move.source is x
                if not is_sum and not (self._acts_on_rows(user) and self._is_only_summed(user)):
                    return False
            return True

        return bool(self._once("only summed", x, find, False))

    def _written(self, x: Record) -> Joined | None:
        """What was written into rows of a tensor that was made for that, if no row was written to twice."""
        pieces: Joined = []
        while x.op == "set_items":
            base, index, value = x.args
            rows, *features = index if isinstance(index, tuple) and index else (index,)
            if not isinstance(rows, slice) or not all(map(is_all, features)) or not isinstance(value, Record):
                return None
            if pieces and (x in self.wanted or len(self._uses(x)) > 1):
                return None
            cut = _of_slice(rows)
            shape = (cut.rows(x), *x.meta.shape[1:])
            if tuple(value.meta.shape) != shape or value.meta.dtype is not x.meta.dtype or shape[0] == 1:
                return None  # one row may stand for many
            pieces.insert(0, (cut, value))
            x = base
        fresh = x.op in _FRESH and not x.kwargs.get("requires_grad") and x not in self.wanted
        alone = fresh and len(self._uses(x)) == 1
        return pieces if alone and _are_disjoint(_slices(pieces)) else None

    def _concatenated(self, x: Record) -> Joined | None:
        dim = x.kwargs.get("dim", x.kwargs.get("axis", x.args[1] if len(x.args) > 1 else 0))
        parts = x.args[0]
        if dim != 0 or not all(isinstance(p, Record) and p.meta.dtype is x.meta.dtype for p in parts):
            return None
        counts = [self._count(part) for part in parts]
        if any(count is None for count in counts) or any(p.meta.dim() != x.meta.dim() for p in parts):
            return None
        return [(_cut("split", torch.split, counts, part=n), part) for n, part in enumerate(parts)]

    def _count(self, x: Record) -> RowCount | None:
        """The number of rows of a record as a call knows it beforehand."""
        index = self._index(x)
        if index is not None:
            return RowCount(x.meta.shape[0], Extent(index, 0), self.recorder)
        origin = origin_of_rows(x)
        return RowCount(x.meta.shape[0], origin, self.recorder) if origin.source is not None else None

    def _computed_of_joins(self, x: Record) -> Joined | None:
        of = {o: self._joined(o) for o in self._carriers(x)}
        found = [pieces for pieces in of.values() if pieces]
        if not found or len({tuple(cut.key for cut, _ in pieces) for pieces in found}) > 1:
            return None
        if not all(
            _are_all(_slices(pieces)) for pieces in found
        ):  # of the others something else than 0 may be computed
            return None
        computed: Joined = []
        self.by_pieces.add(x)
        for n, (cut, _) in enumerate(found[0]):
            pieces = {o: joined[n][1] if joined else self._piece(o, cut) for o, joined in of.items()}
            computed.append((cut, self._computed(x, pieces)))
        return computed

    # -------------------------------------------------------------------------------------------- records

    def _record(
        self,
        op: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        like: Record,
        rows: int,
        function: Callable[..., Any] | None,
        into: Record | None,
    ) -> Record:
        """A record of another one's features, and of so many rows: a new one, or what stands there in the place of ``into``."""
        if into is not None:
            _become(into, op, args, function, kwargs)
            return into
        meta = meta_tensor((rows, *like.meta.shape[1:]), like.meta.dtype)
        self.made.append(Record(op, args, kwargs, meta, like.where, function))
        return self.made[-1]

    def _structural(self, call: Call) -> Record:
        made = self.recorder.structural(call, "piece")
        self.recorder.records.pop()
        self.made.append(made)
        return made


def _become(
    record: Record,
    op: str,
    args: tuple[Any, ...],
    function: Callable[..., Any] | None,
    kwargs: dict[str, Any] | None = None,
) -> None:
    """Writes another call of the same result in the place of a record."""
    record.op, record.args, record.kwargs, record.function = op, args, kwargs or {}, function
    record.__dict__.pop("operands", None)


def _reached(wanted: Iterable[Record]) -> set[Record]:
    found: set[Record] = set()
    stack = list(wanted)
    while stack:
        record = stack.pop()
        if record not in found:
            found.add(record)
            stack += record.operands
    return found


def _slices(pieces: Joined) -> list[slice]:
    """Which rows pieces are, where slices say it; the pieces of a concatenation are all rows."""
    return [cut.args[0] for cut, _ in pieces if cut.op == "__getitem__"]


def _are_all(rows: Sequence[slice]) -> bool:
    """Whether disjoint slices are all rows, however many there are."""
    if not rows or (len(rows) == 2 and rows[0].step in (None, 1)):
        return True
    return len(rows) > 1 and len(rows) == rows[0].step


def _are_disjoint(rows: Sequence[slice]) -> bool:
    """Whether no row is in two slices, however many rows there are."""
    if len(rows) == 1:
        return True
    steps = [1 if s.step is None else s.step for s in rows]
    starts = [0 if s.start is None else s.start for s in rows]
    if all(type(n) is int for n in (*steps, *starts)) and all(s.stop is None for s in rows) and len(set(steps)) == 1:
        return all(0 <= n < steps[0] for n in starts) and len(set(starts)) == len(starts)
    first, *others = sorted(rows, key=lambda s: s.start is not None)
    if len(others) != 1 or set(steps) != {1}:
        return False
    (last,) = others
    return first.start is None and last.stop is None and first.stop is not None and _key(first.stop) == _key(last.start)
