"""What may go wrong, or another way, with a layer and a graph: see ``whole/test_wall_of_state.py``.

Run as a script, this file prints what an ordinary call computes in a fresh process.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import columba
from columba.calls import function
from columba.runtime import fast_path, warn

EDGES = torch.tensor([[0, 1, 2, 2, 3, 0, 4], [1, 2, 0, 1, 3, 0, 1]])
TYPES = torch.tensor([0, 1, 0, 1, 2, 2, 1])
NODES, RELATIONS, SIZE = 6, 3, 4


def filled(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, int(np.prod(shape)), dtype=torch.float32, device="cpu").view(shape)


@functools.partial(columba.compile, backend="cpp")
class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(filled(RELATIONS, SIZE, SIZE))
        self.attention = nn.Parameter(filled(RELATIONS, SIZE))
        self.dropout = nn.Dropout(0.25)

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        message = columba.linear(e.src(self.dropout(h)), e.rel(self.weight))
        alpha = e.softmax((message * e.rel(self.attention)).sum(-1))
        return e.sum(alpha.unsqueeze(-1) * message)


def graph() -> columba.Graph:
    return columba.Graph(EDGES, TYPES, num_nodes=NODES, num_relations=RELATIONS)


def layer() -> Layer:
    return Layer().eval()


def features() -> Tensor:
    return filled(NODES, SIZE).requires_grad_()


def ordinary(module: nn.Module, g: columba.Graph) -> list[list[float]]:
    """Values and gradients of a call without dropout, and of one with it; leaves the random states as they are."""
    found: list[Tensor] = []
    state = torch.get_rng_state()
    for training in (False, True):
        torch.manual_seed(3)
        h = features()
        out = module.train(training)(g, h)
        found += [out, *torch.autograd.grad((out * filled(NODES, SIZE)).sum(), [h, *module.parameters()])]
    torch.set_rng_state(state)
    module.eval()
    return [x.flatten().tolist() for x in found]


# ------------------------------------------------------------------------------------------------ disturbances

Disturbance = Callable[[Layer, columba.Graph], Any]
DISTURBANCES: dict[str, Disturbance] = {}


def disturbance(function: Disturbance) -> Disturbance:
    DISTURBANCES[function.__name__] = function
    return function


def fails(call: Callable[[], Any]) -> None:
    """The call ends in an error, whichever."""
    try:
        call()
    except (Exception, KeyboardInterrupt):
        return
    raise AssertionError("nothing went wrong")


def may_fail(call: Callable[[], Any]) -> None:
    """Whether this works is not the point here."""
    with contextlib.suppress(Exception):
        call()


@disturbance
def grad(m: Layer, g: columba.Graph) -> None:
    torch.func.grad(lambda h: m(g, h).sum())(features())
    torch.func.grad(lambda h: g.edges.sum(g.edges.src(h)).sum())(features())
    fails(lambda: torch.func.grad(lambda h: m(g, h))(features()))


@disturbance
def vmap(m: Layer, g: columba.Graph) -> None:
    torch.func.vmap(lambda h: m(g, h))(features().expand(2, NODES, SIZE))
    torch.func.vmap(torch.func.grad(lambda h: m(g, h).sum()), chunk_size=1)(features().expand(2, NODES, SIZE))
    fails(lambda: torch.func.vmap(lambda h: m(g, h))(features().expand(2, NODES + 1, SIZE)))
    m.train()
    fails(lambda: torch.func.vmap(lambda h: m(g, h))(features().expand(2, NODES, SIZE)))
    m.eval()
    may_fail(lambda: torch.func.vmap(lambda h: g.dst_rel.sum(g.edges.mean(h, to="dst_rel")))(filled(2, 7, SIZE)))


@disturbance
def jvp(m: Layer, g: columba.Graph) -> None:
    torch.func.jvp(lambda h: m(g, h), (features(),), (features(),))
    fails(lambda: torch.func.jvp(lambda h: m(g, h), (features(),), (filled(2),)))
    with torch.autograd.forward_ad.dual_level():
        m(g, torch.autograd.forward_ad.make_dual(features(), filled(NODES, SIZE)))


@disturbance
def jacobians_and_hessians(m: Layer, g: columba.Graph) -> None:
    torch.func.jacrev(lambda h: m(g, h))(features())
    torch.func.jacfwd(lambda h: m(g, h))(features())
    torch.func.hessian(lambda h: m(g, h).sum())(features())
    torch.autograd.functional.jacobian(lambda h: m(g, h), features(), vectorize=True)
    torch.autograd.functional.hessian(lambda h: m(g, h).sum(), features())


@disturbance
def linearize(m: Layer, g: columba.Graph) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.func.linearize(lambda h: m(g, h), features())[1](features())


@disturbance
def transforms_without_an_end(m: Layer, g: columba.Graph) -> None:
    """Tensors of a transform that is over."""
    kept: list[Tensor] = []
    torch.func.vjp(lambda h: (kept.append(m(g, h)), kept[-1])[1], features())
    torch.func.vmap(lambda h: (kept.append(m(g, h)), kept[-1])[1])(features().expand(2, NODES, SIZE))
    for x in kept:
        may_fail(lambda x=x: m(g, x))  # type: ignore[misc]


@disturbance
def profiler(m: Layer, g: columba.Graph) -> None:
    with torch.profiler.profile():
        m(g, features()).sum().backward()


@disturbance
def anomalies(m: Layer, g: columba.Graph) -> None:
    with torch.autograd.set_detect_anomaly(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fails(lambda: m(g, features()).mul(float("nan")).sum().backward())


@disturbance
def checkpoints(m: Layer, g: columba.Graph) -> None:
    from torch.utils.checkpoint import checkpoint

    for reentrant in (False, True):
        checkpoint(m, g, features(), use_reentrant=reentrant).sum().backward()


@disturbance
def functional_call(m: Layer, g: columba.Graph) -> None:
    weights = {name: 2 * p for name, p in m.named_parameters()}
    torch.func.functional_call(m, weights, (g, features())).sum().backward()


@disturbance
def fake_tensors(m: Layer, g: columba.Graph) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    for allow in (False, True):
        with FakeTensorMode(allow_non_fake_inputs=allow):
            may_fail(lambda: m(g, torch.empty(NODES, SIZE)))
            may_fail(lambda: m(g, features()))
            may_fail(lambda: Layer.forward.fn(m, g, features()))
            may_fail(lambda: graph().counts())


@disturbance
def a_graph_of_fake_tensors(m: Layer, g: columba.Graph) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        edges = mode.from_tensor(EDGES)
    with pytest.raises(ValueError, match="edge_index is a FakeTensor, which holds no data; a graph needs ids"):
        columba.Graph(edges)
    with pytest.raises(ValueError, match="edge_index is on the meta device, where tensors hold no data"):
        columba.as_graph(EDGES.to("meta"))
    with pytest.raises(ValueError, match=r"edge_index is wrapped by a function transform \(torch.func\)"):
        torch.func.vmap(lambda edges: columba.as_graph(edges).edges.src(features()))(EDGES.expand(2, 2, 7))


@disturbance
def functional_tensors(m: Layer, g: columba.Graph) -> None:
    from torch._subclasses.functional_tensor import FunctionalTensorMode

    with FunctionalTensorMode():
        may_fail(lambda: m(g, features()))


@disturbance
def make_fx(m: Layer, g: columba.Graph) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    for mode in ("real", "fake", "symbolic"):
        may_fail(lambda mode=mode: make_fx(lambda h: m(g, h), tracing_mode=mode)(features()))  # type: ignore[misc]


@disturbance
def torch_compile(m: Layer, g: columba.Graph) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("a backend that fails")

    fails(lambda: torch.compile(m, fullgraph=True, backend=broken)(g, features()))
    torch._dynamo.reset()
    whole = torch.compile(m, fullgraph=True, backend="aot_eager")
    whole(g, features()).sum().backward()
    fails(lambda: whole(g, torch.ones(NODES + 1, SIZE)))
    out = whole(g, features())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("columba.runtime.opaque._owned", broken)
        fails(lambda: out.sum().backward())
        fails(lambda: whole(g, features()))
    with torch.no_grad():
        whole(g, features())
    torch._dynamo.reset()


@disturbance
def torch_export(m: Layer, g: columba.Graph) -> None:
    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = m

        def forward(self, h: Tensor) -> Tensor:
            return self.layer(g, h)

    for strict in (False, True):
        torch.export.export(Exported(), (features(),), strict=strict).module()(features()).sum().backward()
        fails(lambda strict=strict: torch.export.export(Exported(), (torch.ones(NODES + 1, SIZE),), strict=strict))  # type: ignore[misc]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("columba.calls.exporting.text_of", lambda *_: 1 / 0)
        fails(lambda: torch.export.export(Exported(), (features(),)))
    torch._dynamo.reset()


@disturbance
def jit_trace(m: Layer, g: columba.Graph) -> None:
    may_fail(lambda: torch.jit.trace(lambda h: m(g, h), (features().detach(),), check_trace=False))


@disturbance
def inference_mode(m: Layer, g: columba.Graph) -> None:
    with torch.inference_mode():
        m(g, features())
        graph().counts()


@disturbance
def no_grad(m: Layer, g: columba.Graph) -> None:
    with torch.no_grad():
        m(g, features())


@disturbance
def autocast(m: Layer, g: columba.Graph) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        m(g, features()).sum().backward()


@disturbance
def a_default_device(m: Layer, g: columba.Graph) -> None:
    with torch.device("meta"):
        may_fail(lambda: m(g, features()))
        assert columba.Graph(EDGES, TYPES).structure.index(_src()).tolist() == EDGES[0].tolist()


@disturbance
def a_default_dtype(m: Layer, g: columba.Graph) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        m(g, features()).sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)


@disturbance
def threads(m: Layer, g: columba.Graph) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 2)
    try:
        m(g, features()).sum().backward()
    finally:
        torch.set_num_threads(before)


@disturbance
def deterministic(m: Layer, g: columba.Graph) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        m(g, features()).sum().backward()
        Layer.forward.fn(m, g, features()).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@disturbance
def modes_of_users(m: Layer, g: columba.Graph) -> None:
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Dispatch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    class Function(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    for mode in (Dispatch(), Function()):
        with mode:
            may_fail(lambda: m(g, features()).sum().backward())


@disturbance
def training_and_back(m: Layer, g: columba.Graph) -> None:
    state = torch.get_rng_state()
    m.train()(g, features()).sum().backward()
    torch.set_rng_state(state)
    m.eval()


@disturbance
def other_dtypes(m: Layer, g: columba.Graph) -> None:
    weights = [p.data for p in m.parameters()]
    m.double()(g, features().double()).sum().backward()
    m.float()
    for p, data in zip(m.parameters(), weights, strict=True):
        p.data = data


@disturbance
def wrong_shapes_and_dtypes(m: Layer, g: columba.Graph) -> None:
    for bad in (
        torch.ones(NODES + 1, SIZE),
        torch.ones(NODES, SIZE + 1),
        torch.ones(NODES, SIZE).double(),
        torch.ones(()),
    ):
        fails(lambda bad=bad: m(g, bad))  # type: ignore[misc]
    fails(lambda: m(g, torch.ones(NODES, SIZE, device="meta")))
    fails(lambda: m(g))
    fails(lambda: m(None, features()))


@disturbance
def graphs_out_of_range(m: Layer, g: columba.Graph) -> None:
    fails(lambda: columba.Graph(EDGES + 10**7, num_nodes=NODES))
    fails(lambda: m(columba.as_graph(EDGES, TYPES + 5, num_nodes=NODES, num_relations=RELATIONS), features()))


@disturbance
def nan_and_infinity(m: Layer, g: columba.Graph) -> None:
    for value in (float("nan"), float("inf"), -float("inf"), 3e38):
        h = torch.full((NODES, SIZE), value).requires_grad_()
        m(g, h).sum().backward()


@disturbance
def hooks_that_raise(m: Layer, g: columba.Graph) -> None:
    def hook(*args: Any) -> None:
        raise ValueError("hooked")

    for register in (m.register_forward_pre_hook, m.register_forward_hook, m.dropout.register_forward_hook):
        handle = register(hook)
        fails(lambda: m(g, features()))
        handle.remove()


@disturbance
def gradient_hooks_that_raise(m: Layer, g: columba.Graph) -> None:
    def hook(grad: Tensor) -> None:
        raise ValueError("hooked")

    for where in ("input", "weight", "output"):
        h = features()
        out = m(g, h)
        handle = {"input": h, "weight": m.weight, "output": out}[where].register_hook(hook)
        fails(lambda: out.sum().backward())  # noqa: B023
        handle.remove()
    with torch.autograd.graph.saved_tensors_hooks(hook, lambda x: x):
        may_fail(lambda: m(g, features()))


@disturbance
def double_backward(m: Layer, g: columba.Graph) -> None:
    h = features()
    out = m(g, h)
    out.sum().backward()
    fails(lambda: out.sum().backward())
    (first,) = torch.autograd.grad((m(g, h) ** 2).sum(), h, create_graph=True)
    first.sum().backward()
    fails(lambda: first.sum().backward())


INTERRUPTED = {
    "trace": (function, "trace"),
    "index arrays": ("columba.runtime.graphs.index_arrays.IndexArrays", "_build"),
    "binding": (fast_path.ProgramOnGraph, "__init__"),
    "forward": ("columba.runtime.cpp.launch.CppLauncher", "run"),
    "variants": ("columba.selection.variants.Variants", "names"),
    "compilation": ("columba.selection.variants.Variants", "planned"),
    "launch": ("columba.runtime.cpp.launch.CppExecutable", "bind"),
    "replay": ("columba.frontend.trace.Trace", "rebuild"),
}


@disturbance
def interrupts(m: Layer, g: columba.Graph) -> None:
    """Before and after the work of a step."""
    from pkgutil import resolve_name

    for owner, name in INTERRUPTED.values():
        place: Any = resolve_name(owner) if isinstance(owner, str) else owner
        real = getattr(place, name)
        for late in (False, True):

            def interrupted(*args: Any, real: Any = real, late: bool = late, **kwargs: Any) -> Any:
                if late:
                    real(*args, **kwargs)
                raise KeyboardInterrupt

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(place, name, interrupted)
                with contextlib.suppress(KeyboardInterrupt):  # a warm call does not come by everywhere
                    m(g, features()).sum().backward()


@disturbance
def an_interrupted_backward(m: Layer, g: columba.Graph) -> None:
    out = m(g, features())
    with pytest.MonkeyPatch.context() as patch:

        def run(*args: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr("columba.runtime.cpp.launch.CppLauncher.run", run)
        fails(lambda: out.sum().backward())


@disturbance
def an_interrupted_body(m: Layer, g: columba.Graph) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def forward(x: Tensor) -> Tensor:
            raise KeyboardInterrupt

        patch.setattr(m.dropout, "forward", forward)
        with contextlib.suppress(KeyboardInterrupt):  # a warm call may have no need of the body
            m(g, features())


@disturbance
def a_failed_build(m: Layer, g: columba.Graph) -> None:
    @columba.compile(backend="cpp")
    def other(g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h) * 0.123456789)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise columba.runtime.build.BuildError("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("columba.runtime.cpp.launch.build_emitted", broken)
        fails(lambda: other(g, features()))


@disturbance
def traces_that_fail(m: Layer, g: columba.Graph) -> None:
    @columba.compile
    def refused(g: columba.Graph, h: Tensor) -> Tensor:
        x = g.edges.sum(g.edges.src(h))
        return x[0] if x.sum().item() > 0 else x.cumsum(0)

    fails(lambda: refused(g, features()))
    fails(lambda: columba.compile(lambda h: h + 1)(features()))


@disturbance
def retraces(m: Layer, g: columba.Graph) -> None:
    for size in (1, 5):
        columba.compile(lambda g, h: g.edges.sum(g.edges.src(h)), backend="torch")(g, torch.ones(NODES, size))
    block = columba.Graph(EDGES, TYPES, num_nodes=(NODES, 5), num_relations=RELATIONS)
    m(block, features()).sum().backward()


@disturbance
def warnings_as_errors(m: Layer, g: columba.Graph) -> None:
    warn._warned.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        may_fail(lambda: columba.compile(Layer.forward.fn, backend="auto")(m.half(), g, features().half()))
    m.float()
    for p, fresh in zip(m.parameters(), Layer().parameters(), strict=True):
        p.data.copy_(fresh)


@disturbance
def copies(m: Layer, g: columba.Graph) -> None:
    other, same = copy.deepcopy((m, g))
    other(same, features()).sum().backward()
    other.weight.data.zero_()
    m(copy.copy(g), features())
    m(pickle.loads(pickle.dumps(g)), features())
    buffer = io.BytesIO()
    torch.save(m.state_dict(), buffer)
    buffer.seek(0)
    m.load_state_dict(torch.load(buffer))


@disturbance
def explain(m: Layer, g: columba.Graph) -> None:
    columba.explain(m, g, features())
    columba.explain(m.train(), g, features())  # a call would draw a seed
    m.eval()


@disturbance
def interrupted_tuning(m: Layer, g: columba.Graph) -> None:
    from columba.tuning.search import Search

    def run(*args: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Search, "_build", run)
        fails(lambda: columba.tune(m, g, features(), budget=0.01, again=True))


@disturbance
def gradient_modes(m: Layer, g: columba.Graph) -> None:
    m.requires_grad_(False)
    m(g, features().detach())
    m(g, features()).sum().backward()
    m.requires_grad_(True)
    with torch.autograd.detect_anomaly(check_nan=False), torch.autograd.profiler.profile():
        m(g, features()).sum().backward()


def _src() -> Any:
    from columba.ir.indices import Lookup
    from columba.ir.spaces import IndexMap, Space

    return Lookup(IndexMap("src", Space.EDGE, Space.NODE))


def random_states() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), kind, keys.tolist(), rest


if __name__ == "__main__":
    print(json.dumps(ordinary(layer(), graph())))
