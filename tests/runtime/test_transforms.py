"""Second derivatives, forward mode and function transforms of compiled functions, against the same functions run eagerly."""

from __future__ import annotations

import functools
import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import leaf, randomized, tensors_of
from torch import Tensor, nn
from torch.autograd import forward_ad

import columba
from columba.ir.program.dependence import gradient_dependences
from columba.ir.program.ops import Input, Pointwise, Value
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.ir.types import DType, TensorType
from columba.runtime import warn

pytestmark = pytest.mark.unoptimized

EDGES = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 1, 1]])
G = columba.Graph(EDGES, torch.tensor([0, 1, 0, 2, 2]), num_nodes=4, num_relations=3)
N, R, E = 4, 3, 5
IDS = torch.arange(N) % 3


def several(g: columba.Graph, h: Tensor, f: Tensor, w: Tensor, unused: Tensor, ids: Tensor) -> dict[str, Any]:
    """Results of the graph, of plain tensors, an input, a view of one; an input of integers, and one that little depends on."""
    e = g.edges
    x = e.src(h).exp()
    y = e.sum(x * e.rel(w) * e.src(ids).to(h.dtype).unsqueeze(-1))
    return {
        "sum": y,
        "max": e.max(x * f.unsqueeze(-1)),
        "attended": e.sum(e.softmax((x * e.dst(y)).sum(-1)).unsqueeze(-1) * x),
        "input": h,
        "view": f.unsqueeze(-1),
        "plain": unused * 2,
        "number": 3,
    }


compiled = columba.compile(several, backend="cpp")
ARGS = (leaf(N, 2, seed=1), leaf(E, seed=2), leaf(R, 2, seed=3), leaf(N, 2, seed=4))


def of_tensors(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    return lambda *args: tuple(tensors_of(function(G, *args, IDS)))


def assert_equal(found: Any, wanted: Any) -> None:
    for a, b in zip(tensors_of(found), tensors_of(wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:columba. there are no kernels")
def test_gradcheck_of_all_orders_and_modes() -> None:
    call = of_tensors(compiled)
    assert torch.autograd.gradcheck(
        call, ARGS, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True, fast_mode=True
    )
    assert torch.autograd.gradgradcheck(call, ARGS, check_fwd_over_rev=True, fast_mode=True)


def scalar(function: Callable[..., Any]) -> Callable[..., Tensor]:
    return lambda *args: sum(x.square().sum() for x in of_tensors(function)(*args))  # type: ignore[return-value]


TRANSFORMS: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "third derivatives": lambda f: torch.func.grad(
        lambda x: torch.func.hessian(lambda y: scalar(f)(y, *ARGS[1:]))(x).square().sum()
    )(ARGS[0]),
    "jacfwd of jacrev, of two": lambda f: torch.func.jacfwd(torch.func.jacrev(scalar(f), argnums=(0, 2)), argnums=2)(*ARGS),
    "vmap of vmap": lambda f: torch.func.vmap(
        torch.func.vmap(of_tensors(f), in_dims=(0, None, None, None)), in_dims=(None, 1, None, None), out_dims=1
    )(ARGS[0].expand(2, N, 2) * 1.5, torch.stack([ARGS[1], ARGS[1] + 1], 1), *ARGS[2:]),
    "gradients of each": lambda f: torch.func.vmap(torch.func.grad(scalar(f), argnums=(0, 1, 2, 3)), in_dims=(0, None, None, None))(
        torch.stack([ARGS[0], -ARGS[0]]), *ARGS[1:]
    ),
    "gradient of all": lambda f: torch.func.grad(
        lambda x: sum(y.square().sum() for y in torch.func.vmap(of_tensors(f), in_dims=(0, None, None, None))(x, *ARGS[1:]))
    )(torch.stack([ARGS[0], -ARGS[0]])),
    "in chunks": lambda f: torch.func.vmap(of_tensors(f), in_dims=(0, None, None, None), chunk_size=2)(
        ARGS[0] * torch.arange(3.0, dtype=torch.float64).view(3, 1, 1), *ARGS[1:]
    ),
    "a batch of none": lambda f: torch.func.vmap(of_tensors(f), in_dims=(0, None, None, None))(ARGS[0].new_ones(0, N, 2), *ARGS[1:]),
    "an outer variable": lambda f: torch.func.grad(
        lambda x: torch.func.vjp(lambda y: scalar(f)(x, y, *ARGS[2:]), ARGS[1])[1](torch.ones((), dtype=torch.float64))[0].sum()
    )(ARGS[0]),
    "without a gradient inside": lambda f: torch.func.grad(
        lambda x: scalar(f)(x, *ARGS[1:]) + torch.no_grad()(scalar(f))(x, *ARGS[1:])
    )(ARGS[0]),
    "a tangent under no_grad": lambda f: _tangent(f),
    "linearize": lambda f: torch.func.linearize(lambda x: of_tensors(f)(x, *ARGS[1:]), ARGS[0])[1](torch.ones_like(ARGS[0])),
}  # fmt: skip


def _tangent(function: Callable[..., Any]) -> list[Tensor]:
    with torch.no_grad(), forward_ad.dual_level():
        x = forward_ad.make_dual(ARGS[0].detach(), torch.ones_like(ARGS[0]))
        found = of_tensors(function)(x, *ARGS[1:])
        return [forward_ad.unpack_dual(x).tangent for x in found if forward_ad.unpack_dual(x).tangent is not None]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.filterwarnings("ignore:columba. there are no kernels", "ignore:Attempted to insert")
def test_transform(name: str) -> None:
    assert_equal(TRANSFORMS[name](compiled), TRANSFORMS[name](several))


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(R, 2, 2, dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        return torch.tanh(e.sum(self.dropout(columba.linear(e.src(h), e.rel(self.weight)))))


@pytest.mark.filterwarnings("ignore:columba. there are no kernels")
def test_dropout() -> None:
    """Second derivatives have the mask of the first; a batch has one, or one each, or is refused, as PyTorch's dropout is."""
    module = columba.compile(Dropped(), backend="cpp")
    h = leaf(N, 2)

    def call(x: Tensor, w: Tensor) -> Tensor:
        torch.manual_seed(1)
        return torch.func.functional_call(module, {"weight": w}, (G, x))

    assert torch.autograd.gradgradcheck(call, (h, module.weight), fast_mode=True)
    batch = h.detach().expand(3, N, 2)
    one = torch.func.vmap(lambda x: module(G, x), randomness="same")(batch)
    assert torch.equal(one[0], one[1])
    others = torch.func.vmap(lambda x: module(G, x), randomness="different")(batch)
    assert not torch.equal(others[0], others[1])
    with pytest.raises(RuntimeError, match="called random operation while in randomness error mode"):
        torch.func.vmap(lambda x: module(G, x))(batch)
    assert torch.equal(module.eval()(G, h), module(G, h))


def test_an_ensemble_trains() -> None:
    members = [randomized(Dropped(), torch.float64).eval() for _ in range(3)]
    for n, member in enumerate(members):
        member.weight.data *= n + 1
    parameters, buffers = torch.func.stack_module_state(members)
    base = columba.compile(Dropped().double().eval(), backend="cpp")

    def call(p: Any, b: Any, x: Tensor) -> Tensor:
        return torch.func.functional_call(base, (p, b), (G, x))

    h = leaf(N, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.func.vmap(call, in_dims=(0, 0, None))(parameters, buffers, h)
    grads = torch.autograd.grad(found.square().sum(), [h, parameters["weight"]])
    wanted = torch.stack([member(G, h) for member in members])
    assert_equal(found, wanted)
    of_h, *of_weights = torch.autograd.grad(wanted.square().sum(), [h, *(m.weight for m in members)])
    assert_equal(grads, (of_h, torch.stack(of_weights)))
    assert_equal(torch.func.vmap(call, in_dims=(0, 0, None))(*(parameters, buffers), h.detach()), wanted)


@pytest.mark.filterwarnings("ignore:columba. there are no kernels")
def test_several_programs_in_sequence() -> None:
    """Over two graphs, with PyTorch between; at the first call, and at later ones."""
    other = columba.Graph(torch.tensor([[0, 1, 3], [2, 2, 0]]), num_nodes=N)

    def parts(g: columba.Graph, k: columba.Graph, h: Tensor) -> Tensor:
        x = torch.tanh(g.edges.sum(g.edges.src(h).exp()))
        return k.edges.mean(k.edges.src(x.cumsum(0)) * 2) + h

    ours = columba.compile(parts, backend="cpp", fullgraph=False)
    h = ARGS[0]

    def derivatives(call: Callable[..., Tensor]) -> list[Any]:
        def loss(x: Tensor) -> Tensor:
            return call(G, other, x).square().sum()

        batch = torch.stack([h.detach(), -h.detach()])
        (first,) = torch.autograd.grad(loss(h), h, create_graph=True)
        return [
            torch.func.grad(loss)(h),
            torch.func.hessian(loss)(h),
            torch.func.vmap(torch.func.grad(loss))(batch),
            torch.autograd.grad(first.square().sum(), h)[0],
        ]

    wanted = derivatives(parts)
    for _ in range(3):
        assert_equal(derivatives(ours), wanted)


@pytest.mark.filterwarnings("ignore:columba. there are no kernels")
def test_second_derivatives_of_what_autocast_casts() -> None:
    def message(g: columba.Graph, h: Tensor, w: Tensor) -> Tensor:
        return torch.tanh(g.edges.sum(columba.linear(g.edges.src(h), g.edges.rel(w))))

    h = leaf(N, 2, dtype=torch.float32)
    w = leaf(R, 2, 2, dtype=torch.float32, seed=1)

    def penalty(call: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = call(G, h, w)
        assert y.dtype is torch.bfloat16
        (first,) = torch.autograd.grad(y.float().square().sum(), h, create_graph=True)
        assert first.dtype is torch.float32
        return torch.autograd.grad(first.square().sum(), [h, w])

    for ours, theirs in zip(penalty(columba.compile(message, backend="cpp")), penalty(message), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05 * float(theirs.abs().max()))


@functools.partial(columba.compile, backend="cpp")
def saturated(g: columba.Graph, h: Tensor) -> Tensor:
    """Its gradient reads the result alone, and depends on ``h``."""
    return torch.tanh(g.edges.sum(g.edges.src(h)))


@pytest.mark.filterwarnings("ignore:columba. there are no kernels")
@pytest.mark.parametrize("hooks", [False, True])
def test_inputs_that_only_second_derivatives_need(hooks: bool) -> None:
    saturated(G, leaf(N, 2))
    specialization, bound = saturated.specialize(G, leaf(N, 2))
    pair = specialization.runnable(G, bound.inputs).on(G).pair
    assert (pair.inputs, pair.extra) == ([], [0])
    h = leaf(N, 2)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x) if hooks else torch.enable_grad():
        y = saturated(G, h)
    (first,) = torch.autograd.grad(y.sum(), h, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), h)
    x = h.detach().requires_grad_()
    wanted = torch.autograd.functional.hessian(
        lambda x: torch.tanh(torch.stack([x[2], x[0] + x[2] + x[3], x[1], x[1] * 0])).sum(), x
    )
    torch.testing.assert_close(second, wanted.sum((2, 3)))


def test_a_change_of_such_an_input_is_an_error_of_the_second_derivative_alone() -> None:
    h = leaf(N, 2).detach()
    source = leaf(N, 2)
    y, changed = saturated(G, x := source + h), saturated(G, z := source + h)
    with torch.no_grad():
        x += 1
        z += 1
    y.sum().backward()
    (first,) = torch.autograd.grad(saturated(G, source).sum(), source)
    torch.testing.assert_close(source.grad.isfinite(), first.isfinite())
    with pytest.raises(
        RuntimeError, match=r"second derivative of saturated needs an input of shape \[4, 2\] that has been modified"
    ):
        torch.autograd.grad(changed.sum(), source, create_graph=True)


@pytest.mark.filterwarnings("ignore:columba. there are no kernels")
def test_where_nothing_else_is_saved() -> None:
    @functools.partial(columba.compile, backend="cpp")
    def stepped(g: columba.Graph, h: Tensor) -> Tensor:
        x = g.edges.src(h)
        return g.edges.sum(x.floor() + x)

    h = leaf(N, 2)
    y = stepped(G, h)
    (first,) = torch.autograd.grad(y.sum(), h, create_graph=True)
    assert not torch.autograd.grad(first.sum(), h)[0].any()
    assert_equal(torch.autograd.grad(y.sum(), h), (first.detach(),))
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        torch.autograd.grad(y.sum(), h, create_graph=True)


def test_such_an_input_is_kept_no_longer_than_the_graph_of_autograd() -> None:
    x = leaf(N, 2) * 2
    alive = weakref.ref(x)
    y = saturated(G, x)
    del x
    assert alive() is not None
    y.sum().backward()
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("name", ["rgcn", "rgat", "hgt"])
def test_shipped_layers_keep_nothing_but_parameters_for_second_derivatives(name: str) -> None:
    g = columba.Graph(EDGES, torch.tensor([0, 1, 0, 2, 2]), node_type=IDS % 2, num_relations=3)
    layer = {
        "rgcn": lambda: columba.nn.RGCNConv(2, 4, 3),
        "rgat": lambda: columba.nn.RGATConv(2, 2, 3, heads=2),
        "hgt": lambda: columba.nn.HGTConv(2, 4, 2, 3, heads=2),
    }[name]()
    for passes in ("-aggregate_first,compact_materialization", "aggregate_first,compact_materialization"):
        compiled = columba.compile(layer, passes=passes)
        made = columba.explain(compiled, torch.ones(N, 2, requires_grad=True), g).compilation
        read = {n for place, n in (*made.sources, *filter(None, made.gradients)) if place == "input"}
        wanted = [n for n, gradient in enumerate(made.gradients) if gradient is not None]
        kept = {made.traced.inputs[n].name for n in gradient_dependences(made.traced, wanted) - read}
        assert kept <= {"k_bias", "q_bias", "v_bias"}


def test_a_warning_is_about_the_line_that_called() -> None:
    warn._warned.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.func.jvp(lambda h: saturated(G, h), (ARGS[0],), (ARGS[0],))
        (first,) = torch.autograd.grad(saturated(G, ARGS[0]).sum(), ARGS[0], create_graph=True)
        torch.autograd.grad(first.sum(), ARGS[0])
    told = [w for w in caught if "PyTorch's operators" in str(w.message)]
    assert [w.filename for w in told] == [__file__] * 2


def test_what_gradients_depend_on() -> None:
    def dependences(make: Callable[[Value, Value], Value], *wrt: int) -> set[str]:
        h, w, b = (Input(name, TensorType(Space.NODE, (2,), DType.F64)) for name in "hwb")
        program = Program("p", (h, w, b), (Pointwise((make(h, w), b), "add"),), ("out",))
        return {program.inputs[n].name for n in gradient_dependences(program, wrt)}

    def f(function: str) -> Callable[..., Value]:
        return lambda *args: Pointwise(args, function)

    assert dependences(f("add"), 0, 1, 2) == set()
    assert dependences(f("mul"), 0, 1, 2) == {"h", "w"}
    assert dependences(f("mul"), 0) == {"w"}
    assert dependences(f("mul"), 2) == set()
    assert dependences(lambda h, w: f("mul")(h, f("exp")(w)), 0) == {"w"}
    assert dependences(lambda h, w: f("mul")(h, f("exp")(w)), 1) == {"h", "w"}
    assert dependences(lambda h, w: f("add")(f("relu")(h), w), 0, 1) == {"h"}
    assert dependences(lambda h, w: f("add")(f("mul")(h, h), w), 0, 1) == {"h"}
    assert dependences(lambda h, w: f("tanh")(f("add")(h, f("neg")(w))), 0) == {"h", "w"}
