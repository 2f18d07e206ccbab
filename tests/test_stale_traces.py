"""Whatever a trace depended on may change between two calls: the next call gives what eager code gives.

Each row is a small program, and a change that a user makes between two calls. The program is compiled in every form that it has, called
several times before the change, so that the shortcut of a call is in use, and compared with itself run eagerly before and after.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import contextvars
import dataclasses
import enum
import functools
import itertools
import math
import operator
import os
import random
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import columba

G = columba.Graph(torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]]), torch.tensor([0, 1, 0, 1]))
H = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
ONES = torch.ones(2, dtype=torch.float64)


def out(h: Tensor = H) -> Tensor:
    return G.edges.sum(G.edges.src(h))


def propagated(g: columba.Graph, h: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(h))


Program = tuple[Callable[[columba.Graph, Tensor], Any], Callable[[], Any]]
"""What is compiled, and the change."""

ROWS: dict[str, Callable[[], Program]] = {}


def row(make: Callable[[], Program]) -> Callable[[], Program]:
    ROWS[make.__name__] = make
    return make


def python_module(name: str, text: str) -> types.ModuleType:
    """A module of the user's, imported."""
    module = types.ModuleType(name)
    exec(compile(text, f"/home/user/{name}.py", "exec"), module.__dict__)
    sys.modules[name] = module
    return module


# ------------------------------------------------------------------------------------------------ names


@row
def attribute_of_an_imported_module() -> Program:
    config = python_module("stale_config", "scale = 2.0")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * config.scale

    return f, lambda: setattr(config, "scale", 3.0)


@row
def module_under_another_name() -> Program:
    config = python_module("stale_config", "scale = 2.0")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        c = [config][0]
        return propagated(g, h) * getattr(c, "sca" + "le")

    return f, lambda: setattr(config, "scale", 3.0)


@row
def import_inside() -> Program:
    config = python_module("stale_config", "scale = 2.0")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        from stale_config import scale  # type: ignore[import-not-found]

        return propagated(g, h) * scale

    return f, lambda: setattr(config, "scale", 3.0)


@row
def import_library_call() -> Program:
    config = python_module("stale_config", "scale = 2.0")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        import importlib

        return propagated(g, h) * importlib.import_module("stale_config").scale

    return f, lambda: setattr(config, "scale", 3.0)


@row
def sys_modules() -> Program:
    config = python_module("stale_config", "scale = 2.0")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * sys.modules["stale_config"].scale

    return f, lambda: setattr(config, "scale", 3.0)


@row
def nested_module_attributes() -> Program:
    config = python_module(
        "stale_config", "import types\nmodel = types.SimpleNamespace(size=types.SimpleNamespace(scale=2.0))"
    )

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * config.model.size.scale

    return f, lambda: setattr(config.model.size, "scale", 3.0)


@row
def global_of_a_helper_in_another_module() -> Program:
    helpers = python_module("stale_helpers", "SCALE = 2.0\ndef scaled(x):\n    return x * SCALE")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return helpers.scaled(propagated(g, h))

    return f, lambda: setattr(helpers, "SCALE", 3.0)


@row
def helper_of_a_helper() -> Program:
    python_module("stale_inner", "SCALE = 2.0\ndef scaled(x):\n    return x * SCALE")
    helpers = python_module("stale_helpers", "import stale_inner\ndef scaled(x):\n    return stale_inner.scaled(x)")
    scaled = helpers.scaled

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return scaled(propagated(g, h))

    return f, lambda: setattr(sys.modules["stale_inner"], "SCALE", 3.0)


@row
def monkeypatched_helper() -> Program:
    helpers = python_module("stale_helpers", "def scaled(x):\n    return x * 2")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return helpers.scaled(propagated(g, h))

    return f, lambda: setattr(helpers, "scaled", lambda x: x * 3)


@row
def module_executed_again() -> Program:
    helpers = python_module("stale_helpers", "def scaled(x):\n    return x * 2")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return helpers.scaled(propagated(g, h))

    return f, lambda: exec("def scaled(x):\n    return x * 3", helpers.__dict__)


@row
def built_in_hidden_by_a_global() -> Program:
    helpers = python_module("stale_helpers", "def scaled(x):\n    return x * abs(-2)")

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return helpers.scaled(propagated(g, h))

    return f, lambda: setattr(helpers, "abs", lambda n: 5.0)


@row
def enclosing_variable() -> Program:
    scale = 2.0

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * scale

    def change() -> None:
        nonlocal scale
        scale = 3.0

    return f, change


@row
def variable_enclosed_two_deep() -> Program:
    scale = 2.0

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return sum((propagated(g, h) * s for s in [scale, *(scale for _ in range(2))]), torch.zeros(1).double())

    def change() -> None:
        nonlocal scale
        scale = 3.0

    return f, change


@row
def lambda_in_a_dict() -> Program:
    scale = 2.0
    table = {"f": [lambda x: x * scale]}

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return table["f"][0](propagated(g, h))

    def change() -> None:
        nonlocal scale
        scale = 3.0

    return f, change


@row
def decorated_helper() -> Program:
    scale = 2.0

    def twice(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn(*args) * scale

        return wrapper

    @twice
    def helper(x: Tensor) -> Tensor:
        return x + 1

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return helper(propagated(g, h))

    def change() -> None:
        nonlocal scale
        scale = 3.0

    return f, change


@row
def cached_helper() -> Program:
    holder = types.SimpleNamespace(scale=2.0)

    @functools.lru_cache
    def config() -> Any:
        return Holder(holder)

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * config().held.scale

    config()
    return f, lambda: setattr(config(), "held", types.SimpleNamespace(scale=3.0))


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held


# ------------------------------------------------------------------------------------------------ functions by what they are


def helper_of_two(x: Tensor, by: Any = 2.0, *, add: float = 1.0) -> Tensor:
    return x * by + add


def with_helper(helper: Callable[..., Any]) -> Callable[..., Any]:
    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return helper(propagated(g, h))  # type: ignore[no-any-return]

    return f


def new_function(fn: Any = helper_of_two) -> Any:
    made = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    made.__kwdefaults__ = fn.__kwdefaults__
    return made


@row
def code_edited_in_place() -> Program:
    helper = new_function()
    return with_helper(helper), lambda: setattr(helper, "__code__", (lambda x, by=1, *, add=0: x * 7).__code__)


@row
def code_of_the_function_itself() -> Program:
    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * 2

    return f, lambda: setattr(f, "__code__", (lambda g, h: propagated(g, h) * 3).__code__)


@row
def defaults_replaced() -> Program:
    helper = new_function()
    return with_helper(helper), lambda: setattr(helper, "__defaults__", (5.0,))


@row
def keyword_defaults_changed() -> Program:
    helper = new_function()
    helper.__kwdefaults__ = {"add": 1.0}
    return with_helper(helper), lambda: helper.__kwdefaults__.update(add=5.0)


@row
def mutable_default() -> Program:
    scales = [2.0]

    def f(g: columba.Graph, h: Tensor, scales: list[float] = scales) -> Tensor:
        return propagated(g, h) * sum(scales)

    return f, lambda: scales.append(3.0)


@row
def tensor_as_default() -> Program:
    def helper(x: Tensor, w: Tensor = ONES * 2) -> Tensor:
        return x * w

    return with_helper(helper), lambda: setattr(helper, "__defaults__", (ONES * 3,))


@row
def partial_keywords() -> Program:
    helper = functools.partial(helper_of_two, by=2.0)
    return with_helper(helper), lambda: helper.keywords.update(by=4.0)


@row
def cell_assigned() -> Program:
    scale = 2.0

    def helper(x: Tensor) -> Tensor:
        return x * scale

    return with_helper(helper), lambda: setattr(helper.__closure__[0], "cell_contents", 3.0)  # type: ignore[index]


# ------------------------------------------------------------------------------------------------ plain objects and classes


class Plain:
    scale = 2.0
    table: ClassVar[dict[str, float]] = {"scale": 2.0}

    def __init__(self) -> None:
        self.by = 2.0
        self.weight = ONES * 2
        self.deep = {"a": [{"b": ({"c": [2.0]},)}]}

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.by

    def method(self, x: Tensor) -> Tensor:
        return x * self.by

    @property
    def value(self) -> float:
        return self.by

    @classmethod
    def of_class(cls, x: Tensor) -> Tensor:
        return x * cls.scale

    @staticmethod
    def static(x: Tensor) -> Tensor:
        return x * 2


def fresh_class() -> Any:
    return type("Fresh", (), {k: v for k, v in vars(Plain).items() if k not in ("__dict__", "__weakref__")})


USES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "call": lambda p, x: p(x),
    "method": lambda p, x: p.method(x),
    "property": lambda p, x: x * p.value,
    "class method": lambda p, x: p.of_class(x),
    "static method": lambda p, x: p.static(x),
    "attribute": lambda p, x: x * p.by,
    "class attribute": lambda p, x: x * p.scale,
    "class": lambda p, x: x * type(p).scale,
    "class table": lambda p, x: x * p.table["scale"],
    "deep": lambda p, x: x * p.deep["a"][0]["b"][0]["c"][0],
    "tensor": lambda p, x: x * p.weight,
    "getattr": lambda p, x: x * getattr(p, "other", 2.0),
    "vars": lambda p, x: x * vars(p)["by"],
    "hasattr": lambda p, x: x * 2 if hasattr(p, "other") else x,
}
CHANGES: dict[str, Callable[[Any], Any]] = {
    "call": lambda p: setattr(p, "by", 3.0),
    "method": lambda p: setattr(p, "by", 3.0),
    "property": lambda p: setattr(p, "by", 3.0),
    "class method": lambda p: setattr(type(p), "scale", 3.0),
    "static method": lambda p: setattr(type(p), "static", staticmethod(lambda x: x * 3)),
    "attribute": lambda p: setattr(p, "by", 3.0),
    "class attribute": lambda p: setattr(type(p), "scale", 3.0),
    "class": lambda p: setattr(type(p), "scale", 3.0),
    "class table": lambda p: p.table.update(scale=3.0) or CLEAN.append(lambda: p.table.update(scale=2.0)),
    "deep": lambda p: p.deep["a"][0]["b"][0]["c"].__setitem__(0, 3.0),
    "tensor": lambda p: setattr(p, "weight", ONES * 3),
    "getattr": lambda p: setattr(p, "other", 3.0),
    "vars": lambda p: setattr(p, "by", 3.0),
    "hasattr": lambda p: setattr(p, "other", 3.0),
}
FURTHER: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "method replaced on the class": ("method", lambda p: setattr(type(p), "method", lambda self, x: x * 3)),
    "method replaced on the object": ("method", lambda p: setattr(p, "method", lambda x: x * 3)),
    "call replaced on the class": ("call", lambda p: setattr(type(p), "__call__", lambda self, x: x * 3)),
    "property replaced": ("property", lambda p: setattr(type(p), "value", property(lambda self: 7.0))),
    "class attribute hidden by the object": ("class attribute", lambda p: setattr(p, "scale", 3.0)),
    "class swapped": (
        "method",
        lambda p: setattr(p, "__class__", type("Other", (), {"method": lambda self, x: x * 3})),
    ),
    "attribute that is deleted": ("getattr", lambda p: setattr(type(p), "other", 3.0)),
}
CLEAN: list[Callable[[], Any]] = []


def _object_row(name: str, use: str, change: Callable[[Any], Any]) -> None:
    def in_variable() -> Program:
        p, used = fresh_class()(), USES[use]

        def f(g: columba.Graph, h: Tensor) -> Tensor:
            return used(p, propagated(g, h))

        return f, lambda: change(p)

    def in_list() -> Program:
        held, used = [{"p": fresh_class()()}], USES[use]

        def f(g: columba.Graph, h: Tensor) -> Tensor:
            return used(held[0]["p"], propagated(g, h))

        return f, lambda: change(held[0]["p"])

    ROWS[f"object: {name}"] = in_variable
    ROWS[f"object in a list: {name}"] = in_list


for _name, _change in CHANGES.items():
    _object_row(_name, _name, _change)
for _name, (_use, _change) in FURTHER.items():
    _object_row(_name, _use, _change)


@row
def class_attribute_of_a_base() -> Program:
    base = type("Base", (), {"scale": 2.0})
    derived = type("Derived", (base,), {})

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * derived.scale  # type: ignore[attr-defined]

    return f, lambda: setattr(base, "scale", 3.0)


@row
def class_attribute_hidden_by_a_derived_class() -> Program:
    base = type("Base", (), {"scale": 2.0})
    derived = type("Derived", (base,), {})

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * derived().scale

    return f, lambda: setattr(derived, "scale", 3.0)


@row
def method_of_a_base_through_super() -> Program:
    class Base:
        def scaled(self, x: Tensor) -> Tensor:
            return x * 2

    class Derived(Base):
        def scaled(self, x: Tensor) -> Tensor:
            return super().scaled(x) + 1

    p = Derived()

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return p.scaled(propagated(g, h))

    return f, lambda: setattr(Base, "scaled", lambda self, x: x * 3)


@row
def bound_method_of_a_plain_object() -> Program:
    class Trainer:
        def __init__(self) -> None:
            self.scale, self.history = 2.0, [0.0]

        def step(self, g: columba.Graph, h: Tensor) -> Tensor:
            return propagated(g, h) * self.scale

    p = Trainer()
    return p.step, lambda: setattr(p, "scale", 3.0)


@dataclasses.dataclass
class Config:
    scale: float = 2.0
    inner: Any = None


@dataclasses.dataclass(slots=True)
class Slots:
    scale: float = 2.0
    weight: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    scale: float = 2.0


class Point(NamedTuple):
    scale: float = 2.0


class Mode(enum.Enum):
    SUM = "sum"
    MEAN = "mean"


def _of_variable(
    name: str, make: Callable[[], Any], use: Callable[[Any, Tensor], Tensor], change: Callable[[Any], Any]
) -> None:
    """A value in a variable, in an attribute of an object, and in an attribute of a module."""

    def in_variable() -> Program:
        value = make()

        def f(g: columba.Graph, h: Tensor) -> Tensor:
            return use(value, propagated(g, h))

        def changed() -> None:
            nonlocal value
            new = change(value)
            value = value if new is None else new

        return f, changed

    def of_module() -> Program:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.value = make()

            def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
                return use(self.value, propagated(g, h))

        net = Net()

        def changed() -> None:
            new = change(net.value)
            if new is not None:
                net.value = new

        return net, changed

    ROWS[f"variable: {name}"] = in_variable
    ROWS[f"module: {name}"] = of_module


def first(x: Any, *_: Any) -> None:
    """Nothing: a change in place."""


_of_variable("dataclass", Config, lambda v, x: x * v.scale, lambda v: setattr(v, "scale", 3.0))
_of_variable("dataclass four deep", lambda: Config(inner=Config(inner=Config(inner=Config()))), lambda v, x: x * v.inner.inner.inner.scale,
             lambda v: setattr(v.inner.inner.inner, "scale", 3.0))  # fmt: skip
_of_variable("slots", Slots, lambda v, x: x * v.scale, lambda v: setattr(v, "scale", 3.0))
_of_variable(
    "tensor in slots",
    lambda: Slots(weight=ONES * 2),
    lambda v, x: x * v.weight,
    lambda v: setattr(v, "weight", ONES * 3),
)
_of_variable("frozen dataclass", Frozen, lambda v, x: x * v.scale, lambda v: Frozen(3.0))
_of_variable(
    "frozen dataclass by force", Frozen, lambda v, x: x * v.scale, lambda v: object.__setattr__(v, "scale", 3.0)
)
_of_variable("named tuple", Point, lambda v, x: x * v.scale, lambda v: Point(3.0))
_of_variable(
    "namespace", lambda: types.SimpleNamespace(scale=2.0), lambda v, x: x * v.scale, lambda v: setattr(v, "scale", 3.0)
)
_of_variable(
    "argparse", lambda: argparse.Namespace(scale=2.0), lambda v, x: x * v.scale, lambda v: setattr(v, "scale", 3.0)
)
_of_variable("dict", lambda: {"a": {"b": {"c": {"d": {"e": 2.0}}}}}, lambda v, x: x * v["a"]["b"]["c"]["d"]["e"],
             lambda v: v["a"]["b"]["c"]["d"].update(e=3.0))  # fmt: skip
_of_variable("list appended", lambda: [2.0], lambda v, x: x * sum(v), lambda v: v.append(3.0))
_of_variable("deque", lambda: collections.deque([2.0]), lambda v, x: x * sum(v), lambda v: v.append(3.0))
_of_variable("set", lambda: {2.0}, lambda v, x: x * sum(v), lambda v: v.add(3.0))
_of_variable(
    "defaultdict",
    lambda: collections.defaultdict(lambda: 2.0),
    lambda v, x: x * v.get("a", 1.0),
    lambda v: v.update(a=3.0),
)
_of_variable("user dict", lambda: collections.UserDict(a=2.0), lambda v, x: x * v["a"], lambda v: v.update(a=3.0))
_of_variable("counter", lambda: collections.Counter("aab"), lambda v, x: x * v["a"], lambda v: v.update("a"))
_of_variable("chain map", lambda: collections.ChainMap({"a": 2.0}), lambda v, x: x * v["a"], lambda v: v.update(a=3.0))
_of_variable("order of a dict", lambda: {"a": 2.0, "b": 3.0}, lambda v, x: x * next(iter(v.values())),
             lambda v: v.update(a=v.pop("a")))  # fmt: skip
_of_variable("list that holds itself", lambda: (lambda v: v.append(v) or v)([2.0]), lambda v, x: x * v[1][1][0],
             lambda v: v.__setitem__(0, 3.0))  # fmt: skip
_of_variable("array", lambda: np.array([2.0, 3.0]), lambda v, x: x * float(v[1]), lambda v: v.__setitem__(1, 4.0))
_of_variable(
    "array in a list",
    lambda: [np.array([2.0, 3.0])],
    lambda v, x: x * v[0][1].item(),
    lambda v: v[0].__setitem__(1, 4.0),
)
_of_variable("array as a tensor", lambda: np.array([2.0, 3.0]), lambda v, x: x * torch.as_tensor(v.tolist()).double(),
             lambda v: v.__setitem__(1, 4.0))  # fmt: skip
_of_variable("bytes", lambda: bytearray(b"\2"), lambda v, x: x * v[0], lambda v: v.__setitem__(0, 3))
_of_variable("enum", lambda: Mode.SUM, lambda v, x: x * (2 if v is Mode.SUM else 3), lambda v: Mode.MEAN)
_of_variable("tensor", lambda: ONES * 2, lambda v, x: x * v, lambda v: ONES * 3)
_of_variable("tensor in place", lambda: ONES * 2, lambda v, x: x * v, lambda v: first(v.mul_(3)))
_of_variable("tensor in a list", lambda: [ONES * 2], lambda v, x: x * v[0], lambda v: v.__setitem__(0, ONES * 3))
_of_variable(
    "tensor in a dict", lambda: {"a": [ONES * 2]}, lambda v, x: x * v["a"][0], lambda v: v["a"].__setitem__(0, ONES * 3)
)
_of_variable(
    "tensors in a list, one more", lambda: [ONES * 2], lambda v, x: x * sum(v[1:], v[0]), lambda v: v.append(ONES * 3)
)
_of_variable(
    "tensor in a dataclass",
    lambda: Config(inner=ONES * 2),
    lambda v, x: x * v.inner,
    lambda v: setattr(v, "inner", ONES * 3),
)
_of_variable(
    "tensor or None",
    lambda: Config(inner=ONES),
    lambda v, x: x if v.inner is None else x * 2,
    lambda v: setattr(v, "inner", None),
)
_of_variable(
    "the same tensor twice",
    lambda: (lambda t: [t, t])(ONES * 2),
    lambda v, x: x * v[0] + v[1],
    lambda v: v.__setitem__(1, ONES * 5),
)
_of_variable(
    "shape of a tensor",
    lambda: [torch.ones(2, 2)],
    lambda v, x: x * v[0].shape[0],
    lambda v: v.__setitem__(0, torch.ones(3, 2)),
)
_of_variable(
    "dtype of a tensor", lambda: [torch.ones(2)], lambda v, x: x * v[0].element_size(), lambda v: v.__setitem__(0, ONES)
)
_of_variable("requires_grad frozen", lambda: torch.ones(2).double(), lambda v, x: x * 2 if v.requires_grad else x * 3,
             lambda v: first(v.requires_grad_()))  # fmt: skip
_of_variable(
    "partial",
    lambda: functools.partial(helper_of_two, add=3.0),
    lambda v, x: v(x),
    lambda v: functools.partial(helper_of_two, add=4.0),
)
_of_variable("method of a dict", lambda: {"a": 2.0}.get, lambda v, x: x * v("a"), lambda v: v.__self__.update(a=3.0))
_of_variable(
    "item getter", lambda: operator.itemgetter(0), lambda v, x: x * v((2.0, 3.0)), lambda v: operator.itemgetter(1)
)
_of_variable("weak reference", lambda: Weak(), lambda v, x: x * v.ref().held, lambda v: setattr(v.kept, "held", 3.0))
_of_variable(
    "weak reference that dies",
    lambda: Weak(),
    lambda v, x: x * (1 if v.ref() is None else 2),
    lambda v: setattr(v, "kept", None),
)
_of_variable("thread's own", lambda: Local(), lambda v, x: x * v.local.scale, lambda v: setattr(v.local, "scale", 3.0))
_of_variable("made by __getattr__", lambda: Made(), lambda v, x: x * v.scale, lambda v: v.made.update(scale=3.0))
_of_variable("cached property", lambda: Cached(), lambda v, x: x * v.scale, lambda v: setattr(v, "scale", 3.0))
_of_variable(
    "descriptor",
    lambda: type("Described", (), {"scale": Descriptor()})(),
    lambda v, x: x * v.scale,
    lambda v: first(setattr(type(v).__dict__["scale"], "held", 3.0)),
)
_of_variable("item of an object", lambda: Indexed(), lambda v, x: x * v[0] + len(v), lambda v: v.items.append(7.0))
_of_variable(
    "list with attributes", lambda: Many([2.0]), lambda v, x: x * v[0] * v.scale, lambda v: setattr(v, "scale", 3.0)
)
_of_variable(
    "-0.0 for 0.0", lambda: [0.0], lambda v, x: x * 0 + math.copysign(1.0, v[0]), lambda v: v.__setitem__(0, -0.0)
)
_of_variable("True for 1", lambda: [1], lambda v, x: x * (2 if v[0] is True else 3), lambda v: v.__setitem__(0, True))
_of_variable(
    "1.0 for 1", lambda: [1], lambda v, x: x * (2 if isinstance(v[0], float) else 3), lambda v: v.__setitem__(0, 1.0)
)
_of_variable("NaN", lambda: [math.nan], lambda v, x: x * (2 if v[0] != v[0] else v[0]), lambda v: v.__setitem__(0, 5.0))
_of_variable(
    "module in a list", lambda: [nn.Dropout(0.999)], lambda v, x: x * 2 if len(v) > 1 else x, lambda v: v.append(1)
)
_of_variable("training of a module in a list", lambda: [nn.Module().train()], lambda v, x: x * (2 if v[0].training else 3),
             lambda v: v[0].eval() and None)  # fmt: skip
_of_variable("parameter of a module in a dict", lambda: {"a": nn.Linear(2, 2).double()}, lambda v, x: v["a"](x),
             lambda v: setattr(v["a"], "weight", nn.Parameter(torch.eye(2).double() * 9)))  # fmt: skip


class Weak:
    def __init__(self) -> None:
        self.kept: Any = Holder(2.0)
        self.ref = weakref.ref(self.kept)


class Local:
    def __init__(self) -> None:
        self.local = threading.local()
        self.local.scale = 2.0


class Made:
    def __init__(self) -> None:
        self.made = {"scale": 2.0}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["made"][name]
        except KeyError:
            raise AttributeError(name) from None


class Cached:
    @functools.cached_property
    def scale(self) -> float:
        return 2.0


class Descriptor:
    held = 2.0

    def __get__(self, owner: Any, kind: Any = None) -> float:
        return self.held


class Indexed:
    def __init__(self) -> None:
        self.items = [2.0]

    def __getitem__(self, n: int) -> float:
        return self.items[n]

    def __len__(self) -> int:
        return len(self.items)


class Many(list):  # type: ignore[type-arg]
    scale = 2.0


@row
def context_variable() -> Program:
    scale: contextvars.ContextVar[float] = contextvars.ContextVar("scale", default=2.0)

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * scale.get()

    return f, lambda: scale.set(3.0)


@row
def variable_of_the_environment() -> Program:
    os.environ["STALE_SCALE"] = "2"
    CLEAN.append(lambda: os.environ.pop("STALE_SCALE"))

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * float(os.environ["STALE_SCALE"]) * float(os.getenv("STALE_OTHER", "1"))

    return f, lambda: os.environ.update(STALE_SCALE="3")


@row
def default_dtype() -> Program:
    CLEAN.append(lambda: torch.set_default_dtype(torch.float32))

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * (2 if torch.get_default_dtype() is torch.float32 else 3)

    return f, lambda: torch.set_default_dtype(torch.float64)


@row
def gradient_mode() -> Program:
    CLEAN.append(lambda: torch.set_grad_enabled(True))

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * (2 if torch.is_grad_enabled() else 3)

    return f, lambda: torch.set_grad_enabled(False)


@row
def size_of_another_graph() -> Program:
    holder = Holder(columba.Graph(torch.tensor([[0], [1]])))

    def f(g: columba.Graph, h: Tensor) -> Tensor:
        return propagated(g, h) * holder.held.num_nodes

    return f, lambda: setattr(holder, "held", columba.Graph(torch.tensor([[0], [4]])))


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
