"""The C++ executable: runs plans: allocates their buffers, and calls their kernels."""

from __future__ import annotations

import ctypes
import functools
import math
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from columba.codegen.cpp import Stage, emit, emit_parts, stages
from columba.ir.counts import SPACES, Counts
from columba.ir.plan.kernels import Buffer, HostCall
from columba.ir.plan.plan import Plan
from columba.ir.spaces import WEIGHT_SPACES, Space
from columba.ir.types import DType
from columba.runtime.build import BuildError, build_emitted
from columba.runtime.cpp.memory import ALIGNMENT, Pooled, pooled, scratch
from columba.runtime.cpp.placement import MemoryLayout, Placement
from columba.runtime.dtypes import torch_dtype
from columba.runtime.executable import Executable, Expected, HostRunner, Launcher, check_inputs, collecting
from columba.runtime.offsets import aligned
from columba.runtime.structure import located

SMALL = 2**17
"""Calls that touch fewer elements than this run on one thread: waking another costs more than it does."""


FEW_GRAPHS = 4
"""Graphs that a plan has a layout of memory for each of. If there come more, then there come many: a new one at every step."""

ROOMY = 2**26
"""Bytes of temporaries up to which graphs share a layout: it takes as long to compute as kernels that write so much."""

CPU = torch.device("cpu")


class KernelError(RuntimeError):
    """A kernel could not do its work (it ran out of memory)."""


class CppExecutable(Executable):
    """The built kernels of some plans."""

    def __init__(self, plans: Sequence[Plan], index_dtype: DType, texts: Sequence[str] | None = None) -> None:
        self.plans = tuple(plans)
        texts = [str(plan) for plan in plans] if texts is None else texts
        self._emitted = index_dtype
        with ThreadPoolExecutor() as pool:  # the compiler runs in a process of its own for each plan
            libraries = list(pool.map(self._build, plans, texts))
        self.index_dtype = torch_dtype(index_dtype)
        self.runners = {p.name: _PlanRunner(p, library) for p, library in zip(plans, libraries, strict=True)}

    def _build(self, plan: Plan, text: str) -> ctypes.CDLL:
        return build_emitted(f"{self._emitted}\n{text}", lambda: emit_parts(plan, self._emitted))

    @functools.cached_property
    def source(self) -> str:
        """The source of all kernels."""
        return "\n".join(emit([plan], self._emitted) for plan in self.plans)

    def bind(
        self,
        plan: str,
        index: Sequence[Tensor],
        counts: Sequence[int],
        host: HostRunner | None = None,
    ) -> CppLauncher:
        """The plan prepared for one graph, to be called many times."""
        return CppLauncher(self.runners[plan], index, counts, host)


class _PlanRunner:
    """One plan with its entries looked up."""

    def __init__(self, plan: Plan, library: ctypes.CDLL) -> None:
        self.plan = plan
        self.position = {b: n for n, b in enumerate(plan.buffers)}
        self.steps: list[tuple[Callable[..., int], Stage] | HostCall] = []
        for step in stages(plan):
            self.steps.append(step if isinstance(step, HostCall) else (_entry(library, step), step))
        self.has_host_calls = any(isinstance(step, HostCall) for step in self.steps)
        self.placement = placement = Placement(plan)
        self.tensors = placement.tensors
        self.temporaries = [self.position[b] for b in placement.temporaries]
        self.from_host = placement.from_host
        self.numbered = (*plan.inputs, *self.tensors)
        self.elements = _elements(plan)
        self.signature = _Signature(self, ())
        self.packed: dict[tuple[tuple[int, ...], tuple[int, ...]], _Signature | None] = {}
        self.graphs = 0
        self.roomy: dict[int, tuple[Sequence[int], MemoryLayout]] = {}

    def layout(self, rows: Sequence[int], spare: tuple[int, ...], threads: int) -> MemoryLayout:
        """Where buffers stand on a graph with these rows: for the first graphs as densely as they can, then mostly where they stood."""
        self.graphs += 1
        if self.graphs > FEW_GRAPHS:
            roomy = self._roomy(rows, threads)
            if roomy.size <= ROOMY:
                return roomy
        return self.placement.layout(Counts(rows), spare, threads)

    def _roomy(self, rows: Sequence[int], threads: int) -> MemoryLayout:
        """The layout of the last graphs if there is room in it for this one; or one with room for all of them, and a quarter more."""
        limits, found = self.roomy.get(threads, (rows, None))
        if found is None or any(map(operator.gt, rows, limits)):
            limits = [max(limit, n + n // 4) for limit, n in zip(limits, rows, strict=True)]
            found = self.placement.roomy_layout(Counts(limits), threads)
            self.roomy[threads] = limits, found
        return found

    def packed_signature(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> _Signature | None:
        """What calls take and make with these inputs, or these outputs, in one tensor, if they can be, and there are several."""
        key = inputs, outputs
        if key not in self.packed:
            plan = self.plan
            buffers = (*(plan.inputs[n] for n in inputs), *(plan.outputs[n] for n in outputs))
            own = {*(plan.inputs if inputs else self.tensors)}
            fit = not self.from_host and not (inputs and outputs) and len({*buffers}) >= max(2, len(buffers))
            self.packed[key] = _Signature(self, buffers) if fit and {*buffers} <= own else None
        return self.packed[key]


def _elements(plan: Plan) -> list[tuple[int, int]]:
    """How many elements the buffers with a row per row of the graph have: by the places of spaces, what a row of each adds."""
    found: dict[int, int] = {}
    for b in plan.buffers:
        if b.type.space not in WEIGHT_SPACES:
            place = SPACES.index(b.type.space)
            found[place] = found.get(place, 0) + b.type.size
    return list(found.items())


class _Kind(NamedTuple):
    """A tensor that a call takes or makes, on any graph: features of each row of a space, by its place, or plain (None). Without features
    it is the one that packed buffers stand in."""

    name: str
    dtype: torch.dtype
    space: int | None
    features: tuple[int, ...] | None
    size: int

    @classmethod
    def of(cls, buffer: Buffer | None) -> _Kind:
        if buffer is None:
            return cls("saved", torch.uint8, None, None, 1)
        t = buffer.type
        dtype, place = torch_dtype(t.dtype), None if t.space is Space.ONE else SPACES.index(t.space)
        return cls(buffer.name, dtype, place, t.shape, t.size * dtype.itemsize)

    def shape(self, rows: Sequence[int], packed: int) -> tuple[int, ...]:
        if self.features is None:
            return (packed,)
        return self.features if self.space is None else (rows[self.space], *self.features)

    def allocation(self, rows: Sequence[int], packed: int) -> _Allocation:
        many = packed if self.features is None else 1 if self.space is None else rows[self.space]
        return _Allocation(self.dtype, self.shape(rows, packed), many * self.size)


class _Signature:
    """What calls of a plan take and make, and where pointers to it stand, on any graph.

    Buffers that are ``packed`` stand in one tensor of bytes, one after the other, which comes last.
    """

    def __init__(self, runner: _PlanRunner, packed: tuple[Buffer, ...]) -> None:
        plan = runner.plan
        inputs, made, outputs = (_unpacked(b, packed) for b in (plan.inputs, runner.tensors, plan.outputs))
        self.inputs, self.made = [_Kind.of(b) for b in inputs], [_Kind.of(b) for b in made]
        number = {b: n for n, b in enumerate((*inputs, *made, *runner.from_host))}
        self.number = number
        self.slots = [runner.position[packed[0] if b is None else b] for b in (*inputs, *made)]
        self.first_slots = len(self.slots) if self.slots == list(range(len(self.slots))) else 0
        self.outputs = [number[b] for b in outputs]
        self.packed = [_Kind.of(b) for b in packed]
        self.packed_slots = [runner.position[b] for b in packed[1:]]
        self.layouts: dict[int, _SharedLayout] = {}  # the last one, for each number of threads
        order = {b: n for n, b in enumerate(packed)}
        self.places = [(number[None], order[b]) if b in order else (number[b], None) for b in runner.numbered]

    def offsets(self, rows: Sequence[int]) -> list[int]:
        """Where in their tensor packed buffers begin, and how large it is."""
        found, at = [], 0
        for kind in self.packed:
            found.append(at)
            at += aligned(kind.size if kind.space is None else kind.size * rows[kind.space], ALIGNMENT)
        return [*found, at]


def _unpacked(buffers: Sequence[Buffer], packed: Sequence[Buffer]) -> list[Buffer | None]:
    """The buffers that are not packed, and None for the tensor of those that are, if any is."""
    found: list[Buffer | None] = [b for b in buffers if b not in packed]
    return found if len(found) == len(buffers) else [*found, None]


class CppLauncher(Launcher):
    """A plan on one graph: all that does not change from call to call is in place. Calls may overlap, from several threads.

    Call it with tensors for ``plan.inputs``; it returns those of ``plan.outputs``. What only some launchers are asked for is made when they
    are: of the two that a direction has where it packs saved values, one checks inputs and the other runs.
    """

    def __init__(
        self,
        runner: _PlanRunner,
        index: Sequence[Tensor],
        counts: Sequence[int],
        host: HostRunner | None,
        signature: _Signature | None = None,
        other: CppLauncher | None = None,
    ) -> None:
        if host is None and runner.has_host_calls:
            raise ValueError(f"plan {runner.plan.name} has host calls; give run(host=...)")
        self.runner, self.host, self.rows, self.index = runner, host, counts, index
        self.signature = signature = runner.signature if signature is None else signature
        self.offsets = signature.offsets(counts) if signature.packed else _NOTHING_PACKED
        if other is None:
            addresses, lengths = located(index)
            self.arrays = (ctypes.c_void_p * max(1, len(index)))(*addresses)
            self.sizes = (ctypes.c_int64 * (len(counts) + len(index)))(*counts, *[n // 3 for n in lengths])
            # How much a call reads and writes, in elements.
            self.is_small = sum([counts[place] * each for place, each in runner.elements]) + sum(lengths) < SMALL
        else:
            self.arrays, self.sizes, self.is_small = other.arrays, other.sizes, other.is_small
        self.arrays_at, self.sizes_at = ctypes.addressof(self.arrays), ctypes.addressof(self.sizes)
        self.checks: list[Expected] | None = None
        self.made: list[_Allocation] | None = None
        self.has_run = False
        self.patterns: list[Tensor] = []
        self.slots, self.first_slots, self.outputs = signature.slots, signature.first_slots, signature.outputs
        self.layouts: dict[tuple[int, tuple[int, ...]], _PointerLayout] = {}

    def _layout(self, threads: int, spare: tuple[int, ...]) -> _PointerLayout:
        signature, offsets = self.signature, self.offsets
        if self.made is None:
            self.made = [kind.allocation(self.rows, offsets[-1]) for kind in signature.made]
        memory = self.runner.layout(self.rows, spare, threads)
        found = signature.layouts.get(threads)
        if found is None or found.memory is not memory:
            found = signature.layouts[threads] = _SharedLayout(self.runner, signature, memory)
        return self.layouts.setdefault((threads, spare), found.on(offsets, self.made))

    def packed(self, *, inputs: Sequence[int] = (), outputs: Sequence[int] = ()) -> CppLauncher | None:
        """See :meth:`Launcher.packed`.

        Where calls are small, making a tensor takes as long as a kernel; elsewhere each is better freed alone.
        """
        if not self.is_small:
            return None
        signature = self.runner.packed_signature(tuple(inputs), tuple(outputs))
        if signature is None:
            return None
        return CppLauncher(self.runner, self.index, self.rows, self.host, signature, other=self)

    def unpacked(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """See :meth:`Launcher.unpacked`."""
        found = []
        for (n, part), b in zip(self.signature.places, self.runner.plan.inputs, strict=False):
            if part is None:
                found.append(inputs[n])
                continue
            begin, allocation = self.offsets[part], _Kind.of(b).allocation(self.rows, 0)
            piece = inputs[n][begin : begin + allocation.size]
            found.append(piece.view(allocation.dtype).view(allocation.shape))
        return found

    def run(self, inputs: Sequence[Tensor], spare: tuple[int, ...] = ()) -> list[Tensor]:
        """The outputs for inputs that passed :meth:`check`, or are known to.

        Temporaries may stand in the memory of the inputs at the positions ``spare``, which must be contiguous, once these have been read,
        and outputs may take it over.
        """
        threads = 1 if self.is_small else torch.get_num_threads()
        layout = self.layouts.get((threads, spare)) or self._layout(threads, spare)
        block = scratch.take(layout.size) if layout.size else None  # before tensors, which find room beside it
        try:
            tensors = [x if x.is_contiguous() else x.contiguous() for x in inputs]
            if layout.made:
                tensors += [
                    pooled.empty(allocation.shape, allocation.dtype)
                    if n is None
                    else _reused_output(tensors[n], allocation)
                    for allocation, n in layout.made
                ]
            elif self.patterns:
                tensors += map(torch.empty_like, self.patterns)
            else:
                tensors += self._empty_tensors()
            try:
                frame = layout.frames.pop()
            except IndexError:
                frame = _Frame(len(self.runner.position))
            pointers = frame.pointers
            if self.first_slots:
                pointers[: self.first_slots] = [x.data_ptr() for x in tensors]  # type: ignore[assignment]  # ctypes takes any sequence
            else:
                for n, x in zip(self.slots, tensors, strict=True):
                    pointers[n] = x.data_ptr()
            if block is not None and frame.base != block.base:
                frame.base = block.base
                for n, offset in layout.in_block:
                    pointers[n] = block.base + offset
            for n, room, offset in layout.in_tensors:
                pointers[n] = tensors[room].data_ptr() + offset
            times = collecting()
            for step in self.runner.steps:
                if isinstance(step, HostCall):
                    self._host(step, tensors, pointers)
                    continue
                call, stage = step
                seconds = None if times is None else (ctypes.c_double * len(stage.kernels))()
                failed = call(frame.address, self.arrays_at, self.sizes_at, threads, seconds)
                if failed:
                    raise KernelError(
                        f"columba: kernel {stage.kernels[failed - 1].name} of {self.runner.plan.name} ran out of memory"
                    )
                if times is not None and seconds is not None:
                    mine = times.setdefault(self.runner.plan.name, {})
                    for kernel, taken in zip(stage.kernels, seconds, strict=True):
                        mine.setdefault(kernel.name, []).append(taken)
            layout.frames.append(frame)
            return [tensors[n] for n in self.outputs]
        finally:
            if block is not None:
                scratch.give(block)

    def _empty_tensors(self) -> list[Tensor]:
        """The tensors that a call makes; the second one makes patterns, from which later ones do in two thirds of the time."""
        made = self.made or []
        if self.has_run and all(allocation.size < Pooled.SMALL for allocation in made):
            self.patterns = [_pattern(allocation.shape, allocation.dtype) for allocation in made]
        self.has_run = True
        small = Pooled.SMALL
        return [
            torch.empty(a.shape, dtype=a.dtype, device=CPU) if a.size < small else pooled.empty(a.shape, a.dtype)
            for a in made
        ]

    def _host(self, step: HostCall, tensors: list[Tensor], pointers: ctypes.Array[ctypes.c_void_p]) -> None:
        """Runs a host call and appends its results to ``tensors``."""
        assert self.host is not None
        results = self.host(step.program, [tensors[self.signature.number[b]] for b in step.args])
        for buffer, result in zip(step.results, results, strict=True):
            tensors.append(result)
            pointers[self.runner.position[buffer]] = result.data_ptr()  # type: ignore[call-overload]

    def check(self, inputs: Sequence[Tensor]) -> None:
        """ValueError if an input has another dtype or shape than the kernels expect."""
        if self.checks is None:
            rows, packed = self.rows, self.offsets[-1]
            self.checks = [(kind.name, kind.dtype, kind.shape(rows, packed)) for kind in self.signature.inputs]
        check_inputs(self.runner.plan.name, inputs, self.checks)


_NOTHING_PACKED = [0]


class _Allocation(NamedTuple):
    """A tensor that a call makes, and its bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    size: int


def _pattern(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor that ``torch.empty_like`` makes contiguous ones of: one element, expanded, where that overlaps itself."""
    return torch.empty(() if math.prod(shape) > 1 else shape, dtype=dtype, device=CPU).expand(shape)


class _PointerLayout:
    """Where the temporaries stand: at offsets in a block of ``size`` bytes, or in the memory of tensors; and frames not in use.

    ``made`` says of the tensors to make which input each takes over the memory of, if any does.
    """

    __slots__ = ("frames", "in_block", "in_tensors", "made", "size")

    def __init__(
        self,
        size: int,
        in_block: list[tuple[int, int]],
        in_tensors: list[tuple[int, int, int]],
        made: list[tuple[_Allocation, int | None]],
        frames: list[_Frame],
    ) -> None:
        self.size, self.in_block, self.in_tensors, self.made, self.frames = size, in_block, in_tensors, made, frames


class _SharedLayout:
    """What of it graphs share as long as they share the layout of memory: all but what stands in packed tensors, or takes over another's
    memory."""

    def __init__(self, runner: _PlanRunner, signature: _Signature, memory: MemoryLayout) -> None:
        self.signature, self.memory = signature, memory
        self.in_block: list[tuple[int, int]] = []
        self.rooms: list[tuple[int, int, int | None, int]] = []
        for n, (room, offset) in zip(runner.temporaries, memory.places, strict=True):
            if room is None:
                self.in_block.append((n, offset))
            else:
                self.rooms.append((n, *signature.places[room], offset))
        self.inputs = len(runner.plan.inputs)
        self.frames: list[_Frame] = []
        varies = signature.packed or memory.reused
        self.same = None if varies else self._on([0], [])

    def on(self, offsets: Sequence[int], made: Sequence[_Allocation]) -> _PointerLayout:
        """Where packed buffers begin at these offsets, and these tensors are made."""
        return self.same or self._on(offsets, made)

    def _on(self, offsets: Sequence[int], made: Sequence[_Allocation]) -> _PointerLayout:
        signature, reused = self.signature, self.memory.reused
        in_tensors = [(n, room, at if part is None else at + offsets[part]) for n, room, part, at in self.rooms]
        if signature.packed:
            packed = signature.number[None]
            begins = zip(signature.packed_slots, offsets[1:], strict=False)
            in_tensors = [*((n, packed, begin) for n, begin in begins), *in_tensors]
        taken_over = [(one, reused.get(self.inputs + n)) for n, one in enumerate(made)] if reused else []
        return _PointerLayout(self.memory.size, self.in_block, in_tensors, taken_over, self.frames)


def _reused_output(giver: Tensor, allocation: _Allocation) -> Tensor:
    """A tensor in the memory of another, which a program has made, so that its storage begins with it, and which nobody will read."""
    # PyTorch's stubs of set_ do not know a storage with strides.
    strides = _strides(allocation.shape)
    return torch.empty(0, dtype=allocation.dtype, device=CPU).set_(
        giver.untyped_storage(), 0, allocation.shape, strides
    )  # type: ignore[call-overload, no-any-return]


class _Frame:
    """The pointers of one call under way. ``base`` is the block that the pointers of temporaries are into."""

    __slots__ = ("address", "base", "pointers")

    def __init__(self, buffers: int) -> None:
        self.pointers = (ctypes.c_void_p * max(1, buffers))()
        self.address = ctypes.addressof(self.pointers)
        self.base = -1


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Those of a contiguous tensor."""
    found = [1]
    for rows in reversed(shape[1:]):
        found.append(found[-1] * max(1, rows))
    return tuple(reversed(found[: len(shape)]))


def _entry(library: ctypes.CDLL, stage: Stage) -> Callable[..., int]:
    try:
        entry = getattr(library, stage.entry)
    except AttributeError as e:
        raise BuildError(f"the library that the C++ compiler made has no function {stage.entry}") from e
    entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    entry.restype = ctypes.c_int
    return entry  # type: ignore[no-any-return]
