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

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from triton_matrix import INTERPRETED, PASSES, PROGRAMS, Pair, graphs, random_graph, tensors_of

import columba
from columba.ir.counts import Counts
from columba.ir.plan.plan import spaces_of
from columba.ir.spaces import Space
from columba.runtime import fast_path, operators
from columba.runtime.graphs.graph import Graph
from columba.runtime.host import run_host_program
from columba.runtime.triton import launch as triton_launch
from columba.runtime.triton.launch import TritonExecutable, _Call

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
    """Stands for a module of kernels, which it only counts."""

    launches: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        kernels = self

        class Kernel:
            def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
                assert all(isinstance(n, int) for n in grid)
                return lambda *args, **options: kernels.launches.append(name)

        return Kernel()


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
        patch.setattr(triton_launch, "load_functions", lambda source, interpreted: kernels)
        patch.setattr(fast_path, "is_plain", lambda inputs: False)  # as for tensors of a GPU
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


def watch_fake(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs both plans of a layer on tensors of a GPU that hold nothing."""
    pair = Pair(PROGRAMS[program], 7, 3, torch.float32, INTERPRETED)
    graph = graphs()[SMALL]
    ours, _ = pair.arguments(graph)
    compiled = columba.compile(pair.layer, backend="triton", passes=PASSES[0])
    executable = TritonExecutable(columba.explain(compiled, *ours).compilation.plans, columba.ir.types.DType.I32)
    assert len(executable.plans) == 2
    kernels = Kernels()
    with monkeypatch.context() as patch:
        patch.setattr(triton_launch, "load_functions", lambda source, interpreted: kernels)
        patch.setattr(triton_launch, "_on", lambda device: contextlib.nullcontext())
        patch.setattr(triton_launch, "processors", lambda device: 132)
        for plan in executable.plans:
            used = spaces_of(plan)
            counts = [graph.count(space) if space in used else 0 for space in Space]
            shape = Counts(counts).shape
            index = [graph.index(a) for a in plan.index_arrays]
            seen = _Operators()
            with FakeTensorMode(allow_non_fake_inputs=False), seen:
                arrays = [torch.empty(a.shape, dtype=a.dtype, device="cuda") for a in index]
                inputs = [
                    torch.empty(shape(b.type), dtype=triton_launch.torch_dtype(b.type.dtype), device="cuda")
                    for b in plan.inputs
                ]
                host = functools.partial(run_host_program, counts=counts)
                outputs = executable.bind(plan.name, arrays, counts, host)(inputs)
            assert all(o.device.type == "cuda" for o in outputs)
            assert [tuple(o.shape) for o in outputs] == [shape(b.type) for b in plan.outputs]
    wanted = {n.function for steps in executable.module.steps.values() for s in steps for n in s.launches}
    assert set(kernels.launches) == wanted


@pytest.mark.parametrize("program", PROGRAMS)
def test_launching_needs_no_data(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watch_fake(program, monkeypatch)


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
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[_Call], object]], None]:
    """Lets every launch do something before."""

    def use(what: Callable[[_Call], object]) -> None:
        launch = _Call._launch

        def planted(self: _Call, *args: Any, **options: Any) -> None:
            what(self)
            launch(self, *args, **options)

        monkeypatch.setattr(_Call, "_launch", planted)

    return use


@pytest.mark.parametrize("name", SYNCHRONIZING)
def test_waiting_is_seen(name: str, plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(lambda call: SYNCHRONIZING[name](call.index[0]))
    with pytest.raises(Synchronized):
        watch_calls("rgcn", graphs()[SMALL], monkeypatch)


@pytest.mark.parametrize("name", ["item", "tolist", "cpu", "to", "bool", "unique"])
def test_waiting_is_seen_by_fake_tensors(
    name: str, plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(lambda call: SYNCHRONIZING[name](call.index[0]))
    with pytest.raises(Synchronized):
        watch_fake("rgcn", monkeypatch)


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
