"""Small programs, and what a user changes between two calls of each: names, and functions by what they are."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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

CLEAN: list[Callable[[], Any]] = []
"""What is undone after a test."""

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
