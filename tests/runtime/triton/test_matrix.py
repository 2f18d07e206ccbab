"""The numeric matrix of ``triton_matrix.py``, in Triton's interpreter or, by ``--device=cuda``, on a GPU.

All of it: ``pytest -m "slow or not slow" tests/runtime/triton/test_matrix.py``, or ``make test-gpu [DEVICE=interpreter]``, which writes a
report.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

pytest.importorskip("triton")

from triton_matrix import (
    FACTORS,
    INTERPRETED,
    PASSES,
    PROGRAMS,
    QUICK,
    SCHEDULES,
    TINY,
    Case,
    Device,
    Pair,
    assert_close,
    candidate_choice,
    check_case,
    chosen,
    covering,
    graphs,
    most_candidates,
    pairs_of,
    scheduled,
)

import columba
from columba.ir.plan.planned import Planned

pytestmark = [
    pytest.mark.filterwarnings("ignore:columba. backend=.triton. runs on CPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
]

CHUNKS = 6
"""Tests among which the candidates of a program are dealt out."""


OFTEN = ("bfloat16",)
"""The quick cases of every run, by what is in their names: what the tests of layers and of schedules do not have."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if any(word in str(c) for word in OFTEN) else pytest.mark.slow) for c in QUICK],
    ids=str,
)
def test_quick(case: Case, device: Device) -> None:
    check_case(case, device, TINY)


@pytest.mark.slow
@pytest.mark.parametrize("case", covering(), ids=str)
def test_covering(case: Case, device: Device, record_property: Callable[[str, object], None]) -> None:
    record_property("cases", len(TINY))
    check_case(case, device, TINY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("passes", "dtype"),
    [(PASSES[0], torch.float32), (PASSES[1], torch.bfloat16)],
    ids=("pairs", "aggregated"),
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_several_tiles(program: str, passes: str, dtype: torch.dtype, device: Device) -> None:
    """Default schedules where a hub, relations and the graph itself are several tiles."""
    check_case(Case(program, 7, 3, dtype, "default", passes), device, ["tiles"])


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("program", PROGRAMS)
def test_candidates(program: str, chunk: int, device: Device, record_property: Callable[[str, object], None]) -> None:
    """All schedules that a tuner may choose, of all kernels of a program."""
    size, heads, dtype = 16, 3, torch.float32
    pair = Pair(PROGRAMS[program], size, heads, dtype, device)
    numbers = range(most_candidates(program, size, heads, dtype, device))[chunk::CHUNKS]
    record_property("cases", len(numbers))
    for number in numbers:
        with scheduled(candidate_choice(number, device.target), device.target) as used:
            compiled = columba.compile(pair.layer, backend="triton", passes=PASSES[0])
            try:
                pair.check(compiled, graphs()["hub"])
            except AssertionError as e:
                raise AssertionError(f"{program}, candidates {number}: {e}") from e
        assert used


# ------------------------------------------------------------------------------------------------ of the matrix itself


def test_all_pairs_are_covered() -> None:
    """Every value with every value of every other factor; in far fewer cases than there are combinations."""
    wanted = {
        (i, x, j, y)
        for (i, a), (j, b) in itertools.combinations(enumerate(FACTORS), 2)
        for x, y in itertools.product(a, b)
    }
    rows = [(c.program, c.size, c.heads, c.dtype, c.schedule, c.passes) for c in covering()]
    assert {p for row in rows for p in pairs_of(row)} == wanted
    assert len(rows) < 160


def test_schedules_apply() -> None:
    """Every schedule of the matrix is one that some kernel can have: none is passed over everywhere."""
    plans = [_planned(program) for program in ("rgat", "rgcn", "hgt", "two_hops")]
    for name, choose in SCHEDULES.items():
        used = any(chosen(planned, choose, INTERPRETED.target) for planned in plans)
        assert used == (name != "default"), name


def _planned(program: str) -> Planned:
    pair = Pair(PROGRAMS[program], 64, 1, torch.float32, INTERPRETED)
    ours, _ = pair.arguments(graphs()["no_edges"])
    return columba.explain(columba.compile(pair.layer, backend="triton", passes=PASSES[0]), *ours).compilation.planned


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_errors_are_seen(dtype: torch.dtype) -> None:
    """A value that is off by more than rounding, a NaN, another dtype, another shape."""
    wanted = torch.linspace(-2, 2, 9, dtype=torch.float64)
    assert_close("x", wanted.to(dtype), wanted, dtype)
    off = wanted.clone()
    off[3] += 20 * torch.finfo(dtype).eps if dtype in (torch.bfloat16, torch.float16) else 1e-4
    for wrong in (
        off.to(dtype),
        torch.full_like(wanted, torch.nan).to(dtype),
        wanted[1:].to(dtype),
        wanted.half().int(),
    ):
        with pytest.raises(AssertionError):
            assert_close("x", wrong, wanted, dtype)
