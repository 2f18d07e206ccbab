"""Forward hooks of modules that compiled code calls run at every call, on the values that eager hands them."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import assert_same, leaf
from torch import Tensor, nn
from torch.nn.modules import module as all_modules

import columba

pytestmark = pytest.mark.unoptimized

G = columba.Graph(torch.tensor([[0, 1, 2, 2, 3], [2, 2, 0, 3, 0]]), num_nodes=4)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, h: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.linear(h) * scale  # type: ignore[no-any-return]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.edges = Inner()
        self.nodes = nn.Linear(3, 2, dtype=torch.float64)
        self.plain = nn.Linear(3, 2, dtype=torch.float64)
        self.step = 0

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        messages = self.edges(g.edges.src(h), scale=2.0)
        return self.nodes(g.edges.sum(torch.relu(messages))) + g.nodes.mean(self.plain(h))  # type: ignore[no-any-return]


Log = list[tuple[str, Any]]
"""Who was called, with copies of the tensors that it got."""


def copied(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.detach().clone()
    if isinstance(x, (tuple, list)):
        return [copied(v) for v in x]
    return {k: copied(v) for k, v in x.items()} if isinstance(x, dict) else x


def recording(log: Log, name: str) -> Callable[..., None]:
    return lambda module, *handed: log.append((f"{name} {type(module).__name__}", copied(handed)))


def assert_logged(compiled: nn.Module, net: nn.Module, log: Log, *args: Any) -> None:
    """One compiled call logs what one eager call does."""
    log.clear()
    found = compiled(*args)
    mine = list(log)
    log.clear()
    torch.testing.assert_close(found, net(*args))
    assert [name for name, _ in mine] == [name for name, _ in log]
    for (_, got), (_, wanted) in zip(mine, log, strict=True):
        torch.testing.assert_close(got, wanted)


def calls(compiled: nn.Module, h: Tensor) -> None:
    """As many as a fault may take to show: what a hook does is noted at the first."""
    for _ in range(3):
        compiled(G, h)


@pytest.fixture
def net() -> Iterator[Net]:
    yield Net()
    for name in ("_global_forward_hooks", "_global_forward_pre_hooks"):
        assert not getattr(all_modules, name)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_observing_hooks_run_at_every_call(net: Net, backend: str) -> None:
    compiled = columba.compile(net, backend=backend)
    log: Log = []
    assert_logged(compiled, net, log, G, leaf(4, 3))
    handles = [
        net.edges.register_forward_hook(recording(log, "first"), with_kwargs=True, always_call=True),
        net.edges.register_forward_pre_hook(recording(log, "before"), with_kwargs=True),
        net.edges.register_forward_hook(functools.partial(recording(log, "prepended")), prepend=True),
        net.edges.linear.register_forward_hook(recording(log, "inside")),
        net.nodes.register_forward_pre_hook(recording(log, "pre")),
        net.plain.register_forward_hook(recording(log, "plain")),
    ]
    for _ in range(5):
        assert_logged(compiled, net, log, G, leaf(4, 3))
    names = ["before Inner", "inside Linear", "prepended Inner", "first Inner", "pre Linear", "plain Linear"]
    assert [name for name, _ in log] == names
    assert log[0][1][1] == {"scale": 2.0}
    assert len(type(compiled).forward._of_modules[compiled]) == 2  # type: ignore[attr-defined]
    other = columba.Graph(torch.tensor([[0, 1, 5], [3, 3, 4]]), num_nodes=6)
    for handle in handles:
        if backend == "torch":  # each is another program
            assert_logged(compiled, net, log, other, leaf(6, 3))
        handle.remove()
    assert_logged(compiled, net, log, other, leaf(6, 3))
    assert not log


def test_hooks_of_all_modules_and_of_layers(net: Net) -> None:
    log: Log = []
    handles = [
        all_modules.register_module_forward_hook(recording(log, "after")),
        all_modules.register_module_forward_pre_hook(recording(log, "before")),
    ]
    try:
        f = columba.compile(lambda g, h: net(g, h), backend="torch")
        for _ in range(3):
            log.clear()
            f(G, leaf(4, 3))
            names = [name for name, _ in log]
            assert names == [
                "before Net", "before Inner", "before Linear", "after Linear", "after Inner", "before Linear", "after Linear",
                "before Linear", "after Linear", "after Net",
            ]  # fmt: skip
            assert log[0][1][0][0] is G
    finally:
        for handle in handles:
            handle.remove()
    log.clear()
    f(G, leaf(4, 3))
    assert not log
    model = nn.Module()
    model.conv = columba.nn.RGCNConv(3, 4, num_relations=2).double()
    model.conv.register_forward_hook(recording(log, "conv"))
    g = columba.Graph(G.edge_index, torch.tensor([0, 1, 0, 1, 1]), num_nodes=4)
    g_of = columba.compile(lambda g, h: torch.relu(model.conv(h, g)), backend="torch")
    for _ in range(3):
        log.clear()
        out = g_of(g, leaf(4, 3))
        ((_, (_, conv)),) = log
        torch.testing.assert_close(torch.relu(conv), out)


def test_what_is_kept_has_gradients(net: Net) -> None:
    kept: list[Tensor] = []
    compiled = columba.compile(net, backend="torch")
    net.edges.register_forward_hook(lambda module, args, out: kept.append(out))
    h = leaf(4, 3)
    for _ in range(3):
        grads = []
        for f in (compiled, net):
            kept.clear()
            total = f(G, h).square().sum() + kept[0].pow(3).sum()
            grads.append(torch.autograd.grad(total, [h, *net.parameters()]))
        torch.testing.assert_close(*grads)
    seen: list[Tensor] = []
    net.edges.register_forward_hook(lambda module, args, out: out.sum().backward())
    net.edges.register_forward_hook(lambda module, args, out: out.retain_grad())
    other = columba.compile(net, backend="torch", fullgraph=True)
    with pytest.raises(columba.TraceError, match=r"<lambda> of Inner asks for the gradient"):
        calls(other, h)
    first = columba.compile(lambda g, h: net.nodes(g.edges.sum(g.edges.src(h))), backend="torch")
    net.nodes.register_forward_hook(lambda module, args, out: (seen.append(out), out.retain_grad())[0])
    for _ in range(3):  # nothing of the program comes after it
        first(G, h).square().sum().backward()
        torch.testing.assert_close(seen[-1].grad, 2 * seen[-1].detach())


def test_hooks_that_compute_beside_hooks_that_observe(net: Net) -> None:
    compiled = columba.compile(net, backend="torch")
    log: Log = []
    handles = [
        net.edges.register_forward_hook(recording(log, "one")),
        net.edges.register_forward_hook(lambda module, args, out: torch.cat([out[..., :2] * 3, out[..., 2:]], -1)),
        net.edges.register_forward_hook(recording(log, "two")),
        net.nodes.register_forward_pre_hook(lambda module, args: (args[0] + 1,)),
        net.nodes.register_forward_pre_hook(recording(log, "three")),
        net.edges.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, "scale": 5.0}), with_kwargs=True
        ),
        net.edges.linear.register_forward_hook(lambda module, args, out: out[..., :1]),  # does not fit without it
    ]
    net.edges.linear.register_forward_hook(lambda module, args, out: out.expand(-1, 3))
    for _ in range(4):
        assert_logged(compiled, net, log, G, leaf(4, 3))
    assert [name for name, _ in log] == ["one Inner", "two Inner", "three Linear"]
    for handle in handles[:-1]:
        handle.remove()
        assert_logged(compiled, net, log, G, leaf(4, 3))
        assert_same(compiled, net, [G, leaf(4, 3)])


def test_exceptions_of_hooks_and_hooks_that_leave(net: Net) -> None:
    compiled = columba.compile(net, backend="torch")
    log: Log = []
    fails = [False]

    def failing(module: nn.Module, args: Any, out: Tensor) -> None:
        if fails[0]:
            raise KeyError("mine")

    net.edges.register_forward_hook(failing)
    net.edges.register_forward_hook(recording(log, "always"), always_call=True)
    net.edges.register_forward_hook(recording(log, "else"))
    once = net.nodes.register_forward_hook(lambda module, args, out: once.remove())
    for n in range(6):
        fails[0] = bool(n % 2)
        log.clear()
        if fails[0]:
            with pytest.raises(KeyError, match="mine"):
                compiled(G, leaf(4, 3))
            assert [name for name, _ in log] == ["always Inner"]
        else:
            assert_logged(compiled, net, log, G, leaf(4, 3))
    assert once.id not in net.nodes._forward_hooks


def changing_in_place(net: Net) -> None:
    def hook(module: nn.Module, args: Any, out: Tensor) -> None:
        with torch.no_grad():
            out.mul_(2)

    net.edges.register_forward_hook(hook)


def changing_state(net: Net) -> None:
    def forward(self: Net, g: columba.Graph, h: Tensor) -> Tensor:
        return Net.forward(self, g, h) * self.nodes.factor

    net.nodes.factor = torch.ones(2, dtype=torch.float64)
    net.nodes.register_forward_hook(lambda module, args, out: setattr(module, "factor", out.detach().mean(0)))
    net.__class__ = type("Stateful", (Net,), {"forward": forward})


def changing_its_mind(net: Net) -> None:
    calls: list[int] = []

    def hook(module: nn.Module, args: Any, out: Tensor) -> Tensor | None:
        calls.append(1)
        return out * 2 if len(calls) > 2 else None

    net.edges.register_forward_hook(hook)


REFUSED: dict[str, tuple[Callable[[Net], Any], str]] = {
    "in place": (
        changing_in_place,
        r"test_hooks\.py:\d+: the hook changing_in_place.* of Inner changes a tensor in place",
    ),
    "state": (changing_state, r"changing_state.*changes what the function reads.*factor has changed"),
    "mind": (changing_its_mind, r"test_hooks\.py:\d+: the hook .* of Inner has returned a value, and nothing when"),
    "weight_norm": (
        lambda net: nn.utils.weight_norm(net.nodes),
        r"torch\.nn\.utils\.weight_norm sets 'weight' of this Linear.*use torch\.nn\.utils\.parametrizations\.weight_norm",
    ),
    "spectral_norm": (
        lambda net: nn.utils.spectral_norm(net.nodes),
        r"torch\.nn\.utils\.spectral_norm sets.*use torch\.nn\.utils\.parametrizations\.spectral_norm",
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_hook_cannot_do(name: str) -> None:
    change, message = REFUSED[name]
    net = Net()
    change(net)
    before = nn.Module._call_impl
    compiled = columba.compile(net, backend="torch", fullgraph=True)
    gc.collect()  # models of other tests, whose calls may still be intercepted
    before = nn.Module._call_impl
    with pytest.raises(columba.TraceError, match=message):
        calls(compiled, leaf(4, 3))
    assert nn.Module._call_impl is before
    other = Net()
    assert_same(columba.compile(other, backend="torch"), other, [G, leaf(4, 3)])


def test_parametrizations(net: Net) -> None:
    nn.utils.parametrizations.weight_norm(net.nodes)
    compiled = columba.compile(net, backend="torch")
    assert_same(compiled, net, [G, leaf(4, 3)])
    net.eval()
    assert_same(compiled, net, [G, leaf(4, 3)])
    nn.utils.parametrizations.spectral_norm(net.edges.linear)
    net.eval()
    assert_same(compiled, net, [G, leaf(4, 3)])
    net.train()
    with pytest.raises(columba.TraceError, match="normalize changes a tensor in place"):
        columba.compile(net, backend="torch", fullgraph=True)(G, leaf(4, 3))


def test_lazy_modules(net: Net) -> None:
    net.nodes = nn.LazyLinear(2, dtype=torch.float64)  # a hook makes its parameters, and leaves
    compiled = columba.compile(net, backend="torch")
    out = compiled(G, h := leaf(4, 3))
    torch.testing.assert_close(out, net(G, h))
    assert_same(compiled, net, [G, h])


def test_buffers_that_the_first_call_stores() -> None:
    """The call that shows what a hook returns runs as it is, and stores what a BatchNorm counts: no hook has changed that."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3, dtype=torch.float64)
            self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            return g.edges.sum(g.edges.src(self.norm(self.linear(h))))

    model, seen = Normed(), []
    model.linear.register_forward_hook(lambda module, args, out: seen.append(out.detach().clone()))
    compiled = columba.compile(model, backend="torch", fullgraph=True)
    for n in range(3):
        h = torch.arange(12.0, dtype=torch.float64).view(4, 3) * (n + 1)
        before = model.norm.running_mean.clone()
        compiled(G, h)
        assert len(seen) == n + 1
        torch.testing.assert_close(seen[n], F.linear(h, model.linear.weight, model.linear.bias))
        torch.testing.assert_close(model.norm.running_mean, 0.9 * before + 0.1 * seen[n].mean(0))
        assert model.norm.num_batches_tracked.item() == n + 1
