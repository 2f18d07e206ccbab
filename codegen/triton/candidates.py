"""The schedules that a kernel can have, for a tuner to try: a few dozen, the default first."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from columba.codegen.triton.gemm import gemm_function, schedule_of_product
from columba.codegen.triton.gemm_reduce import gemm_reduce_functions, schedule_of_outer
from columba.codegen.triton.prepare import scheduled
from columba.codegen.triton.schedule import (
    IllegalSchedule,
    MemberSchedule,
    OuterSchedule,
    ProductSchedule,
    RowSchedule,
    Schedule,
    clamp,
    member_warps,
    power_of_two,
)
from columba.codegen.triton.traversal import (
    least_bytes_of,
    member_bytes_of,
    most_pieces,
    schedule_of_traversal,
    traversal_functions,
    width_of_traversal,
)
from columba.ir.plan.kernels import Gemm, GemmReduce, HostCall, Kernel, Traversal, product_of
from columba.ir.spaces import WEIGHT_SPACES

INTERPRETER = "interpreter"
"""The target whose kernels Triton's interpreter runs: it takes what any GPU takes."""


@dataclass(frozen=True)
class Limits:
    """What a block of threads can have."""

    shared: int  #: bytes of shared memory
    threads: int = 32  #: of a warp
    warps: int = 32
    descriptors: bool = False


def limits_of(target: str) -> Limits:
    """The limits of an architecture: ``sm_80``, ``sm_90``, ``sm_100``, ``gfx942``, other ``sm_*`` and ``gfx*``, or the interpreter.

    From the CUDA C++ Programming Guide (maximum shared memory of a block, by compute capability) and the CDNA 3 and RDNA 3 ISA
    references.
    """
    if target == INTERPRETER:
        return Limits(227 * 1024, descriptors=True)
    if target.startswith("gfx"):
        wide = target.startswith("gfx9")
        return Limits(64 * 1024, threads=64 if wide else 32, warps=16 if wide else 32)
    found = re.fullmatch(r"sm_(\d+)a?", target)
    if found is None:
        raise ValueError(f"unknown GPU architecture {target!r}; e.g. sm_80, sm_90, sm_100, gfx942")
    version = int(found.group(1))
    if version in (90, 100, 103):
        return Limits(227 * 1024, descriptors=True)
    if version in (80, 87):
        return Limits(163 * 1024)
    return Limits((99 if version >= 86 else 64) * 1024, descriptors=version >= 90)


def default_schedule(kernel: Kernel) -> Schedule | None:
    """How a kernel runs where nobody says; None for what PyTorch runs."""
    (first, *_) = scheduled(kernel, None, set())
    match first.kernel:
        case Gemm():
            return schedule_of_product(first.kernel)
        case GemmReduce():
            return schedule_of_outer(first.kernel)
        case Traversal():
            return schedule_of_traversal(first.kernel)
        case HostCall():
            return None


def candidates(kernel: Kernel, target: str = "sm_90") -> tuple[Schedule, ...]:
    """Schedules that a kernel of a plan can have on an architecture, each once, the default first. All of them are legal.

    Those that add by atomic operations, whose results differ from run to run in the last bits, have ``atomic`` set; they are never the
    default.
    """
    default = default_schedule(kernel)
    if default is None:
        return ()
    match kernel:
        case Gemm():
            assert isinstance(default, ProductSchedule)
            tried = _products(kernel, default)
        case GemmReduce():
            assert isinstance(default, OuterSchedule)
            tried = _outer(default)
        case Traversal(via=None):
            tried = _rows(width_of_traversal(kernel), most_pieces(kernel))
        case _:
            assert isinstance(kernel, Traversal)
            tried = _members(kernel, width_of_traversal(kernel))
    found = dict.fromkeys((default, *tried))
    return (default, *(s for s in list(found)[1:] if is_legal(kernel, s, target)))


def is_legal(kernel: Kernel, schedule: Schedule, target: str = "sm_90") -> bool:
    """Whether a kernel can have a schedule on an architecture."""
    try:
        check(kernel, schedule, target)
    except IllegalSchedule:
        return False
    return True


def check(kernel: Kernel, schedule: Schedule, target: str = "sm_90") -> None:
    """Nothing, if a kernel can have a schedule on an architecture.

    Raises:
        IllegalSchedule: it cannot; the message says why.
    """
    limits = limits_of(target)
    for part in scheduled(kernel, schedule, set()):
        match part.kernel, part.schedule:
            case Gemm(), ProductSchedule():
                _check_product(part.kernel, part.schedule, limits)
                gemm_function(part.kernel, "checked", part.schedule)
            case GemmReduce(), OuterSchedule():
                _check_outer(part.kernel, part.schedule, limits)
                gemm_reduce_functions(part.kernel, "checked", part.schedule)
            case Traversal(), _:
                _check_elements(part.kernel, part.schedule, limits)
                traversal_functions(part.kernel, "checked", part.schedule)


ACCUMULATORS = 128
"""The most elements of a product that a thread holds: half of the registers that it can have."""

HELD = 64
"""The most elements of its widest block that a thread of a traversal holds."""


def _check_product(kernel: Gemm, schedule: ProductSchedule, limits: Limits) -> None:
    product = product_of(kernel)
    columns = schedule.columns or power_of_two(product.shape[-1])
    whole = schedule_of_product(kernel)
    lead = 1 if gemm_function(kernel, "checked", whole).fields["matrices"] > 1 else math.prod(product.x.shape[:-1])
    if schedule.descriptors and not limits.descriptors:
        raise IllegalSchedule("descriptors need the tensor memory accelerator of sm_90 and newer")
    size = schedule.rows * columns * power_of_two(lead)
    _check_block(size, schedule.warps, limits, ACCUMULATORS)
    depth = min(schedule.depth, max(16, power_of_two(product.x.shape[-1])))
    _check_staged(schedule.stages * depth * (schedule.rows * lead + columns) * product.dtype.itemsize, limits)


def _check_outer(kernel: GemmReduce, schedule: OuterSchedule, limits: Limits) -> None:
    _check_block(schedule.depth * schedule.columns, schedule.warps, limits, ACCUMULATORS)
    lead = math.prod(kernel.x.shape[:-1]) if kernel.shared else 1
    element = kernel.out.type.dtype.itemsize
    _check_staged(schedule.stages * schedule.rows * lead * (schedule.depth + schedule.columns) * element, limits)


def _check_staged(size: int, limits: Limits) -> None:
    if size > limits.shared:
        raise IllegalSchedule(f"{size} bytes of shared memory for the steps under way; there are {limits.shared}")


def _check_elements(kernel: Traversal, schedule: Schedule | None, limits: Limits) -> None:
    if isinstance(schedule, RowSchedule):
        _check_block(schedule.rows * width_of_traversal(kernel) // schedule.pieces, schedule.warps, limits, HELD)
    if isinstance(schedule, MemberSchedule):
        members = schedule.owners * schedule.members
        _check_block(members * width_of_traversal(kernel), schedule.warps, limits, HELD)
        if schedule.stages > 1:
            _check_staged((schedule.stages - 1) * members * member_bytes_of(kernel), limits)


def _check_block(size: int, warps: int, limits: Limits, most: int) -> None:
    if warps > limits.warps:
        raise IllegalSchedule(f"{warps} warps; a block has at most {limits.warps}")
    if size > most * warps * limits.threads:
        raise IllegalSchedule(f"a block of {size} elements is too large for {warps} warps")


# ------------------------------------------------------------------------------------------------ what is tried


def _products(kernel: Gemm, default: ProductSchedule) -> Iterator[Schedule]:
    width = power_of_two(product_of(kernel).shape[-1])
    for rows, depth, warps in itertools.product((16, 32, 64, 128), (32, 64), (4, 8)):
        yield replace(default, rows=rows, depth=depth, warps=warps)
    yield from (replace(default, stages=n) for n in (2, 4))
    for columns in (32, 64, 128):
        if columns < width:
            yield from (replace(default, columns=columns, rows=rows, group=8, matrices=1) for rows in (64, 128))
    yield replace(default, group=8)
    if default.matrices > 1:
        yield from (replace(default, matrices=n, warps=w) for n, w in ((1, 1), (1, 2), (default.matrices, 2)))
    for base in (default, replace(default, rows=128, warps=8)):
        yield from (replace(base, persistent=n) for n in (1, 2, 4))
        yield replace(base, descriptors=True, matrices=1)
        yield replace(base, descriptors=True, persistent=1, matrices=1)


def _outer(default: OuterSchedule) -> Iterator[Schedule]:
    for summed, rows in itertools.product((256, 1024, 4096), (16, 32, 64)):
        yield replace(default, summed=summed, rows=rows)
    for depth, columns in ((32, 32), (64, 128), (128, 64)):
        yield replace(default, depth=depth, columns=columns)
    yield from (replace(default, warps=n) for n in (2, 8))
    yield from (replace(default, stages=n) for n in (2, 3))


def _rows(width: int, most: int) -> Iterator[Schedule]:
    for elements, held in itertools.product((1024, 2048, 4096), (4, 8, 16)):
        pieces = clamp(width // elements, 1, most)
        yield RowSchedule(max(1, elements // width), clamp(elements // (32 * held), 1, 16), pieces)


def _members(kernel: Traversal, width: int) -> Iterator[Schedule]:
    least = least_bytes_of(kernel)
    low, medium, many = ((16, 2), (32, 1), (8, 4)), ((4, 4), (2, 8), (1, 16)), ((1, 32), (1, 64))
    if kernel.owner not in WEIGHT_SPACES:
        for (owners, members), fewer in itertools.product((*low, *medium, *many), (1, 2)):
            warps = member_warps(owners * members, width, least)
            yield MemberSchedule(owners, members, max(1, warps // fewer))
        for (owners, members), stages in itertools.product(((2, 8), (1, 16), (1, 32)), (2, 3)):
            yield MemberSchedule(owners, members, member_warps(owners * members, width, least), stages=stages)
    for split, atomic, members in itertools.product((64, 256, 1024), (False, True), (16, 64)):
        yield MemberSchedule(1, members, member_warps(members, width, least, most=16), split, atomic)
