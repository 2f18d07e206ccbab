"""What the binaries of Triton kernels say, compiled for GPUs that are not there: spills, width of loads, tensor cores."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

import pytest
import torch
from compiled import PAIRS
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs

pytest.importorskip("triton")

import columba
from columba import nn
from columba.codegen.triton import BufferArgument, Launch, MemberSchedule, candidates, emit
from columba.codegen.triton.candidates import limits_of
from columba.driver import Compilation
from columba.ir.plan.kernels import Gemm, Kernel, Traversal
from columba.ir.plan.plan import Plan
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.runtime.triton.aot import Binary, UnknownTarget, compile_plans

LAYERS = ("rgcn", "rgat", "hgt")
DTYPES = {DType.F32: torch.float32, DType.BF16: torch.bfloat16, DType.F16: torch.float16, DType.F64: torch.float64}
NVIDIA = ("sm_80", "sm_90")
TARGETS = (*NVIDIA, "sm_100", "gfx942")


@functools.cache
def compilation_of(name: str, size: int, heads: int, dtype: torch.dtype) -> Compilation:
    layers = {
        "rgcn": lambda: nn.RGCNConv(size, size, RELATIONS),
        "rgat": lambda: nn.RGATConv(size, size // heads, RELATIONS, heads=heads),
        "hgt": lambda: nn.HGTConv(size, size, NODE_TYPES, RELATIONS, heads=heads),
    }
    graph = square_graphs()["random"]
    layer = columba.compile(layers[name]().to(dtype), backend="triton", passes=PAIRS)
    x = torch.randn(graph.num_nodes, size, dtype=dtype, requires_grad=True)
    return columba.explain(layer, x, graph).compilation


def binaries_of(name: str, size: int, heads: int, dtype: torch.dtype, target: str) -> list[Binary]:
    return list(compile_plans(compilation_of(name, size, heads, dtype).plans, DType.I32, target))


def products_of(plans: Sequence[Plan]) -> set[str]:
    """The kernels with a matrix product."""
    return {s.kernel.name for steps in emit(plans).steps.values() for s in steps if any(x.dot for x in s.launches)}


EVERY_TARGET = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "gfx90a", "gfx942", "gfx1100")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("gfx942", "rgcn"),
        *(
            pytest.param(t, n, marks=pytest.mark.slow)
            for t in EVERY_TARGET
            for n in LAYERS
            if (t, n) != ("gfx942", "rgcn")
        ),
    ],
)
def test_default_schedules_fit(target: str, name: str) -> None:
    """Shared memory and threads of a block, of every launch of a training step with 4 heads and 64 features."""
    limits = limits_of(target)
    plans = compilation_of(name, 64, 4 if name != "rgcn" else 1, torch.float32).plans
    only = products_of(plans) if (target, name) == ("gfx942", "rgcn") else None
    for binary in compile_plans(plans, DType.I32, target, only=only):
        assert binary.shared <= limits.shared, binary
        assert binary.variant.warps <= limits.warps, binary


# ------------------------------------------------------------------------------------------------ what is asked of binaries


FEATURES = 64
"""Bytes from which a row counts as features; what is less are scalars, of heads for instance."""


def check_spills(binary: Binary) -> None:
    assert binary.spilled == 0, f"{binary}: {binary.spilled} bytes of registers are in memory"


def check_loads(binary: Binary, source: list[str]) -> None:
    """Features of the rows of a product, of members and of weights are loaded 128 bits at a time: most bits of each load are.

    What a program reads once, for each of its owners or for all of them, is as wide as it has elements for its threads.
    """
    buffers = {n: a.buffer for n, a in binary.launch.arguments if isinstance(a, BufferArgument)}
    first = next(n for n, line in enumerate(source) if line.startswith(f"def {binary.launch.function}("))
    found = False
    for line, widths in binary.loads_by_line().items():
        text = source[line - 1] if first < line <= len(source) else ""
        of = re.search(r"tl\.load\((\w+?)(_ptr|_row)(?:_\d+)?\b", text)
        buffer = buffers.get(f"{of.group(1)}_ptr") if of is not None else None
        if buffer is None or buffer.type.size * buffer.type.dtype.itemsize < FEATURES:
            continue
        is_once = "owner" in text or (buffer.type.space is Space.ONE and binary.launch.dot is None)
        if is_once or buffer.type.shape[-1] * buffer.type.dtype.itemsize < 32:
            continue
        if sum(widths) < 128:
            continue  # too little for what a thread needs: a scalar's load, which the assembler has moved here
        found = True
        assert 2 * 128 * widths.count(128) > sum(widths), f"{binary}: {widths} bits\n{text}"
    assert found or binary.launch.dot is None or binary.widest_load == 128, binary


def check_tensor_cores(binary: Binary, dtype: torch.dtype, *, tf32: bool) -> None:
    """16-bit and TF32 products are done by tensor cores; float32 ones, those that make scores in 16 bits too, only if TF32 is allowed."""
    if binary.launch.dot is None:
        assert binary.tensor_core_instructions == 0
    elif binary.launch.dot is DType.F32 and not tf32:
        assert dtype is torch.float32 or "linear" in binary.launch.function or "saved" in binary.launch.function
        assert binary.tensor_core_instructions == 0, f"{binary}: IEEE float32 by tensor cores"
    else:
        assert re.search(r"\b(HMMA|HGMMA)", binary.assembly), f"{binary}: no tensor cores"
    if tf32:
        assert binary.launch.dot is None or "TF32" in binary.assembly


def check_all(
    name: str,
    size: int,
    heads: int,
    dtype: torch.dtype,
    target: str,
    *,
    tf32: bool = False,
    plans: int = 2,
    only: set[str] | None = None,
) -> list[Binary]:
    some = compilation_of(name, size, heads, dtype).plans[:plans]
    source = emit(some).source.splitlines()
    binaries = list(compile_plans(some, DType.I32, target, only=only))
    assert any(b.launch.dot is not None for b in binaries)
    for binary in binaries:
        check_spills(binary)
        check_loads(binary, source)
        check_tensor_cores(binary, dtype, tf32=tf32)
    return binaries


# ------------------------------------------------------------------------------------------------ layers


@pytest.fixture(autouse=True, scope="module")
def own_binaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of binaries of these tests' own: Triton finds a binary by the text of its function, wherever that stood in its module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("columba.runtime.triton.functions.is_tf32_allowed", lambda: True)


CASES = [(name, size, heads) for name in LAYERS for size in (64, 128) for heads in ((1,) if name == "rgcn" else (1, 4))]


@pytest.mark.slow
def test_forward_in_16_bits() -> None:
    """And the launches of all variants are compiled."""
    binaries = check_all("rgcn", 64, 1, torch.bfloat16, "sm_90", plans=1)
    (plan, *_) = compilation_of("rgcn", 64, 1, torch.bfloat16).plans
    launches: list[Launch] = [x for step in emit([plan]).steps[plan.name] for x in step.launches]
    assert [b.variant for b in binaries] == [v for x in launches for v in x.variants]


@pytest.mark.slow
@pytest.mark.usefixtures("tf32")
def test_forward_in_tf32() -> None:
    check_all("rgcn", 64, 1, torch.float32, "sm_80", tf32=True, plans=1)


@pytest.mark.parametrize(("name", "heads"), [("rgcn", 1), pytest.param("rgat", 4, marks=pytest.mark.slow)])
def test_forward_in_float32(name: str, heads: int) -> None:
    only = products_of(compilation_of(name, 64, heads, torch.float32).plans[:1]) if name == "rgcn" else None
    check_all(name, 64, heads, torch.float32, "sm_80", plans=1, only=only)


@pytest.mark.slow
@pytest.mark.parametrize("target", NVIDIA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "size", "heads"), CASES)
def test_all_layers(name: str, size: int, heads: int, dtype: torch.dtype, target: str) -> None:
    check_all(name, size, heads, dtype, target)


@pytest.mark.slow
@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("target", NVIDIA)
@pytest.mark.parametrize(("name", "size", "heads"), CASES)
def test_tf32_in_all_layers(name: str, size: int, heads: int, target: str) -> None:
    check_all(name, size, heads, torch.float32, target, tf32=True)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "size", "heads"), [c for c in CASES if c[1] == 64])
def test_tf32x3_in_all_layers(name: str, size: int, heads: int, target: str) -> None:
    """On tensor cores of NVIDIA's chips; AMD's multiply float32 as it is."""
    plans = compilation_of(name, size, heads, torch.float32).plans
    for binary in compile_plans(plans, DType.I32, target, precision="tf32x3"):
        assert binary.launch.dot is None or binary.tensor_core_instructions > 0, binary


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_all_targets(name: str, dtype: torch.dtype, target: str) -> None:
    """Everything compiles everywhere, sizes that are no powers of two included."""
    for size, heads in ((64, 4), (100, 1)):
        assert binaries_of(name, size, heads, dtype, target)


# ------------------------------------------------------------------------------------------------ schedules


def _compile_candidates(kernels: list[tuple[str, Kernel]], compilation: Compilation, target: str, every: int) -> int:
    """Compiles every n-th candidate of each kernel; gives how many there were."""
    done = 0
    for plan_name, kernel in kernels:
        for schedule in candidates(kernel, target)[::every]:
            plan = next(p for p in compilation.plans if p.name == plan_name)
            schedules = {(plan_name, kernel.name): schedule}
            functions = {s.kernel.name for s in emit([plan], schedules).steps[plan_name]}
            for binary in compile_plans(
                [plan], DType.I32, target, schedules=schedules, only=functions_of(kernel, functions)
            ):
                done += 1
                if target in NVIDIA:
                    check_spills(binary)
    return done


def functions_of(kernel: Kernel, names: set[str]) -> set[str]:
    """The kernels that one kernel of a plan became."""
    return {n for n in names if n.startswith(kernel.name)}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LAYERS)
def test_candidates_compile(name: str, target: str) -> None:
    compilation = compilation_of(name, 64, 1 if name == "rgcn" else 4, torch.bfloat16)
    kernels = [(p.name, k) for p in compilation.plans for k in p.kernels if isinstance(k, Gemm | Traversal)]
    assert _compile_candidates(kernels[:6], compilation, target, every=5)


@pytest.mark.parametrize("target", ["sm_90"])
def test_descriptors_reach_the_tensor_memory_accelerator(target: str) -> None:
    compilation = compilation_of("rgcn", 64, 1, torch.bfloat16)
    plan = compilation.plans[0]
    gemm = next(k for k in plan.kernels if isinstance(k, Gemm))
    schedule = next(s for s in candidates(gemm, target) if getattr(s, "descriptors", False))
    schedules = {(plan.name, gemm.name): schedule}
    (binary,) = compile_plans([plan], DType.I32, target, schedules=schedules, only={gemm.name})
    assert "UTMALDG" in binary.assembly
    assert "HGMMA" in binary.assembly
    check_spills(binary)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_90", *(pytest.param(t, marks=pytest.mark.slow) for t in ("sm_80", "sm_100"))])
def test_members_of_several_steps_are_under_way(target: str) -> None:
    """Copies to shared memory, of 16 bytes each, where a schedule says so; the functions for hubs stay as they are."""
    plan = compilation_of("rgcn", 64, 1, torch.float32).plans[0]
    kernel = plan.kernels[-1]
    assert isinstance(kernel, Traversal)
    schedules = {(plan.name, kernel.name): MemberSchedule(1, 16, warps=4, stages=2)}
    binary, *of_hubs = compile_plans([plan], DType.I32, target, schedules=schedules, only={kernel.name})
    assert len(of_hubs) == 2
    assert re.search(r"LDGSTS\S*128", binary.assembly)
    assert not any("LDGSTS" in b.assembly for b in of_hubs)
    for b in (binary, *of_hubs):
        check_spills(b)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LAYERS)
def test_functions_for_hubs_fit(name: str, target: str) -> None:
    """No registers in memory, shared memory within limits, with one head and with four."""
    for heads in (1,) if name == "rgcn" else (1, 4):
        plans = compilation_of(name, 64, heads, torch.float32).plans
        modules = [emit([plan]) for plan in plans]
        steps = [s for m in modules for found in m.steps.values() for s in found]
        only = {s.kernel.name for s in steps if any("_of_hubs" in x.function for x in s.launches)}
        assert only
        for binary in compile_plans(plans, DType.I32, target, only=only):
            check_spills(binary)
            assert binary.shared <= limits_of(target).shared, binary


@pytest.mark.slow
@pytest.mark.parametrize("reduction", [pytest.param("sum", marks=pytest.mark.slow), "max"])
def test_sums_of_products_that_are_compared_are_rounded(reduction: str) -> None:
    """A maximum's gradient compares members with it, which are computed in two kernels: both have to give the same numbers."""

    def attend(g: columba.Graph, h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        e = g.edges
        message = torch.relu(e.src(h) * e.dst(w) + e.src(w) * e.dst(h))
        return getattr(e, reduction)(message)

    graph = square_graphs()["random"]
    h, w = torch.randn(graph.num_nodes, 16), torch.randn(graph.num_nodes, 16)
    compilation = columba.explain(columba.compile(attend, backend="triton"), graph, h, w).compilation
    fused = ["FFMA" in b.assembly for b in compile_plans(compilation.plans, DType.I32, "sm_80")]
    assert any(fused) == (reduction == "sum")


def test_unknown_targets() -> None:
    with pytest.raises(UnknownTarget, match="sm_80"):
        list(compile_plans((), DType.I32, "volta"))
