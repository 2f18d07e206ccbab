"""Launching Triton kernels neither waits for the device nor does work that grows with the graph: all layers, forward and backward.

Two instruments. *Calls*: a compiled layer and its gradients run on CPU tensors with kernels that do nothing, while modes look at every
torch function and every operator, those inside Columba's own operators included; what gives a number of a tensor to Python, has a shape
that depends on data, or copies to the host, is an error. *Fake tensors*: every plan runs on tensors of a GPU that hold no data, so that
whatever needs some fails.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gpu_stand_in
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from triton_matrix import INTERPRETED, PASSES, PROGRAMS, Pair, graphs, random_graph, tensors_of

import columba
from columba.ir.spaces import Space
from columba.runtime import fast_path, operators
from columba.runtime.graphs.graph import Graph
from columba.runtime.triton import gpu as triton_gpu

pytestmark = [
    pytest.mark.filterwarnings("ignore:columba. backend=.triton. runs on CPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
]


class Synchronized(AssertionError):
    """Something on the launch path has to wait for the device."""


TO_PYTHON = frozenset(
    ["item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__", "__contains__"]
)
"""Methods of tensors that hand data to Python."""


class _Functions(TorchFunctionMode):
    """Methods that hand data to Python do not all reach the dispatcher: on a CPU ``tolist`` and ``cpu`` do not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in TO_PYTHON or (name == "to" and any(_is_cpu(a) for a in (*args[1:], *kwargs.values()))):
            raise Synchronized(f"Tensor.{name}")
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):
    """Records operators; one that needs data for its result or its shape, or that copies to the host, is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
            raise Synchronized(str(func))
        if _is_cpu(kwargs.get("device")) and any(t.device.type != "cpu" for t in tensors_of(list(args))):
            raise Synchronized(f"{func} to the host")
        self.names.append(str(func))
        return func(*args, **kwargs)


def _is_cpu(value: Any) -> bool:
    return value == "cpu" or (isinstance(value, torch.device) and value.type == "cpu")


@dataclass
class Kernels:
    """Stands for compiled kernels, whose launches it only counts."""

    launches: list[str] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Plans run on the stand-in for a GPU, with these kernels."""
        gpu_stand_in.install(monkeypatch)
        kernels = self

        class Kernel:
            function = packed_metadata = None

            def __init__(self, name: str) -> None:
                self.name = name

            def run(self, *grid_and_arguments: Any) -> None:
                assert all(isinstance(n, int) for n in grid_and_arguments[:3])
                kernels.launches.append(self.name)

        def compile(self: triton_gpu._BoundLaunch, precision: str, nvidia: bool) -> triton_gpu._Compiled:
            return triton_gpu._Compiled(self, Kernel(self.launch.function), ())

        monkeypatch.setattr(triton_gpu._BoundLaunch, "compile", compile)
        monkeypatch.setattr(triton_gpu._BoundLaunch, "compile_others", lambda *_: None)


@dataclass
class Calls:
    """What a forward and a backward call did on the host."""

    operators: list[str]
    launches: list[str]
    functions: int


def watch_calls(program: str, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A training step of a layer, warm, under both modes; then again, counting calls of Python functions."""
    pair = Pair(PROGRAMS[program], 7, 3, torch.float32, INTERPRETED)
    compiled = columba.compile(pair.layer, backend="triton", passes=PASSES[0])
    ours, _ = pair.arguments(graph)
    leaves = [x for x in ours if isinstance(x, Tensor)] + list(pair.layer.parameters())
    kernels = Kernels()

    def step() -> None:
        results = [r for r in tensors_of(compiled(*ours)) if r.requires_grad]
        directions = [torch.ones_like(r) for r in results]
        torch.autograd.grad(results, leaves, directions, allow_unused=True)

    run = operators._run
    with monkeypatch.context() as patch:
        kernels.install(patch)
        patch.setattr(fast_path, "is_plain", lambda inputs: False)  # as where somebody looks at operators
        for _ in range(3):
            step()
        kernels.launches.clear()
        seen = _Operators()

        def watched_run(*args: Any) -> list[Tensor]:
            with _Functions(), seen:  # modes are off inside operators
                return run(*args)

        patch.setattr(operators, "_run", watched_run)
        with _Functions(), seen:
            step()
        launches = list(kernels.launches)
        patch.setattr(operators, "_run", run)
        with counting() as functions:
            step()
    return Calls(seen.names, launches, functions[0])


@contextlib.contextmanager
def counting() -> Iterator[list[int]]:
    """Counts calls of Python functions."""
    count = [0]

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            count[0] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield count
    finally:
        sys.setprofile(before)


SMALL, LARGE = "random", 4000
"""A tiny graph, and the edges of a large one."""


@functools.cache
def large() -> Graph:
    return random_graph(900, LARGE)


@pytest.mark.parametrize("program", PROGRAMS)
def test_calls_do_not_wait_and_do_not_grow(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small, big = (watch_calls(program, g, monkeypatch) for g in (graphs()[SMALL], large()))
    assert small.launches
    assert "columba.forward.default" in small.operators
    assert "columba.backward.default" in small.operators
    assert small.launches == big.launches
    assert small.operators == big.operators
    assert (
        abs(small.functions - big.functions) <= 0.05 * small.functions
    )  # caches of weak references are cleared at times


# ------------------------------------------------------------------------------------------------ the tests see what is wrong


SYNCHRONIZING: dict[str, Callable[[Tensor], object]] = {
    "item": lambda t: t.sum().item(),
    "tolist": lambda t: t.tolist(),
    "cpu": lambda t: t.cpu(),
    "to": lambda t: t.to("cpu"),
    "bool": lambda t: bool((t > 0).any()),
    "int": lambda t: int(t.sum()),
    "nonzero": lambda t: t.nonzero(),
    "unique": lambda t: t.unique(),
    "masked": lambda t: t[t > 0],
}


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[triton_gpu.GpuPlan], object]], None]:
    """Lets every run of a plan do something before."""

    def use(what: Callable[[triton_gpu.GpuPlan], object]) -> None:
        run = triton_gpu.GpuPlan.run

        def planted(self: triton_gpu.GpuPlan, *args: Any, **options: Any) -> Any:
            what(self)
            return run(self, *args, **options)

        monkeypatch.setattr(triton_gpu.GpuPlan, "run", planted)

    return use


@pytest.mark.parametrize("name", SYNCHRONIZING)
def test_waiting_is_seen(name: str, plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(lambda call: SYNCHRONIZING[name](call.index[0]))
    with pytest.raises(Synchronized):
        watch_calls("rgcn", graphs()[SMALL], monkeypatch)


def test_growing_is_seen(plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Work for each row: of operators, and of Python alone."""
    plant(lambda call: [row + 1 for row in call.index[0]])
    small, big = (watch_calls("rgcn", g, monkeypatch) for g in (graphs()[SMALL], graphs()["tiles"]))
    assert small.operators != big.operators
    plant(lambda call: [abs_of(n) for n in range(call.counts[Space.EDGE])])
    small, big = (watch_calls("rgcn", g, monkeypatch) for g in (graphs()[SMALL], large()))
    assert big.functions > 2 * small.functions


def abs_of(n: int) -> int:
    return abs(n)
