"""Every schedule that a Triton kernel can have computes the same, in the interpreter; and goes through JSON."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from compiled import PAIRS, assert_same, leaf, randomized
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs

pytest.importorskip("triton")

import columba
from columba import nn
from columba.codegen.triton import (
    INTERPRETER,
    DegreeSchedule,
    IllegalSchedule,
    MemberSchedule,
    OuterSchedule,
    ProductSchedule,
    RowSchedule,
    Schedule,
    as_json,
    candidates,
    check,
    default_schedule,
    emit,
    from_json,
    is_legal,
)
from columba.driver import Compilation
from columba.ir.plan.kernels import Gemm, Kernel, Traversal, product_of
from columba.ir.plan.planned import Planned
from columba.ir.types import DType
from columba.runtime.backends import TritonBackend
from columba.runtime.triton.launch import TritonExecutable

pytestmark = [
    pytest.mark.filterwarnings("ignore:columba. backend=.triton. runs on CPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
]

GRAPHS = square_graphs()

Build = Callable[[int, int], torch.nn.Module]

LAYERS: dict[str, Build] = {
    "rgcn": lambda size, heads: nn.RGCNConv(size, size, RELATIONS),
    "rgat": lambda size, heads: nn.RGATConv(size, size // heads, RELATIONS, heads=heads),
    "hgt": lambda size, heads: nn.HGTConv(size, size, NODE_TYPES, RELATIONS, heads=heads),
}

Choose = Callable[[Kernel], Schedule | None]


@functools.cache
def compilation_of(name: str, size: int, heads: int, dtype: torch.dtype = torch.float32) -> Compilation:
    layer = columba.compile(LAYERS[name](size, heads).to(dtype), backend="triton", passes=PAIRS)
    x = torch.randn(GRAPHS["random"].num_nodes, size, dtype=dtype, requires_grad=True)
    return columba.explain(layer, x, GRAPHS["random"]).compilation


def kernels_of(compilation: Compilation) -> list[Kernel]:
    return [k for plan in compilation.plans for k in plan.kernels]


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Choose], list[Schedule]]:
    """Makes kernels run as ``choose`` says where that is legal; gives the schedules that were."""

    def use(choose: Choose) -> list[Schedule]:
        used: list[Schedule] = []

        def build(backend: TritonBackend, planned: Planned, index_dtype: DType) -> TritonExecutable:
            schedules, plans = {}, planned.plans
            for plan in plans:
                for kernel in plan.kernels:
                    schedule = choose(kernel)
                    if schedule is not None and is_legal(kernel, schedule, INTERPRETER):
                        schedules[plan.name, kernel.name] = schedule
            used.extend(schedules.values())
            return TritonExecutable(plans, index_dtype, schedules=schedules)

        monkeypatch.setattr(TritonBackend, "executable", build)
        return used

    return use


def products(**changes: int | bool) -> Choose:
    def choose(kernel: Kernel) -> Schedule | None:
        default = default_schedule(kernel)
        return replace(default, **changes) if isinstance(default, ProductSchedule) else None  # type: ignore[arg-type]

    return choose


def members(schedule: Schedule) -> Choose:
    return lambda kernel: schedule if isinstance(kernel, Traversal) and kernel.via is not None else None


def outer(schedule: Schedule) -> Choose:
    return lambda kernel: schedule if isinstance(default_schedule(kernel), OuterSchedule) else None


STRUCTURES: dict[str, Choose] = {
    "columns": products(columns=16, rows=16, group=3, matrices=1),
    "persistent": products(persistent=1, rows=16),
    "persistent columns": products(persistent=1, rows=16, columns=16, group=2, matrices=1),
    "descriptors": products(descriptors=True, depth=16, matrices=1),
    "persistent descriptors": products(descriptors=True, depth=16, persistent=2, rows=16, matrices=1),
    "split": members(MemberSchedule(1, 2, split=3)),
    "split, several tiles a program": members(MemberSchedule(4, 2, split=2)),
    "atomic": members(MemberSchedule(2, 2, split=3, atomic=True)),
    "loads under way": members(MemberSchedule(2, 2, stages=2)),
    "one case": members(DegreeSchedule(((math.inf, MemberSchedule(2, 4)),))),
    "small outer blocks": outer(OuterSchedule(summed=7, rows=16, depth=16, columns=16)),
}


SELDOM = (
    "columns",
    "persistent",
    "descriptors",
    "split",
    "split, several tiles a program",
    "loads under way",
    "one case",
    "small outer blocks",
    "atomic",
)
"""Structures that others are with something more."""


@pytest.mark.parametrize(
    "structure", [pytest.param(s, marks=pytest.mark.slow if s in SELDOM else ()) for s in STRUCTURES]
)
@pytest.mark.parametrize("name", ["rgat", *(pytest.param(n, marks=pytest.mark.slow) for n in ("rgcn", "hgt"))])
def test_structures(name: str, structure: str, scheduled: Callable[[Choose], list[Schedule]]) -> None:
    used = scheduled(STRUCTURES[structure])
    eager = randomized(LAYERS[name](32, 2), torch.float32)
    compiled = columba.compile(eager, backend="triton", passes=PAIRS)
    for graph in ("random", "hub", "no_edges"):
        x = leaf(GRAPHS[graph].num_nodes, 32, dtype=torch.float32)
        assert_same(compiled, eager, [x, GRAPHS[graph]], list(eager.parameters()))
    assert used


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["split", "atomic", "descriptors", "columns"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_structures_in_half_precision(
    name: str, dtype: torch.dtype, structure: str, scheduled: Callable[[Choose], list[Schedule]]
) -> None:
    """As close to float64 as the default schedules are, but for another order of the same sums."""
    torch.manual_seed(0)
    half = randomized(LAYERS[name](32, 2), torch.float32).to(dtype)
    graph = GRAPHS["hub"]
    x = leaf(graph.num_nodes, 32, dtype=torch.float32).detach().to(dtype).requires_grad_()

    def results() -> list[torch.Tensor]:
        out = columba.compile(half, backend="triton", passes=PAIRS)(x, graph)
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        return [out.detach(), *torch.autograd.grad(out, [x, *half.parameters()], direction)]

    wanted = results()
    used = scheduled(STRUCTURES[structure])
    found = results()
    assert used
    for f, w in zip(found, wanted, strict=True):
        assert (f - w).abs().max() <= 4 * torch.finfo(dtype).eps * max(1e-6, float(w.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 40, 3))
@pytest.mark.parametrize("name", LAYERS)
def test_candidates_compute_the_same(name: str, number: int, scheduled: Callable[[Choose], list[Schedule]]) -> None:
    def choose(kernel: Kernel) -> Schedule | None:
        found = candidates(kernel, INTERPRETER)
        return found[number % len(found)] if found else None

    used = scheduled(choose)
    eager = randomized(LAYERS[name](16, 4), torch.float32)
    compiled = columba.compile(eager, backend="triton", passes=PAIRS)
    x = leaf(GRAPHS["hub"].num_nodes, 16, dtype=torch.float32)
    assert_same(compiled, eager, [x, GRAPHS["hub"]], list(eager.parameters()))
    assert used


@pytest.mark.slow
def test_candidates() -> None:
    """A few dozen for each kernel, each once, the default first and deterministic; all of them go through JSON."""
    for kernel in kernels_of(compilation_of("rgat", 64, 4)):
        found = candidates(kernel, "sm_90")
        default = default_schedule(kernel)
        assert found[:1] == (() if default is None else (default,))
        assert len(found) == len(set(found)) < 64
        assert not any(getattr(s, "atomic", False) for s in found[:1])
        assert [from_json(as_json(s)) for s in found] == list(found)


def test_candidates_cover_the_structures() -> None:
    kernels = kernels_of(compilation_of("rgcn", 256, 1))
    found = [s for k in kernels for s in candidates(k, "sm_90")]
    tried = {(bool(s.columns), bool(s.persistent), s.descriptors) for s in found if isinstance(s, ProductSchedule)}
    assert {(True, False, False), (False, True, False), (False, False, True), (False, True, True)} <= tried
    assert {(bool(s.split), s.atomic) for s in found if isinstance(s, MemberSchedule)} >= {(True, False), (True, True)}


def test_descriptors_need_hardware() -> None:
    gemm = next(k for k in kernels_of(compilation_of("rgcn", 64, 1)) if isinstance(k, Gemm))
    schedule = replace(default_schedule(gemm), descriptors=True)  # type: ignore[type-var]
    check(gemm, schedule, "sm_90")  # type: ignore[arg-type]
    for target in ("sm_80", "sm_89", "gfx942"):
        with pytest.raises(IllegalSchedule, match="tensor memory accelerator"):
            check(gemm, schedule, target)  # type: ignore[arg-type]


def test_what_a_kernel_cannot_have() -> None:
    kernels = kernels_of(compilation_of("rgat", 64, 4))
    with_sum = next(k for k in kernels if isinstance(k, Gemm) and len(k.stores) > 1)
    with pytest.raises(IllegalSchedule, match="columns"):  # scores need all columns of a head's product
        check(with_sum, ProductSchedule(32, 32, columns=16))
    with pytest.raises(IllegalSchedule, match="another kind"):
        check(with_sum, RowSchedule(8))
    with pytest.raises(IllegalSchedule, match="too large"):
        check(with_sum, ProductSchedule(4096, 32))
    with pytest.raises(IllegalSchedule, match="shared memory"):
        check(with_sum, ProductSchedule(64, 64, stages=32))
    with pytest.raises(IllegalSchedule, match="power of two"):
        MemberSchedule(3, 1)
    with pytest.raises(IllegalSchedule, match="split"):
        MemberSchedule(1, 1, atomic=True)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"kind": "spiral"},
        {"kind": "rows", "rows": 3},
        {"kind": "rows", "rows": "8"},
        {"kind": "rows", "rows": 8, "colour": 1},
        {"kind": "by_degree", "cases": []},
        {"kind": "members", "owners": 1, "members": 1, "split": True},
        [],
    ],
)
def test_what_is_no_schedule(value: object) -> None:
    with pytest.raises(IllegalSchedule):
        from_json(value)  # type: ignore[arg-type]


def test_small_matrices_of_a_row_are_one_program_s_work() -> None:
    """Four heads of 16 by 16: a program for each would have 512 elements."""
    compilation = compilation_of("hgt", 64, 4)
    heads = [k for k in kernels_of(compilation) if isinstance(k, Gemm) and product_of(k).x.shape == (4, 16)]
    assert len(heads) == 4
    for kernel in heads:
        default = default_schedule(kernel)
        assert isinstance(default, ProductSchedule)
        assert default.matrices == 4
        for wrong in (replace(default, matrices=3), replace(default, matrices=8), replace(default, columns=8)):
            with pytest.raises(IllegalSchedule, match="matrices a program"):
                check(kernel, wrong)
        check(kernel, replace(default, matrices=2))
    plain = next(k for k in kernels_of(compilation) if isinstance(k, Gemm) and product_of(k).x.shape == (64,))
    with pytest.raises(IllegalSchedule, match="matrices a program"):
        check(plain, ProductSchedule(32, 64, matrices=2))


def test_schedules_of_kernels_that_there_are_not_change_nothing() -> None:
    plans = compilation_of("rgcn", 16, 1).plans
    assert emit(plans).source == emit(plans, {("nowhere", "nothing"): RowSchedule(8)}).source
