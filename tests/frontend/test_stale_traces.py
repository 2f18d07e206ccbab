"""Whatever a trace depended on may change between two calls: the next call gives what eager code gives.

Each row is a small program, and a change that a user makes between two calls. The program is compiled in every form that it has, called
several times before the change, so that the shortcut of a call is in use, and compared with itself run eagerly before and after.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import random
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stale_names import CLEAN, ONES, ROWS, G, H, Holder, Program, out, propagated
from stale_objects import Config, Plain
from torch import Tensor, nn

import columba

pytestmark = pytest.mark.unoptimized

# ------------------------------------------------------------------------------------------------ modules


class Leaf(nn.Module):
    scale = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(ONES * 2)
        self.register_buffer("shift", ONES)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.weight * self.scale
        return x if self.shift is None else x + self.shift


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.leaf = type("Leaf", (nn.Module,), dict(vars(Leaf)) | {"__init__": lambda m: _init_leaf(m)})()
        self.linear = nn.Linear(2, 2).double()
        self.layers = nn.ModuleList([nn.Linear(2, 2).double()])
        self.chain = nn.Sequential(nn.Linear(2, 2).double(), nn.Sigmoid())
        self.plain: Any = [nn.Linear(2, 2).double()]
        self.activation: Any = F.softplus
        self.tied = nn.Linear(2, 2).double()
        self.tied.weight = self.linear.weight

    def helper(self, x: Tensor) -> Tensor:
        return x * 2

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        x = self.linear(self.leaf(propagated(g, h)))
        for layer in self.layers:
            x = layer(x)
        for layer in self.plain:
            x = layer(x)
        x = self.activation(self.helper(self.tied(self.chain(x))))
        total = sum(p.abs().sum() for p in self.parameters())
        return (x * 3 if self.linear.training else x) + total


def _init_leaf(module: Any) -> None:
    nn.Module.__init__(module)
    module.weight = nn.Parameter(ONES * 2)
    module.register_buffer("shift", ONES)


MODULES: dict[str, Callable[[Any], Any]] = {
    "forward of a submodule": lambda m: setattr(m.leaf, "forward", lambda x: x * 9),
    "forward of PyTorch's submodule": lambda m: setattr(m.linear, "forward", lambda x: x * 9),
    "forward of a submodule's class": lambda m: setattr(type(m.leaf), "forward", lambda self, x: x * 9),
    "class of a submodule": lambda m: setattr(
        m.leaf, "__class__", type("Other", (nn.Module,), {"forward": lambda self, x: x * 9})
    ),
    "class attribute of a submodule": lambda m: setattr(type(m.leaf), "scale", 9.0),
    "class attribute hidden": lambda m: setattr(m.leaf, "scale", 9.0),
    "helper on the instance": lambda m: setattr(m, "helper", lambda x: x * 9),
    "activation": lambda m: setattr(m, "activation", torch.tanh),
    "module in a plain list": lambda m: m.plain.__setitem__(0, nn.Linear(2, 2).double()),
    "module in a plain list, one more": lambda m: m.plain.append(nn.Linear(2, 2).double()),
    "parameter of one in a plain list": lambda m: setattr(
        m.plain[0], "weight", nn.Parameter(torch.eye(2).double() * 9)
    ),
    "module appended": lambda m: m.layers.append(nn.Linear(2, 2).double()),
    "module of a chain": lambda m: m.chain.__setitem__(1, nn.Tanh()),
    "buffer that is None": lambda m: setattr(m.leaf, "shift", None),
    "parameter that is None": lambda m: setattr(m.linear, "bias", None),
    "training of a submodule": lambda m: m.linear.eval(),
    "tied parameter": lambda m: setattr(m.tied, "weight", nn.Parameter(torch.eye(2).double() * 9)),
    "one more parameter": lambda m: m.register_parameter("more", nn.Parameter(ONES * 9)),
    "parameter frozen": lambda m: m.linear.weight.requires_grad_(False),
    "hook": lambda m: m.linear.register_forward_hook(lambda module, args, result: result * 9),
    "hook before": lambda m: m.linear.register_forward_pre_hook(lambda module, args: (args[0] * 9,)),
    "hook of all modules": lambda m: CLEAN.append(
        nn.modules.module.register_module_forward_hook(
            lambda module, args, result: result * 9 if module is m.linear else None
        ).remove
    ),
    "parameter in the class": lambda m: setattr(type(m.leaf), "weight", ONES * 9),
}


def _module_row(name: str) -> None:
    def make() -> Program:
        torch.manual_seed(0)
        net = Net()
        return net, lambda: MODULES[name](net)

    ROWS[f"net: {name}"] = make


for _name in MODULES:
    _module_row(_name)


# ------------------------------------------------------------------------------------------------ the test


def forms(fn: Any) -> Iterator[Any]:
    """The same program as it can be compiled."""
    if isinstance(fn, nn.Module):
        yield columba.compile(fn, backend="torch")
        yield columba.compile(fn.forward, backend="torch")
        yield columba.compile(lambda g, h: fn(g, h), backend="torch")
        return
    yield columba.compile(fn, backend="torch")

    class Method(nn.Module):
        @columba.compile(backend="torch")
        def forward(self, g: columba.Graph, h: Tensor) -> Any:
            return fn(g, h)

    yield Method()


@pytest.fixture(autouse=True)
def cleaned() -> Iterator[None]:
    yield
    while CLEAN:
        CLEAN.pop()()


def same(got: Any, wanted: Any) -> bool:
    return bool(got.dtype == wanted.dtype and torch.allclose(got, wanted, equal_nan=True))


@pytest.mark.parametrize("name", ROWS)
def test_a_change_is_noticed(name: str) -> None:
    fn, change = ROWS[name]()
    compiled = list(forms(fn))
    before = fn(G, H)
    for form in compiled:
        assert same(form(G, H), before)
        assert same(form(G, H), before)
    change()
    after = fn(G, H)
    assert name.endswith("frozen") or not same(after, before)
    for form in compiled:
        assert same(form(G, H), after)
        assert same(form(G, H), after)


# ------------------------------------------------------------------------------------------------ modules that were compiled, and shortcuts


class Doubled(nn.Module):
    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * 2


class Tripled(nn.Module):
    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * 3


def test_a_compiled_instance_follows_the_class() -> None:
    kind = type("Net", (Doubled,), {})
    net = kind()
    compiled = columba.compile(net, backend="torch")
    assert same(compiled(G, H), out() * 2)
    kind.forward = lambda self, g, h: propagated(g, h) * 5  # type: ignore[attr-defined]
    assert same(compiled(G, H), out() * 5)
    del kind.forward  # type: ignore[attr-defined]
    assert same(compiled(G, H), out() * 2)
    net.__class__ = Tripled
    assert same(compiled(G, H), out() * 3)
    compiled.forward = lambda g, h: propagated(g, h) * 7
    assert same(compiled(G, H), out() * 7)


def test_a_compiled_method_of_the_instance_itself() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(ONES * 2)
            self.dropout = nn.Dropout(1.0)

        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            return self.dropout(propagated(g, h)) * self.weight

    net = Net()
    net.forward = columba.compile(net.forward, backend="torch")  # type: ignore[method-assign]
    assert not net(G, H).any()
    net.eval()
    assert same(net(G, H), out() * 2)
    net.weight = nn.Parameter(ONES * 3)
    assert same(net(G, H), out() * 3)


def test_shortcuts_notice_changes() -> None:
    """Calls that are recognized by their shortcut, on the C++ backend: one kernel serves all of these programs."""
    holder, table, weights = Holder(1.0), {"a": [0.0]}, [ONES, ONES * 2]

    def helper(x: Tensor, by: list[Any] = [0]) -> Tensor:  # noqa: B006
        return x * weights[0] if by[0] == 0 else x * weights[1]

    class Net(nn.Module):
        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            out = helper(propagated(g, h)) * holder.held
            return -out if math.copysign(1.0, table["a"][0]) < 0 else out

    net = Net()
    compiled = columba.compile(net, backend="cpp")
    changes: list[Callable[[], Any]] = [
        lambda: setattr(holder, "held", 3.0),
        lambda: helper.__defaults__[0].__setitem__(0, 1),  # type: ignore[index]
        lambda: weights.__setitem__(1, ONES * 7),
        lambda: table["a"].__setitem__(0, -0.0),
    ]
    for change in changes:
        for _ in range(5):
            assert same(compiled(G, H), net(G, H))
        change()
        assert same(compiled(G, H), net(G, H))
    assert any(s.shortcut is not None for s in type(compiled).forward._of_modules[compiled])  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ what is refused


def generator() -> Iterator[float]:
    yield 2.0
    yield 3.0


STARTED, RNG, LARGE = generator(), np.random.default_rng(0), list(range(100_000))
REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "random": (lambda x: x * random.random(), "random gives another number"),
    "random integer": (lambda x: x * random.randint(2, 3), "gives another number"),
    "numpy's random": (lambda x: x * np.random.rand(), r"numpy\.random\.rand gives other numbers"),
    "numpy's generator": (lambda x: x * RNG.normal(), "RNG gives other numbers"),
    "clock": (lambda x: x * time.time(), "time reads a clock"),
    "generator": (lambda x: x * next(STARTED), "STARTED is a generator"),
    "too large": (lambda x: x * LARGE[0], "LARGE holds more than 20000 values"),
    "globals": (lambda x: x * globals()["NUMBER"], "name them"),
    "file": (
        lambda x: x * len(open(__file__).name),  # noqa: SIM115
        "reads from outside of the program",
    ),
    "tensor of an array": (lambda x: x * torch.from_numpy(np.ones(2)), "later calls cannot find it again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_guarded_is_refused(name: str) -> None:
    use, message = REFUSED[name]
    with pytest.raises(columba.TraceError, match=message) as caught:
        columba.compile(lambda g, h: use(propagated(g, h)), backend="torch")(G, H)
    assert "test_stale_traces.py:" in str(caught.value)


def test_an_iterator_that_is_run_through() -> None:
    numbers = itertools.count(2)
    with pytest.raises(
        columba.TraceError, match="changes, while it runs, something that its own result depends on: numbers"
    ):
        columba.compile(lambda g, h: propagated(g, h) * next(numbers), backend="torch")(G, H)


def test_profilers_and_classes_are_left_as_they_were() -> None:
    p, events = Plain(), []

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * p.by

    def profile(frame: types.FrameType, event: str, arg: Any) -> None:
        events.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        columba.compile(f, backend="torch")(G, H)
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
    assert "f" in events
    for kind in (Plain, nn.Module, columba.Graph):
        assert kind.__getattribute__ is object.__getattribute__
    with contextlib.suppress(columba.TraceError):
        columba.compile(lambda g, h: p.method(time.time()), backend="torch")(G, H)
    assert sys.getprofile() is None
    assert Plain.__getattribute__ is object.__getattribute__


def test_arguments_count_by_value_and_what_is_made_inside_does_not_count() -> None:
    @columba.compile(backend="torch")
    def f(g: columba.Graph, h: Tensor, config: Any) -> Tensor:
        return Holder(propagated(g, h)).held * config.scale * Config(scale=2.0).scale

    for _ in range(3):
        assert same(f(G, H, Config(scale=2.0)), out() * 4)
    assert len(f._own) == 1
    assert same(f(G, H, Config(scale=3.0)), out() * 6)
    assert len(f._own) == 2


def test_a_captured_tensor_is_one_input() -> None:
    """Each parameter is recorded, and so checked at every call, once."""
    compiled = columba.compile(Scaled(), backend="torch")
    compiled(G, H)
    (specialization,) = type(compiled).forward._of_modules[compiled]  # type: ignore[attr-defined]
    assert [str(guard.source) for _, guard in specialization.trace.tensors] == ["h", "weight"]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h) * g.edges.rel(self.weight))  # taken by a lift, not by a function of torch


def test_generators_that_are_closed_meanwhile_are_no_matter_of_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended generator runs once more to be closed, wherever the garbage of others is collected: here, in what is a library's."""
    closed: list[bool] = []

    def suspended() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    held = [suspended()]
    next(held[0])
    library: dict[str, Any] = {"held": held}
    exec(compile("def two():\n    held.clear()\n    return 2.0", torch.__file__, "exec"), library)
    monkeypatch.setattr(F, "two", library["two"], raising=False)
    compiled = columba.compile(lambda g, h: propagated(g, h) * F.two(), backend="torch")  # type: ignore[attr-defined]
    out = compiled(G, H)
    assert closed == [True]
    assert same(out, propagated(G, H) * 2)


def test_generators_that_give_something_are_refused() -> None:
    started = generator()
    next(started)
    draw = functools.partial(next, started)

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h)) * draw()

    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]))
    with pytest.raises(columba.TraceError, match="generator"):
        columba.compile(f, backend="torch")(graph, torch.ones(2, 1))
