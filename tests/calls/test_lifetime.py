"""What a compiled function keeps alive, and what it does under inference mode and in several threads."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import PAIRS, assert_same, leaf, tensors_of
from eager_graphs import RELATIONS, square_graphs
from torch import Tensor, nn

import columba
from columba.calls import function
from columba.runtime import operators, warn
from columba.runtime.graphs.from_tensors import as_graph

pytestmark = pytest.mark.unoptimized

G = square_graphs()["random"]
N = G.num_nodes


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Layer(nn.Module):
    """Has what tempts a trace to keep it: a submodule that knows it, a bound method, a function that encloses it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(RELATIONS, 3, 3, dtype=torch.float64))
        self.inner = Inner()
        object.__setattr__(self.inner, "parent", self)
        self.activation = self.smooth
        self.scaled = lambda x: x * self.factor
        self.factor = 2.0

    def smooth(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        messages = columba.linear(e.src(h), e.rel(self.weight))
        rows = messages.view(messages.shape[0], 3)
        return self.scaled(self.inner(self.activation(e.sum(rows))))


def instance() -> tuple[Callable[..., Any], list[nn.Module]]:
    module = Layer()
    return columba.compile(module, backend="cpp", passes=PAIRS), [module]


def decorated() -> tuple[Callable[..., Any], list[nn.Module]]:
    module = _Decorated()
    return module, [module]


def closure() -> tuple[Callable[..., Any], list[nn.Module]]:
    module = Layer()

    @columba.compile(backend="cpp", passes=PAIRS)
    def function(g: columba.Graph, h: Tensor) -> Tensor:
        return module(g, h)

    return function, [module]


def argument() -> tuple[Callable[..., Any], list[nn.Module]]:
    module = Layer()
    return functools.partial(_apply, module), [module]


@columba.compile(backend="cpp", passes=PAIRS)
def _apply(module: Layer, g: columba.Graph, h: Tensor) -> Tensor:
    return module(g, h)


class _Decorated(Layer):
    @columba.compile(backend="cpp", passes=PAIRS)
    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return Layer.forward(self, g, h)


@pytest.mark.parametrize("make", [instance, decorated, closure, argument])
@pytest.mark.parametrize("train", [pytest.param(False, marks=pytest.mark.slow), True])
def test_modules_are_freed(make: Callable[..., Any], train: bool) -> None:
    call, modules = make()
    h = leaf(N, 3)
    for _ in range(6):  # the shortcut too
        with contextlib.nullcontext() if train else torch.no_grad():
            out = call(G, h)
        if train:
            out.sum().backward()
    seen = [weakref.ref(m) for m in (*modules, *(m.inner for m in modules))]
    arguments = [weakref.ref(h)]
    del call, modules, h, out
    gc.collect()
    assert [ref() for ref in (*seen, *arguments)] == [None] * len([*seen, *arguments])


def test_compiled_programs_are_freed_with_their_module() -> None:
    gc.collect()
    before = len(operators._programs)
    call, modules = instance()
    graph = columba.Graph(G.edge_index, G.edge_type, num_nodes=N)
    for _ in range(4):
        call(graph, leaf(N, 3)).sum().backward()
    assert len(operators._programs) == before + 1
    del call, modules
    gc.collect()
    gc.collect()  # the module is in a cycle, and what it alone has kept is in another
    assert len(operators._programs) == before


def test_the_backward_pass_outlives_the_module() -> None:
    call, modules = instance()
    h = leaf(N, 3)
    expected = torch.autograd.grad(modules[0](G, h).square().sum(), [h])
    for profiled in (False, True):
        call, modules = columba.compile(modules[0], backend="cpp", passes=PAIRS), modules
        with torch.profiler.profile() if profiled else contextlib.nullcontext():
            out = call(G, h)
        del call
        gc.collect()
        torch.testing.assert_close(torch.autograd.grad(out.square().sum(), [h]), expected)


def test_a_trace_does_not_keep_the_tensors_and_the_graph_of_its_call() -> None:
    call, modules = instance()
    h, graph = leaf(N, 3), columba.Graph(G.edge_index, G.edge_type, num_nodes=N)
    call(graph, h)
    seen = weakref.ref(h), weakref.ref(graph)
    del h, graph
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
    assert_same(call, modules[0], [G, leaf(N, 3)])


# ------------------------------------------------------------------------------------------------ inference mode


def layer() -> columba.nn.RGCNConv:
    torch.manual_seed(0)
    return columba.nn.RGCNConv(3, 4, RELATIONS).double()


def test_graphs_of_inference_tensors() -> None:
    with torch.inference_mode():
        edge_index, edge_type = G.edge_index.clone(), G.edge_type.clone()
        first = as_graph(edge_index, edge_type, num_nodes=N, num_relations=RELATIONS)
        assert as_graph(edge_index, edge_type, num_nodes=N, num_relations=RELATIONS) is first
        edge_type.zero_()  # nothing counts that change
        second = as_graph(edge_index, edge_type, num_nodes=N, num_relations=RELATIONS)
    assert second is not first
    assert not second.edge_type.any()


@pytest.mark.parametrize("tensors", [False, True])
def test_inference_mode(tensors: bool) -> None:
    eager = layer()
    compiled = columba.compile(eager, backend="cpp", passes=PAIRS)
    h = leaf(N, 3)
    with torch.inference_mode():
        args = (G.edge_index.clone(), G.edge_type.clone()) if tensors else (G,)
        expected = eager(h, *args)
        for _ in range(5):
            out = compiled(h, *args)
            assert out.is_inference()
            torch.testing.assert_close(out, expected)


MODES = {
    "grad": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize(
    "order", [("inference", "grad"), ("no_grad", "grad", "inference"), ("grad", "no_grad", "grad")]
)
@pytest.mark.parametrize("watched", [False, True])
def test_modes_mixed(order: tuple[str, ...], watched: bool) -> None:
    """A graph and a module that were first used under one mode serve another, on the short way and through the operators."""
    eager = layer()
    compiled = columba.compile(eager, backend="cpp", passes=PAIRS)
    with MODES[order[0]]():
        graph = columba.Graph(G.edge_index, G.edge_type, num_nodes=N, num_relations=RELATIONS)
    for mode in order:
        for _ in range(3):
            h = leaf(N, 3)
            with MODES[mode](), torch.profiler.profile() if watched else contextlib.nullcontext():
                out = compiled(h, graph)
            assert out.requires_grad == (mode == "grad")
            torch.testing.assert_close(out, eager(h, graph), check_stride=False)
            if mode == "grad":
                found = torch.autograd.grad(out.square().sum(), [h, eager.weight])
                torch.testing.assert_close(
                    found, torch.autograd.grad(eager(h, graph).square().sum(), [h, eager.weight])
                )


def test_gradients_enabled_inside_no_grad() -> None:
    eager = layer()
    compiled = columba.compile(eager, backend="cpp", passes=PAIRS)
    for _ in range(3):
        with torch.no_grad():
            assert not compiled(leaf(N, 3), G).requires_grad
            with torch.enable_grad():
                assert_same(compiled, eager, [leaf(N, 3), G], [eager.weight])
    with torch.inference_mode(), torch.enable_grad():
        assert not compiled(leaf(N, 3), G).requires_grad


# ------------------------------------------------------------------------------------------------ several threads


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    barrier, results = threading.Barrier(count), [None] * count

    def run(n: int) -> None:
        barrier.wait()
        try:
            results[n] = work(n)
        except BaseException as e:
            results[n] = e

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for r in results:
        if isinstance(r, BaseException):
            raise r
    return results


def test_first_calls_in_several_threads() -> None:
    """Of one compiled module, and of several that share submodules: each is traced by itself, and all are what they were."""
    module = Layer()
    h = leaf(N, 3)
    expected = module(G, h)
    compiled = [columba.compile(module, backend="cpp", passes=p) for p in (PAIRS, f"{PAIRS},-merge_pads")]
    for out in in_threads(6, lambda n: compiled[n % 2](G, h)):
        torch.testing.assert_close(out, expected)
    assert type(module) is Layer
    assert type(module.inner) is Inner
    forward = type(compiled[0]).forward
    assert len(forward._of_modules[compiled[0]]) == 1


# ------------------------------------------------------------------------------------------------ copies, and what does not repeat


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), copy.copy])
def test_copies_are_compiled_for_themselves(copied: Callable[[nn.Module], nn.Module]) -> None:
    compiled = columba.compile(layer(), backend="cpp", passes=PAIRS)
    for _ in range(3):
        compiled(leaf(N, 3), G)
    other = copied(compiled)
    with torch.no_grad():
        other.weight.mul_(2.0)
    if copied is not copy.copy:
        assert not torch.equal(other.weight, compiled.weight)
    eager = layer()
    eager.load_state_dict(other.state_dict())
    assert_same(other, eager, [leaf(N, 3), G])


@columba.compile(backend="cpp", passes=PAIRS)
def _with_function(g: columba.Graph, h: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(g.edges.sum(g.edges.src(h)))


def test_methods_and_partial_functions_made_anew_do_not_retrace() -> None:
    h, module = leaf(N, 3), Layer()
    before = len(_with_function._own)
    for _ in range(3):
        _with_function(G, h, module.smooth)
        _with_function(G, h, functools.partial(torch.clamp, min=0.0))
    assert len(_with_function._own) == before + 2
    out = _with_function(G, h, functools.partial(torch.clamp, min=0.5))
    assert float(tensors_of(out)[0].min()) >= 0.5
    assert len(_with_function._own) == before + 3


def test_a_function_that_is_traced_again_and_again_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "MANY_TRACES", 3)
    monkeypatch.setattr(warn, "_warned", set())

    @columba.compile(backend="torch")
    def scaled(g: columba.Graph, h: Tensor, by: float) -> Tensor:
        return g.edges.sum(g.edges.src(h)) * by

    with pytest.warns(RuntimeWarning, match=r"scaled has been traced 3 times.*the arguments differ"):
        [scaled(G, leaf(N, 3), 0.5 + n) for n in range(5)]
