"""Small programs, and what a user changes between two calls of each: objects, classes, and values in variables and modules."""

from __future__ import annotations

import argparse
import collections
import contextvars
import dataclasses
import enum
import functools
import math
import operator
import os
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from stale_names import CLEAN, ONES, ROWS, Holder, Program, helper_of_two, propagated, row
from torch import Tensor, nn

import columba

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
