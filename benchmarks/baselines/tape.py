"""Counts what a sequence of tensor operations allocates, moves and computes in PyTorch's eager mode, gradients included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Storage:
    """Memory, freed when nobody holds it any more."""

    size: int
    holders: int = 0


@dataclass(eq=False)
class Value:
    """A tensor: ``size`` bytes of a storage, which a view shares with others."""

    storage: Storage
    size: int
    wants_gradient: bool = False
    is_leaf: bool = False


@dataclass
class Record:
    """An operation that autograd will differentiate."""

    inputs: list[Value]
    outputs: list[Value]
    saved: list[Value]
    flops: float
    hands_on: bool
    temporary: int
    moved: float
    reads: list[int]


@dataclass(frozen=True)
class Totals:
    """The most bytes held at one moment, bytes read and written, and floating-point operations."""

    peak: int
    moved: float
    flops: float


@dataclass
class Tape:
    """Runs operations on sizes.

    An operation reads its inputs and writes its output; what autograd saves is held until the operation's gradient has been taken. A
    value is held by the variable it is bound to until :meth:`drop`.
    """

    training: bool
    held: int = 0
    peak: int = 0
    moved: float = 0.0
    flops: float = 0.0
    records: list[Record] = field(default_factory=list)

    def totals(self) -> Totals:
        return Totals(self.peak, self.moved, self.flops)

    # -------------------------------------------------------------------------------------------- forward

    def leaf(self, size: int, *, gradient: bool = True) -> Value:
        """A parameter or an input (with a gradient), or an index tensor (without): there from the beginning."""
        return Value(self._allocate(size), size, gradient and self.training, True)

    def op(
        self,
        inputs: Sequence[Value],
        size: int,
        *,
        saves: Sequence[Value] = (),
        saves_result: bool = False,
        reads: Sequence[int] | None = None,
        flops: float = 0.0,
        temporary: int = 0,
        view: bool = False,
        hands_on: bool = False,
        backward_temporary: int = 0,
        backward_moved: float = 0.0,
    ) -> Value:
        """One operation.

        Args:
            inputs: what it reads.
            size: bytes of its result.
            saves, saves_result: what autograd keeps for its gradient.
            reads: bytes read of each input, where that is not all of it (rows that are gathered).
            flops: of matrix products; the gradient takes as many for each input that wants one.
            temporary: bytes that it holds while it runs; they are written and read.
            view: the result shares the memory of the first input.
            hands_on: the gradient of each input is (a view of) the gradient of the result, as in an addition.
            backward_temporary, backward_moved: what its gradient holds, and moves, beside gradients.
        """
        wants = self.training and any(v.wants_gradient for v in inputs)
        made = Value(inputs[0].storage if view else self._allocate(size + temporary), size, wants)
        if view:
            self._hold(made.storage)
        elif temporary:
            made.storage.size -= temporary
            self.held -= temporary
        if not view:
            self.moved += sum(reads or [v.size for v in inputs]) + size + 2 * temporary
        self.flops += flops
        if wants:
            kept = [*saves, *([made] if saves_result else [])]
            for v in kept:
                self._hold(v.storage)
            read = [0] * len(inputs) if view else list(reads or [v.size for v in inputs])
            self.records.append(
                Record(list(inputs), [made], kept, flops, hands_on, backward_temporary, backward_moved, read)
            )
        return made

    def split(self, whole: Value, parts: int) -> list[Value]:
        """Views of equal parts; their gradients are joined in a new tensor."""
        made = [Value(whole.storage, whole.size // parts, whole.wants_gradient) for _ in range(parts)]
        for v in made:
            self._hold(v.storage)
        if whole.wants_gradient:
            self.records.append(Record([whole], made, [], 0.0, False, 0, 0.0, [0]))
        return made

    def drop(self, *values: Value) -> None:
        """The variables that held these values are gone."""
        for v in values:
            self._release(v.storage)

    # -------------------------------------------------------------------------------------------- backward

    def backward(self, result: Value) -> None:
        """The gradients of all leaves, from a gradient of ``result``, which is allocated too."""
        if not self.training:
            return
        gradients: dict[Value, Storage] = {result: self._allocate(result.size)}
        while self.records:
            self._differentiate(self.records.pop(), gradients)

    def _differentiate(self, record: Record, gradients: dict[Value, Storage]) -> None:
        given = [gradients.pop(v, None) for v in record.outputs]
        incoming = [g for g in given if g is not None]
        if incoming:
            arriving = sum(v.size for v, g in zip(record.outputs, given, strict=True) if g is not None)
            self._touch(record.temporary)
            self.moved += record.moved
            wanting = [(v, read) for v, read in zip(record.inputs, record.reads, strict=True) if v.wants_gradient]
            for v, _ in wanting:
                if record.hands_on:
                    made = incoming[0]
                    self._hold(made)
                else:
                    made = self._allocate(v.size)
                    self.moved += arriving + sum(s.size for s in record.saved) + v.size
                    self.flops += record.flops
                self._accumulate(v, made, gradients)
        for s in record.saved:
            self._release(s.storage)
        for g in incoming:
            self._release(g)

    def _accumulate(self, v: Value, made: Storage, gradients: dict[Value, Storage]) -> None:
        before = gradients.get(v)
        if before is None:
            gradients[v] = made
            return
        self.moved += 2 * before.size + made.size
        if before.holders > 1:
            gradients[v] = self._allocate(before.size)
            self._release(before)
        self._release(made)

    # -------------------------------------------------------------------------------------------- memory

    def _allocate(self, size: int) -> Storage:
        self._touch(size)
        self.held += size
        return Storage(size, 1)

    def _touch(self, size: int) -> None:
        self.peak = max(self.peak, self.held + size)

    def _hold(self, s: Storage) -> None:
        s.holders += 1

    def _release(self, s: Storage) -> None:
        s.holders -= 1
        if s.holders == 0:
            self.held -= s.size
