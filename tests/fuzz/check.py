"""The oracle: what a case's program means, and whether what the compiler made of it means the same."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from columba.gradient.differentiate import differentiate
from columba.gradient.partition import partition
from columba.ir.program.ops import Constant, Degree, Input, Lift, Value
from columba.ir.program.parsing import parse_program
from columba.ir.program.program import Program
from columba.ir.program.verify import verify
from columba.ir.types import DType
from columba.passes.pipeline import Pass, Pipeline
from columba.runtime.reference import compute, evaluate

from .case import Case
from .graphs import build
from .schedules import Names, parse_pass

TOLERANCE = {DType.F64: 1e-9, DType.F32: 1e-3}
NOISE = {DType.F64: 1e-13, DType.F32: 1e-6}
LARGEST = 1e5
"""Programs with larger numbers than this lose too many digits to be compared."""
TEXT_EVERY = 16
"""In one case of so many, the text form must parse back to an equal program."""


class Reject(Exception):
    """The case says nothing: its numbers are too large, undefined, or depend on rounding."""


@dataclass(frozen=True)
class Failure:
    """What went wrong: ``kind`` is an exception's class or what differs, ``where`` is the place that raised it."""

    kind: str
    where: str
    message: str

    @property
    def signature(self) -> str:
        return f"{self.kind} {self.where}".strip()


@dataclass(frozen=True)
class Numbers:
    """Results and gradients of a program, and the largest magnitude that occurs in computing them."""

    results: list[Tensor]
    gradients: list[Tensor]
    scale: float


def precision(program: Program) -> DType:
    """The narrowest floating dtype that occurs."""
    return DType.F32 if any(v.dtype is DType.F32 for v in program.body) else DType.F64


# ------------------------------------------------------------------------------------------------ the program as it is


def expected(case: Case, noise: int | None = None) -> Numbers:
    """The case's program by the reference, gradients by torch's autograd.

    With ``noise`` (a seed), every operation's result is off by a few units in the last places: what then changes much depends on
    rounding (stochastic arithmetic; Vignes 1993).
    """
    graph, program = build(case.graph), case.program
    inputs = case.inputs()
    leaves = [inputs[name].requires_grad_() for name in case.wrt]
    noisy = None if noise is None else torch.Generator().manual_seed(noise)
    amount = NOISE[precision(program)]
    values: dict[Value, Tensor] = {}
    counts = _counts(program)
    largest = [torch.ones((), dtype=torch.float64)]
    with torch.set_grad_enabled(bool(leaves)):
        for v in program.body:
            if isinstance(v, Input):
                values[v] = inputs[v.name]
                continue
            result = compute(v, graph, [values[c] for c in v.children])  # type: ignore[index]
            if noisy is not None and v.dtype.is_float:
                result = result * (1 + amount * torch.randn(result.shape, generator=noisy, dtype=result.dtype))
            values[v] = result
            if v.dtype.is_float and result.numel() and not isinstance(v, Lift):
                seen = result.detach().abs().max().double()
                largest.append(torch.nan_to_num(seen, posinf=0.0) if v in counts else seen)
    scale = _sane(largest)
    results = [values[r] for r in program.results]
    gradients = _autograd(results, case.directions(), leaves)
    grad_scale = _sane([scale.new_tensor(1.0), *(g.abs().max().double() for g in gradients if g.numel())])
    return Numbers([r.detach() for r in results], gradients, float(torch.maximum(scale, grad_scale)))


def _counts(program: Program) -> set[Value]:
    """What follows from degrees and constants alone. It may be infinite where there are no members, which nobody may notice."""
    found: set[Value] = set()
    for v in program.body:
        if isinstance(v, (Constant, Degree)) or (v.children and all(c in found for c in v.children)):
            found.add(v)
    return found


def _sane(magnitudes: Sequence[Tensor]) -> Tensor:
    largest = torch.stack(list(magnitudes)).max()
    if not largest <= LARGEST:  # NaN too
        raise Reject
    return largest


def _autograd(results: Sequence[Tensor], directions: Sequence[Tensor | None], leaves: list[Tensor]) -> list[Tensor]:
    """Gradients, zero where there are none."""
    used = [(r, d) for r, d in zip(results, directions, strict=True) if d is not None and r.requires_grad]
    if not leaves or not used:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad([r for r, _ in used], leaves, [d for _, d in used], allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


# ------------------------------------------------------------------------------------------------ the program transformed


@dataclass(frozen=True)
class Transformed:
    """The program after its passes, or the joint program after all of them, and the passes that changed something."""

    program: Program
    changed: tuple[str, ...]


def transform(case: Case) -> Transformed:
    """Runs a case's passes on programs, with the gradient between the two sequences."""
    changed: list[str] = []

    def run(passes: Names, program: Program) -> Program:
        def note(p: Pass[Any], before: Program, after: Program) -> None:
            if after is not before:
                changed.append(p.name)

        return verify(Pipeline(map(parse_pass, passes), on_pass=note).run(program))

    program = run(case.first, case.program)
    if case.wrt:
        present = {i.name for i in program.inputs}
        program = run(case.second, differentiate(program, [name for name in case.wrt if name in present]))
    return Transformed(program, tuple(changed))


def run_transformed(case: Case, program: Program) -> dict[str, Tensor]:
    """Results and gradients of what :func:`transform` made, by name."""
    graph = build(case.graph)
    given = case.inputs()
    for result, direction in zip(case.program.result_names, case.directions(), strict=True):
        if direction is not None:
            given[f"grad_{result}"] = direction
    with torch.no_grad():
        if not (case.wrt and case.cut):
            values = evaluate(program, [given[i.name] for i in program.inputs], graph)
            return dict(zip(program.result_names, values, strict=True))
        names = {i.name for i in case.program.inputs}
        inputs = [i.name for i in program.inputs if i.name in names]
        grads = [f"grad_{name}" for name in case.program.result_names]
        parts = partition(program, len(inputs), len(case.program.results))
        forward = evaluate(parts.forward, [given[name] for name in inputs], graph)
        places = {
            "input": lambda n: given[inputs[n]],
            "result": forward.__getitem__,
            "grad": lambda n: given[grads[n]],
        }
        backward = evaluate(parts.backward, [places[kind](n) for kind, n in parts.sources], graph)
        found = dict(zip(parts.forward.result_names, forward, strict=True))
        return {**found, **dict(zip(parts.backward.result_names, backward, strict=True))}


# ------------------------------------------------------------------------------------------------ both


def check(case: Case, transform: Callable[[Case], Transformed] = transform) -> Failure | None:
    """None if the transformed program means what the program means. ``transform`` may be given another one, that watches.

    Raises:
        Reject: the case says nothing.
    """
    try:
        want = expected(case)
    except Reject:
        raise
    except Exception as e:
        return failure_of(e, "reference: ")
    try:
        program = transform(case).program
        if case.seed % TEXT_EVERY == 0 and parse_program(str(program)) != program:
            return Failure("text", "", "the text form does not parse back to an equal program")
        got = run_transformed(case, program)
    except Exception as e:
        return failure_of(e)
    gradients = [got.get(f"grad_{name}", torch.zeros(())) for name in case.wrt]
    return compare(case, want, [got[name] for name in case.program.result_names], gradients)


def compare(case: Case, want: Numbers, results: Sequence[Tensor], gradients: Sequence[Tensor]) -> Failure | None:
    """The first result or gradient that is off by more than rounding explains."""
    tolerance = TOLERANCE[precision(case.program)] * want.scale
    names = [
        *((f"result {name}") for name in case.program.result_names),
        *((f"gradient of {name}") for name in case.wrt),
    ]
    wanted, got = [*want.results, *want.gradients], [*results, *gradients]
    for n, (name, w, g) in enumerate(zip(names, wanted, got, strict=True)):
        if name.startswith("gradient") and g.dim() == 0 and w.dim() and not g.any():
            g = torch.zeros_like(w)  # a gradient that is not there is zero
        if g.shape != w.shape or g.dtype is not w.dtype:
            return Failure("type", name, f"{list(g.shape)} {g.dtype}, expected {list(w.shape)} {w.dtype}")
        error = distance(g, w)
        if error <= tolerance:
            continue
        for seed in range(3):
            noisy = expected(case, noise=seed)
            if distance([*noisy.results, *noisy.gradients][n], w) > error * 1e-2:
                raise Reject
        kind = "wrong gradient" if name.startswith("gradient") else "wrong result"
        return Failure(kind, "", f"{name} is off by {error:.3g} (magnitude {want.scale:.3g})\n{g}\nexpected\n{w}")
    return None


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference; infinite if a number is undefined in one of them only."""
    if not a.numel():
        return 0.0
    if a.dtype is torch.bool:
        return float((a != b).any())
    same = (a == b) | (
        a.isnan() & b.isnan()
    )  # the same infinity on both sides, or no number on either, is no difference
    off = torch.where(same, 0.0, (a - b).abs().double())
    return float(torch.nan_to_num(off.double(), nan=float("inf"), posinf=float("inf")).max())


def failure_of(error: BaseException, prefix: str = "") -> Failure:
    """An exception as a failure; ``where`` is the innermost function of the compiler that it passed through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in f.filename]
    where = next((f for f in reversed(frames) if "/tests/" not in f.filename), frames[-1])
    return Failure(
        f"{prefix}{type(error).__name__}", f"{where.filename.rsplit('/', 1)[-1]}:{where.name}", str(error)[:2000]
    )
