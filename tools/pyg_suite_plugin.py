"""A pytest plugin: every call of a PyG layer or model in a test runs compiled, and is compared with the same call uncompiled.

``tools/pyg_suite.py`` runs PyG's own tests under it. Outermost calls only: what a model calls within is part of the model. The test goes on
with the compiled result, so that what it asserts is asserted of that. ``--columba-report`` names a file for what was seen, as JSON.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, overrides
from torch_geometric.nn import MessagePassing

import columba
from tests.compared import COMPILED, EagerError, compare, what_runs


@dataclass
class Call:
    """A call of a layer in a test.

    Attributes:
        kind: the layer's class.
        outcome: what :func:`tests.compared.what_runs` gives; ``failed``: it raised, or its results differ.
        why: what was not compiled, or how it failed.
        checked: ``compared``, or why it was not.
    """

    test: str
    kind: str
    outcome: str
    why: str = ""
    checked: str = "compared"


class Suite:
    """Stands in for ``torch.nn.Module.__call__``."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.calls: list[Call] = []
        self.outcomes: dict[str, str] = {}
        self.messages: dict[str, str] = {}
        self.test = ""
        self._running = threading.local()

    def __enter__(self) -> None:
        self._original: Any = nn.Module.__call__
        suite = self

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if getattr(suite._running, "value", False) or not suite.takes(module, args, kwargs):
                return suite._original(module, *args, **kwargs)
            suite._running.value = True
            try:
                return suite.run(module, args, kwargs)
            finally:
                suite._running.value = False

        nn.Module.__call__ = call  # type: ignore[method-assign]

        torch.allclose = _close  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        nn.Module.__call__ = self._original  # type: ignore[method-assign]
        torch.allclose = _allclose

    def takes(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call is one of a PyG layer or model, and not part of what another tool of PyTorch records."""
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
            return False
        if isinstance(module, torch.jit.ScriptModule) or type(module).__module__.startswith("torch._dynamo"):
            return False
        if (
            any(isinstance(x, torch.fx.Proxy) for x in (*args, *kwargs.values()))
            or overrides._len_torch_function_stack()
        ):
            return False
        return any(isinstance(m, MessagePassing) or _is_layer(type(m)) for m in module.modules())

    def compiled(self, module: nn.Module) -> nn.Module:
        return columba.compile(module, backend=self.backend)

    def run(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call compiled, after it was compared with the one uncompiled."""
        call = Call(self.test, type(module).__name__, COMPILED)
        self.calls.append(call)
        try:
            self.check(call, module, args, kwargs)
            with _of_class(module, type(self.compiled(module))):
                return self._original(module, *args, **kwargs)
        except Exception as e:
            if not call.checked.startswith("raises"):
                call.outcome, call.why = "failed", f"{type(e).__name__}: {e}"
            raise

    def check(self, call: Call, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Compares, and writes down what of the call is compiled."""
        if any(_hooks(m) for m in module.modules()):
            call.checked = "has hooks, which would run more than once"
            return
        try:
            copy.deepcopy(module)
        except RuntimeError as e:
            call.checked = f"cannot be copied: {e}"
            return
        try:
            found = compare(self.compiled, module, *args, **kwargs)
            if found.is_random and module.training:
                call.checked = "compared in evaluation"
                found = compare(self.compiled, copy.deepcopy(module).eval(), *args, **kwargs)
        except EagerError as e:
            call.checked = f"raises {type(e.__cause__).__name__}"
            return
        for _ in range(64):  # copies of Sequential have drawn the names of modules, which others shall not draw again
            random.random()
        if found.is_random:
            call.checked = "random"
        elif found.compiled is not None:
            call.outcome, call.why = what_runs(found.compiled, found.args, found.kwargs)

    # ------------------------------------------------------------------------------------------------ pytest

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.test = item.nodeid
        with self:
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        known = self.outcomes.get(report.nodeid)
        if report.when == "call" or report.failed or (report.skipped and known is None):
            self.outcomes[report.nodeid] = report.outcome
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                self.messages[report.nodeid] = crash.message if crash is not None else str(report.longrepr)


class Plain(Suite):
    """Only notes how tests end."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_allclose = torch.allclose


def _close(a: torch.Tensor, b: torch.Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """``torch.allclose`` with no less than the absolute tolerance that most of PyG's tests ask for where one thing is computed in two ways:
    compiled code adds in another order, and the last bit of float32 differs."""
    return _allclose(a, b, rtol, max(atol, 1e-6), equal_nan)


@contextlib.contextmanager
def _of_class(module: nn.Module, kind: type) -> Iterator[None]:
    """Within, a module is of another class: hooks are handed the module that the test has."""
    original = type(module)
    module.__class__ = kind
    try:
        yield
    finally:
        if type(module) is kind:
            module.__class__ = original


def _is_layer(kind: type) -> bool:
    return kind.__module__.startswith("torch_geometric.nn.conv.") and kind.__module__.count(".") == 3


def _hooks(module: nn.Module) -> bool:
    names = [name for name in module.__dict__ if name.endswith("_hooks") and not name.startswith("_state_dict")]
    return isinstance(module, MessagePassing) and any(
        module.__dict__[name] for name in names if "load_state_dict" not in name and module.__dict__[name]
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("columba")
    group.addoption("--columba-backend", default="torch", help="the backend; none: nothing is compiled")
    group.addoption("--columba-report", default=None, help="a file for what was seen")


def pytest_configure(config: pytest.Config) -> None:
    backend = config.getoption("--columba-backend")
    config.pluginmanager.register(Plain("") if backend == "none" else Suite(backend), "columba-suite")


def pytest_unconfigure(config: pytest.Config) -> None:
    path, suite = config.getoption("--columba-report"), config.pluginmanager.get_plugin("columba-suite")
    if path is not None and suite is not None:
        calls = [asdict(call) for call in suite.calls]
        found = {"outcomes": suite.outcomes, "messages": suite.messages, "calls": calls}
        Path(path).write_text(json.dumps(found, indent=1), encoding="utf-8")
