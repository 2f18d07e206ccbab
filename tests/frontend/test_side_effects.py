"""Side effects of traced code: hooks run at every call, or are refused by name, and so is what would happen only once."""

from __future__ import annotations

import builtins
import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compiled import assert_same, leaf
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import columba

pytestmark = pytest.mark.unoptimized

G = columba.Graph(torch.tensor([[0, 1, 2, 2, 3], [2, 2, 0, 3, 0]]), num_nodes=4)
LOG: list[Any] = []


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3, dtype=torch.float64)
        self.calls = 0
        self.width: int | None = None
        self.late: nn.Module | None = None

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return self.inner(g.edges.sum(g.edges.src(h)))  # type: ignore[no-any-return]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


def with_forward(forward: Callable[[Net, Any, Tensor], Any]) -> Net:
    return type("Changed", (Net,), {"forward": forward})()  # type: ignore[no-any-return]


def with_hook(register: Callable[[Net], Any]) -> Net:
    net = Net()
    register(net)
    return net


def plain(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    return Net.forward(net, g, h)


def counting(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    net.calls += 1
    return plain(net, g, h)


def keeping(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    out = plain(net, g, h)
    LOG.append(out)
    return out


def keeping_in_a_dict(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    out = plain(net, g, h)
    net.__dict__.setdefault("kept", {})["out"] = out
    return out


def logging(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    LOG.append("a call")
    return plain(net, g, h)


def printing(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    print(h.shape)
    return plain(net, g, h)


def hooking(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    out = plain(net, g, h)
    out.register_hook(lambda grad: grad * 2)
    return out


def backward_hook(module: nn.Module, *grads: Any) -> None:
    LOG.append(grads)


REFUSED: dict[str, tuple[Callable[[], Net], str]] = {
    "counter": (lambda: with_forward(counting), r"Net\.calls has changed|Changed\.calls|calls"),
    "tensor in a list": (
        lambda: with_forward(keeping),
        r"test_side_effects.*is kept in a list beyond the call; return it",
    ),
    "tensor in a dict": (lambda: with_forward(keeping_in_a_dict), "is kept in a dict beyond the call; return it"),
    "append": (lambda: with_forward(logging), "LOG has changed"),
    "print": (lambda: with_forward(printing), r"test_side_effects\.py:\d+: print\(\.\.\.\) inside a compiled function"),
    "register_hook": (
        lambda: with_forward(hooking),
        r"register_hook of a computed tensor.*call register_hook on the result",
    ),
    "autograd.Function": (
        lambda: with_forward(lambda net, g, h: Doubled.apply(plain(net, g, h))),
        "torch.autograd.Function Doubled cannot be traced",
    ),
    "full backward hook": (
        lambda: with_hook(lambda net: net.inner.register_full_backward_hook(backward_hook)),
        r"Linear has a backward hook \(backward_hook\)",
    ),
    "full backward pre-hook": (
        lambda: with_hook(lambda net: net.inner.register_full_backward_pre_hook(backward_hook)),
        r"Linear has a backward hook \(backward_hook\)",
    ),
    "backward hook": (
        lambda: with_hook(lambda net: net.inner.register_backward_hook(backward_hook)),
        r"Linear has a backward hook \(backward_hook\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_happen_once_is_refused(name: str) -> None:
    made, message = REFUSED[name]
    LOG.clear()
    before = builtins.print
    net = made()
    with pytest.raises(columba.TraceError, match=message):
        columba.compile(net, backend="torch", fullgraph=True)(G, leaf(4, 3))
    assert builtins.print is before
    LOG.clear()
    fine = columba.compile(Net(), backend="torch")  # nothing of it stays
    assert_same(fine, lambda g, h: Net.forward(fine, g, h), [G, leaf(4, 3)])


def test_hooks_that_compute_run_at_every_call() -> None:
    net = Net()
    compiled = columba.compile(net, backend="torch")
    h = leaf(4, 3)
    assert_same(compiled, net, [G, h])
    handles = [
        net.inner.register_forward_hook(lambda module, args, out: out * 2),
        net.inner.register_forward_pre_hook(lambda module, args: (args[0] + 1,)),
        net.inner.register_forward_hook(lambda module, args, kwargs, out: out - 1, with_kwargs=True),
    ]
    changed = compiled(G, h)
    assert_same(compiled, net, [G, h])
    assert not torch.equal(changed, columba.compile(with_forward(plain), backend="torch")(G, h))
    for handle in handles:
        handle.remove()
        assert_same(compiled, net, [G, h])
    nn.utils.parametrizations.weight_norm(net.inner)
    assert_same(compiled, net, [G, h])


@pytest.mark.parametrize("how", ["instance", "class", "method"])
def test_hooks_of_the_compiled_module_run_outside(how: str) -> None:
    if how == "instance":
        net = columba.compile(Net(), backend="torch")
    elif how == "class":
        net = columba.compile(type("Own", (Net,), {"forward": Net.forward}), backend="torch")()
    else:
        net = type("Own", (Net,), {"forward": columba.compile(Net.forward, backend="torch")})()
        type(net).forward.__set_name__(type(net), "forward")
    seen: list[str] = []
    net.register_forward_pre_hook(lambda module, args: seen.append(f"before {type(args[1]).__name__}"))
    net.register_forward_hook(lambda module, args, out: seen.append(f"after {out.sum().item() == out.sum().item()}"))
    net.register_full_backward_hook(lambda module, into, out: seen.append(f"backward {out[0].shape[0]}"))
    for _ in range(3):
        net(G, leaf(4, 3)).sum().backward()
    assert seen == ["before Tensor", "after True", "backward 4"] * 3


def test_what_is_set_up_once_is_no_side_effect() -> None:
    def lazily(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
        if net.width is None:
            net.width = h.shape[-1]
        if net.late is None:
            net.late = nn.Linear(net.width, 2, dtype=torch.float64)
        warnings.warn("as often as it is traced", stacklevel=2)
        return net.late(checkpoint(plain, net, g, h, use_reentrant=False))  # type: ignore[no-any-return]

    net = with_forward(lazily)
    compiled = columba.compile(net, backend="torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            assert_same(compiled, net, [G, leaf(4, 3)])


def test_a_second_backward_says_what_pytorch_says() -> None:
    compiled = columba.compile(
        lambda g, h: g.edges.sum(g.edges.softmax(g.edges.src(h)) * g.edges.src(h)), backend="cpp"
    )
    for nodes in (4, 20_000):  # the memory of what is saved is used again only where it is large
        g = columba.Graph(torch.arange(nodes).expand(2, -1), num_nodes=nodes)
        for _ in range(3):
            total = compiled(g, leaf(nodes, 8)).sum()
            total.backward()
            with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
                total.backward()


def test_products_names_and_integers() -> None:
    w, relations = leaf(3, 2), leaf(1, 3, 2)

    def layer(g: columba.Graph, h: Tensor) -> Tensor:
        e = g.edges
        plain = columba.linear(g.nodes.mean(h).unsqueeze(0), w)
        return e.sum(columba.linear(e.src(h), e.rel(columba.linear(relations, w.T @ w)))) + plain.squeeze(0)

    assert_same(columba.compile(layer, backend="torch"), layer, [G, leaf(4, 3)], [w, relations])
    for name in ("3D", "for", "日本", "_", "a" * 400):
        net = type(name, (Net,), {"forward": Net.forward})()
        assert_same(columba.compile(net, backend="torch"), net, [G, leaf(4, 3)])
    cube = columba.compile(type("3", (Net,), {"forward": Net.forward})(), backend="cpp")
    assert_same(cube, lambda g, h: Net.forward(cube, g, h), [G, leaf(4, 3)])
    count = columba.compile(lambda g, k: g.edges.sum(g.edges.src(k)), backend="torch")
    with pytest.raises(TypeError, match=r"test_side_effects.*sum expects floating point numbers.*x\.float\(\)"):
        count(G, torch.ones(4, 3, dtype=torch.long))


def seeded(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    torch.manual_seed(3)
    return plain(net, g, h) + torch.rand(4, 3)


def seeded_apart(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return plain(net, g, h) + torch.rand(4, 3)


def with_a_generator(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    return plain(net, g, h) + torch.rand(4, 3, generator=torch.Generator().manual_seed(3))


def drawing_nothing(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    before = torch.get_rng_state()
    drawn = torch.rand(4, 3)
    torch.set_rng_state(before)
    return plain(net, g, h) + drawn


def by_the_seed(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    return plain(net, g, h) + torch.initial_seed() % 7


def seeding_numpy(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    np.random.seed(3)
    return plain(net, g, h)


def deterministic(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    torch.use_deterministic_algorithms(True, warn_only=True)
    return plain(net, g, h)


def with_hooks_of_saved_tensors(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: 2 * x if x.is_floating_point() else x):
        return plain(net, g, h).square()


@pytest.mark.parametrize(
    "forward",
    [
        *(seeded, seeded_apart, with_a_generator, drawing_nothing, by_the_seed, seeding_numpy, deterministic),
        with_hooks_of_saved_tensors,
    ],
)
def test_switches_count_in_every_call(forward: Callable[[Net, Any, Tensor], Tensor]) -> None:
    """A trace would set them once: functions are refused by name, models run in Python."""
    eager = with_forward(forward)
    with pytest.raises(columba.TraceError, match=r"test_side_effects.*(outside|draw)"):
        columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)(G, leaf(4, 3))
    outcomes = []
    for model in (eager, columba.compile(copy.deepcopy(eager), backend="torch")):
        for seed in (1, 2, 3):
            torch.manual_seed(seed)
            np.random.seed(seed)
            try:
                x = leaf(4, 3)
                out = model(G, x)
                found = torch.autograd.grad(out.sum(), x)
                state = torch.rand(()), np.random.rand(), torch.are_deterministic_algorithms_enabled()
            finally:
                torch.use_deterministic_algorithms(False)
            outcomes.append((out, found, state))
    for got, wanted in zip(outcomes[3:], outcomes[:3], strict=True):
        torch.testing.assert_close(got, wanted)


def keeping_a_number(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    net.width = h.shape[0]
    return plain(net, g, h)


def keeping_a_shape(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    net.inner.sizes = {"h": h.shape, "edges": [g.num_edges]}  # type: ignore[assignment]
    return plain(net, g, h)


def keeping_by_number(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    net.__dict__.setdefault("met", set()).add(h.shape[0])
    return plain(net, g, h)


@pytest.mark.parametrize("forward", [keeping_a_number, keeping_a_shape, keeping_by_number])
def test_numbers_of_rows_that_are_kept_are_those_of_each_call(forward: Callable[[Net, Any, Tensor], Tensor]) -> None:
    """A trace would keep the first: functions are refused by name, models run in Python."""
    eager = with_forward(forward)
    fast = columba.compile(copy.deepcopy(eager), backend="torch")
    for nodes in (4, 5, 4):
        graph, h = columba.Graph(torch.tensor([[0, 1], [2, 2]]), num_nodes=nodes), leaf(nodes, 3)
        torch.testing.assert_close(fast(graph, h), eager(graph, h))
        for name in ("width", "met"):
            assert getattr(fast, name, None) == getattr(eager, name, None)
        assert getattr(fast.inner, "sizes", None) == getattr(eager.inner, "sizes", None)  # type: ignore[union-attr]
    with pytest.raises(columba.TraceError, match="keeps a number of rows of this call"):
        columba.compile(with_forward(forward), backend="torch", fullgraph=True)(G, leaf(4, 3))


def choosing(net: Net, g: columba.Graph, h: Tensor) -> Tensor:
    net.kind = "large" if h.shape[0] > 4 else "small"  # type: ignore[assignment]
    return plain(net, g, h)


def test_attributes_that_are_set_to_one_of_several_values() -> None:
    """Each trace holds while the attribute is what it sets; where that changes again and again, the model runs in Python."""
    eager = with_forward(choosing)
    fast = columba.compile(copy.deepcopy(eager), backend="torch")
    strict = columba.compile(copy.deepcopy(eager), backend="torch", fullgraph=True)
    for step, nodes in enumerate((4, 4, *(5, 4) * 12)):
        graph, h = columba.Graph(torch.tensor([[0, 1], [2, 2]]), num_nodes=nodes), leaf(nodes, 3)
        torch.testing.assert_close(fast(graph, h), eager(graph, h))
        assert fast.kind == eager.kind, step
        if step < 9:
            strict(graph, h)
            assert strict.kind == eager.kind
    assert len(vars(type(fast))["forward"]._of_modules[fast]) == 8
    with pytest.raises(columba.TraceError, match="sets kind to one value in some calls and to another in others"):
        strict(graph, leaf(4, 3))
