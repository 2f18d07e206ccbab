"""When numbers are the same: within what rounding explains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .session import Outcome

EPSILON = {"f32": 2.0**-23, "f64": 2.0**-52, "mixed": 2.0**-23}
PLAIN = 64
"""Units in the last place of the largest number that any computation may be off by."""
MARGIN = 32
"""How much more than PyTorch's own rounding errors a result may be off."""

UNSCALED = ("huge", "tiny")
"""Special numbers that are not about 1."""


@dataclass
class References:
    """What eager code gives for one call, as it is asked for: in float64, in the case's dtype, in float32, and with noise.

    ``others`` are what it might give as well, number by number.
    """

    dtype: str
    exact: Outcome
    same: Callable[[], Outcome]
    single: Callable[[], Outcome]
    noisy: Callable[[int], Outcome]
    others: Callable[[], Iterator[Outcome]]
    ill: list[str] = field(default_factory=list)


def mismatch(references: References, got: Outcome, *, special: str) -> tuple[str, str] | None:
    """The name of the first number that is off by more than rounding explains, and what is wrong with it."""
    exact, found = references.exact.named(), got.named()
    if exact.keys() != found.keys():
        return "results", f"there are {sorted(found)}, expected {sorted(exact)}"
    for name, g in found.items():
        why = _different(references, name, exact[name], g, special=special)
        if why is not None:
            return name, why
    return None


def _different(r: References, name: str, want: Tensor, got: Tensor, *, special: str) -> str | None:
    if got.shape != want.shape:
        return f"shape {list(got.shape)}, expected {list(want.shape)}"
    if not want.is_floating_point():
        if torch.equal(want, got) or _depends_on_rounding(r, name, want):
            return None
        known = want == got
        for other in r.others():
            known |= other.named()[name] == got
        return None if bool(known.all()) else f"{got}\nexpected\n{want}"
    if not special:
        return _numbers_differ(r, name, want, got, special)
    want = r.same().named()[name]
    if special == "inf" and name.startswith("gradient"):  # whose sums are grouped otherwise, too: see Regrouping
        cancels = want.isnan() & got.isinf() | want.isinf() & got.isnan()
        want = torch.where(cancels, got, want)
    why = _numbers_differ(r, name, want, got, special)
    for other in r.others() if why is not None else ():
        want = torch.where(_alike(other.named()[name], got, EPSILON[r.dtype]), got, want)
        why = _numbers_differ(r, name, want, got, special)
        if why is None:
            return None
    return why


def _alike(a: Tensor, b: Tensor, unit: float) -> Tensor:
    """Where numbers are the same but for rounding."""
    close = (a - b).abs() <= PLAIN * unit * b.abs().clamp(min=1.0)
    return torch.where(a.isfinite() & b.isfinite(), close, _kinds(a) == _kinds(b))


def _numbers_differ(r: References, name: str, want: Tensor, got: Tensor, special: str) -> str | None:
    finite = want.isfinite()
    if not torch.equal(finite, got.isfinite()) or not torch.equal(_kinds(want), _kinds(got)):
        same = want if special else r.same().named()[name]
        if special == "huge" or not torch.equal(_kinds(same), _kinds(want)) or torch.equal(_kinds(same), _kinds(got)):
            r.ill.append(name)
            return None  # an overflow that wider numbers, or another order, do not have
        return f"infinities or NaN differ:\n{got}\nexpected\n{same}"
    if not bool(finite.any()):
        return None
    want, got = want.double()[finite], got.double()[finite]
    error, scale = float((got - want).abs().max()), float(want.abs().max())
    if special not in UNSCALED:  # inputs and directions are about 1; differences of such are rounded like them
        scale = max(scale, 1.0)
    unit = EPSILON[r.dtype]
    if error <= PLAIN * unit * scale:
        return None
    single = r.single().named()[name].double()[finite]
    off = float(torch.nan_to_num((single - want).abs(), nan=float("inf")).max())
    if error <= MARGIN * off * (unit / EPSILON["f32"]):
        return None
    spread = 0.0
    for seed in range(6):
        noisy = r.noisy(seed).named()[name].double()[finite]
        spread = max(spread, float(torch.nan_to_num((noisy - want).abs(), nan=float("inf")).max()))
        if error <= MARGIN * spread:
            if spread > 1e-3 * scale:
                r.ill.append(name)
            return None
    return f"off by {error:.3g} (magnitude {scale:.3g}, rounding {spread:.2g})\n{got}\nexpected\n{want}"


def _kinds(x: Tensor) -> Tensor:
    """Which numbers are NaN, or infinities, of which sign."""
    return torch.where(x.isnan(), 2, torch.where(x.isinf(), x.sign(), 0))


def _depends_on_rounding(r: References, name: str, want: Tensor) -> bool:
    """Whether truth values change with noise."""
    if not torch.equal(r.same().named()[name], want) or any(
        not torch.equal(r.noisy(seed).named()[name], want) for seed in range(6)
    ):
        r.ill.append(name)
        return True
    return False
