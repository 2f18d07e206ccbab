"""What kernels should compute: their plans in float64, and how far a kernel that is right may be from that.

Where a value lies so near to a boundary (of ``relu``, of a maximum) that rounding decides on which side, two right kernels differ by
as much as the gradient jumps there. So a plan is also computed with every comparison a little stricter, and a little looser: where that
changes a result, as much more is allowed. And it is computed with roundings where kernels round: where that is far off because large
terms cancel, so may be the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from columba.ir.plan.kernels import Buffer, HostCall, Kernel, values_of
from columba.ir.plan.plan import Plan
from columba.ir.program.ops import Cast, Constant, Degree, Pointwise, Value
from columba.ir.types import DType
from columba.runtime.dtypes import torch_dtype
from columba.runtime.plan_reference import Held, run_kernels
from columba.runtime.reference import compute
from columba.runtime.self_check.tolerance import scale, tolerance
from columba.runtime.structure import Structure

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")

JUMPS = (*COMPARISONS, "sign")
"""The functions that are not continuous."""


@dataclass(frozen=True)
class Arithmetic:
    """How plans are computed.

    Attributes:
        rounded: as kernels do: in float32 (float64 where that is the type of the values), and rounded to be stored; else in float64.
        margin: by how much more than what is compared has to differ for a comparison to hold, relative to its size if that is over 1; of
            equals, how far they may be apart if it is negative.
    """

    rounded: bool = False
    margin: float = 0.0

    def run(self, plan: Plan, inputs: Sequence[Tensor], graph: Structure) -> Held:
        """All buffers of a plan."""
        return run_kernels(plan, inputs, graph, self._computed, self._stored)

    def _stored(self, buffer: Buffer, rows: Tensor) -> Tensor:
        return rows.to(torch_dtype(buffer.type.dtype)) if self.rounded else rows

    def _computed(self, value: Value, graph: Structure, operands: Sequence[Tensor]) -> Tensor:
        wide = torch.float32 if self.rounded and value.type.dtype is not DType.F64 else torch.float64
        operands = [x.to(wide) if x.is_floating_point() else x for x in operands]
        match value:
            case Constant() | Degree() if value.to.is_float and not self.rounded:
                value = replace(value, to=DType.F64)
            case Cast() if value.to.is_float and operands[0].is_floating_point():
                return operands[0]
            case Pointwise() if self.margin and value.function in JUMPS and operands[0].is_floating_point():
                return self._with_margin(value, graph, operands)
        found = compute(value, graph, operands)
        return found.to(wide) if found.is_floating_point() else found

    def _with_margin(self, value: Pointwise, graph: Structure, operands: Sequence[Tensor]) -> Tensor:
        x, m = operands[0], abs(self.margin)
        if value.function == "sign":
            return torch.where(x.abs() <= m, 0.0, x.sign()) if self.margin > 0 else x.sign()
        y = operands[1]
        around = m * y.abs().clamp(min=1.0)

        def holds(function: str, bound: Tensor) -> Tensor:
            return compute(replace(value, function=function), graph, [x, bound])

        if value.function == ("eq" if self.margin < 0 else "ne"):
            apart = holds("lt", y - around) | holds("gt", y + around)
            return ~apart if value.function == "eq" else apart
        if value.function in ("eq", "ne"):
            return holds(value.function, y)
        up = (value.function in ("gt", "ge")) == (self.margin > 0)
        return holds(value.function, y + around if up else y - around)


def jumps(plans: Sequence[Plan]) -> bool:
    """Whether rounding decides somewhere on which side of a boundary a value is."""
    return any(
        isinstance(v, Pointwise) and v.function in JUMPS and v.args[0].type.dtype.is_float
        for plan in plans
        for kernel in plan.kernels
        for v in all_values(kernel)
    )


def all_values(kernel: Kernel) -> Sequence[Value]:
    """The values of a kernel, or of the program of a host call."""
    return kernel.program.body if isinstance(kernel, HostCall) else values_of(kernel)


def tolerance_of(plans: Sequence[Plan], *, precision: str, terms: int) -> float:
    """The tolerance of the narrowest floating point type that occurs in the plans."""
    found = {v.type.dtype for plan in plans for k in plan.kernels for v in all_values(k)}
    found |= {b.type.dtype for plan in plans for b in plan.buffers}
    return max(
        (tolerance(torch_dtype(d), tf32=precision == "tf32", terms=terms) for d in found if d.is_float),
        default=tolerance(torch.float64),
    )


@dataclass(frozen=True)
class Expected:
    """The buffers of a plan, as they should be (``exact``), with the kernels' roundings, and with other ``margins``."""

    exact: Held
    rounded: Held
    margins: tuple[Held, ...]

    def difference(self, buffer: Buffer, got: Tensor, allowed: float) -> str | None:
        """What is wrong with the rows that a kernel wrote, in words; None if they are right but for rounding.

        ``allowed`` is the largest error relative to the scale of the buffer.
        """
        exact, rounded = _numbers(self.exact[buffer]), _numbers(self.rounded[buffer])
        got = _numbers(got)
        if not got.numel():
            return None
        slack = torch.zeros_like(exact)
        for margin in self.margins:
            slack += (_numbers(margin[buffer]) - exact).abs().nan_to_num(nan=torch.inf)
        finite = exact.isfinite() & rounded.isfinite()
        noise = ((rounded - exact).abs() - slack)[finite]
        least = max(allowed * scale(exact[finite]), 1.5 * float(noise.max()) if noise.numel() else 0.0)
        error = (got - exact).abs()
        wrong = finite & ~(error <= least + 2 * slack)  # which holds for NaN, too
        settled = ~finite & ((exact == rounded) | (exact.isnan() & rounded.isnan()))
        wrong |= settled & ~((got == exact) | (got.isnan() & exact.isnan()))
        if not wrong.any():
            return None
        size = max(1, buffer.type.size)
        worst = int(torch.where(wrong, error.nan_to_num(nan=torch.inf, posinf=torch.inf), -1.0).argmax())
        rows = wrong.view(-1, size).any(1) if wrong.numel() else wrong
        return (
            f"{buffer.name} is {float(got.view(-1)[worst]):.6g} in row {worst // size}, element {worst % size}, where "
            f"{float(exact.view(-1)[worst]):.6g} is right; {int(rows.sum())} of {len(rows)} rows are off by more than {least:.2g}"
        )


def _numbers(t: Tensor) -> Tensor:
    """As float64; what is no truth value in a tensor of them stays what it is."""
    return (t.view(torch.uint8) if t.dtype is torch.bool else t).to(torch.float64).contiguous()
