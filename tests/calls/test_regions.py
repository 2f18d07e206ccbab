"""Models that are not one program: what of them is compiled, and that they do what they do in PyTorch, hooks, state and randomness too."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compiled import leaf, tensors_of
from region_models import OTHER, Checkpointed, Deep, G, N, Normed, Printing, Value, assert_steps_agree, conv
from torch import Tensor, nn

import columba
from columba.calls import function
from columba.calls.regions import MOST_FAILURES
from columba.frontend import hooks
from columba.frontend.errors import TraceError

pytestmark = pytest.mark.unoptimized

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], int]] = {
    "normed": (Normed, (G,), 2),
    "value": (Value, (G,), 2),
    "printing": (Printing, (G,), 1),
    "deep": (Deep, (G,), 4),
    "checkpointed": (Checkpointed, (G,), 1),
}


@pytest.fixture(scope="module")
def traced() -> Iterator[list[str]]:
    """The modules that were traced, by their classes, whether or not they could be."""
    names: list[str] = []
    original = function.trace

    def counted(fn: Any, owner: Any, *rest: Any, **options: Any) -> Any:
        names.append(type(owner).__name__)
        return original(fn, owner, *rest, **options)

    patch = pytest.MonkeyPatch()
    patch.setattr(function, "trace", counted)
    yield names
    patch.undo()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "columba.regions"]


@pytest.mark.parametrize("name", MODELS)
def test_training_is_as_in_pytorch(name: str, traced: list[str], caplog: pytest.LogCaptureFixture) -> None:
    make, args, regions = MODELS[name]
    torch.manual_seed(0)
    eager = make()
    model = copy.deepcopy(eager)
    attributes = {n: sorted(vars(m)) for n, m in model.named_modules()}
    compiled = columba.compile(model, backend="torch")
    with caplog.at_level(logging.INFO, "columba.regions"):
        assert_steps_agree(compiled, eager, *args)
        traced.clear()
        assert_steps_agree(compiled, eager, *args)
    assert [n for n in traced if n not in ("Value", "Deep")] == []  # what failed is remembered
    (message,) = told(caplog)
    assert message.startswith(f"{type(eager).__name__} runs as {regions} compiled region")
    assert {n: sorted(vars(m)) for n, m in model.named_modules()} == attributes
    compiled.eval(), eager.eval()
    assert_steps_agree(compiled, eager, *args)
    compiled.train(), eager.train()
    assert_steps_agree(compiled, eager, *args)
    with torch.no_grad():
        results = [model(*args, torch.ones(N, 4, dtype=torch.float64)) for model in (compiled, eager)]
    torch.testing.assert_close(*(tensors_of(r) for r in results))


def test_state_that_a_failed_trace_changed() -> None:
    eager = Value()
    compiled = columba.compile(copy.deepcopy(eager), backend="torch")
    for _ in range(4):
        h = leaf(N, 4)
        torch.testing.assert_close(compiled(G, h), eager(G, h))
    assert compiled.steps == eager.steps == 4
    torch.testing.assert_close(compiled.log, eager.log)
    assert compiled.seen.keys() == {"most"}


def test_kernels_in_regions() -> None:
    torch.manual_seed(0)
    eager = Normed()
    compiled = columba.compile(copy.deepcopy(eager), backend="cpp")
    assert_steps_agree(compiled, eager, G)


def test_dropout_between_regions_draws_what_it_draws_in_pytorch() -> None:
    eager = Normed(drop=0.5)
    compiled = columba.compile(copy.deepcopy(eager), backend="torch")
    assert_steps_agree(compiled, eager, G)


def test_failures_are_remembered_and_tried_again(traced: list[str]) -> None:
    class Switched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()
            self.checks = True

        def forward(self, g: columba.Graph, h: Tensor, scale: float = 1.0) -> Tensor:
            if self.checks and h.sum() > 1e9:
                raise ValueError("too much")
            return self.conv(h, g) * scale  # type: ignore[no-any-return]

    compiled = columba.compile(Switched(), backend="torch")
    h = leaf(N, 4)
    traced.clear()
    for _ in range(3):
        compiled(G, h)
    assert traced == ["Switched", "RGATConv"]
    compiled.checks = False
    compiled(G, h)
    assert traced[2:] == ["Switched"]
    compiled.checks = True
    compiled(OTHER, h)
    compiled(G, leaf(N, 4))
    assert len(traced) == 3
    traced.clear()
    for step in range(MOST_FAILURES + 5):  # never the same call
        compiled(G, h, scale=float(step))
    assert traced.count("Switched") == MOST_FAILURES - 1
    with torch.no_grad():
        torch.testing.assert_close(compiled(G, h, scale=0.5), compiled.conv(h, G) * 0.5)


def test_an_exception_leaves_everything_usable() -> None:
    class Fails(Normed):
        fails = False

        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            h = self.norm(self.first(h, g))
            if self.fails:
                raise KeyError("mine")
            return self.second(h, g)  # type: ignore[no-any-return]

    always: list[int] = []
    eager = Fails()
    compiled = columba.compile(copy.deepcopy(eager), backend="torch")
    compiled.first.register_forward_hook(lambda *a: always.append(1), always_call=True)
    for fails in (True, False, True, False):
        compiled.fails = fails
        if fails:
            with pytest.raises(KeyError, match="mine"):
                compiled(G, leaf(N, 4))
        else:
            eager.load_state_dict(compiled.state_dict())
            assert_steps_agree(compiled, eager, G, steps=1)
    calls = len(always)
    with pytest.raises(ValueError, match="contracts the last feature dimension"):  # the user's own errors stay
        compiled(G, leaf(N, 7))
    assert len(always) == calls + 1
    assert function.regions.current() is None


def test_copies_state_and_containers() -> None:
    model = Normed()
    compiled = columba.compile(model, backend="torch")
    compiled(G, leaf(N, 4))
    assert list(compiled.state_dict()) == list(Normed().state_dict())
    assert all(a is b for a, b in zip(compiled.parameters(), model.parameters(), strict=True))
    assert compiled.first is model.first
    assert type(model.first) is columba.nn.RGATConv
    for other in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        eager = copy.deepcopy(model)
        assert_steps_agree(other, eager, G, steps=2)
    assert_steps_agree(copy.deepcopy(compiled).float().double(), copy.deepcopy(model), G, steps=1)
    frozen = copy.deepcopy(compiled)
    frozen.first = nn.Identity()  # replaced: it has no graph
    frozen.first.forward = lambda h, g: h  # type: ignore[method-assign]
    plain = copy.deepcopy(model)
    plain.first = frozen.first
    torch.testing.assert_close(frozen(G, h := leaf(N, 4)), plain(G, h))


def test_threads() -> None:
    compiled = columba.compile(Value(), backend="torch")
    eager = copy.deepcopy(compiled)
    eager = columba.compile(eager, disable=True)
    h = leaf(N, 4)
    wanted = eager(G, h)["out"]
    failed: list[BaseException] = []

    def work(model: nn.Module) -> None:
        try:
            for _ in range(5):
                torch.testing.assert_close(model(G, h)["out"], wanted)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work, args=(m,)) for m in (compiled, compiled, eager)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_compiled_models_within() -> None:
    class Around(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            assert h.isfinite().all()
            return self.inner(g, self.inner(g, h) / 2) if h.shape[1] == 4 else h  # type: ignore[no-any-return]

    square = Normed()
    square.second = conv()
    eager = Around(square)
    compiled = columba.compile(Around(columba.compile(copy.deepcopy(square), backend="torch")), backend="torch")
    assert_steps_agree(compiled, eager, G)
    strict = columba.compile(
        Around(columba.compile(copy.deepcopy(square), backend="torch", fullgraph=True)), backend="torch"
    )
    with pytest.raises(TraceError, match="needs the values"):
        strict(G, leaf(N, 4))


def test_fullgraph() -> None:
    h = leaf(N, 4)
    with pytest.raises(TraceError, match=r"region_models.py:\d+: float\(x\) needs the values"):
        columba.compile(Normed(), fullgraph=True)(G, h)

    layer = Normed()

    def step(g: columba.Graph, h: Tensor) -> Tensor:
        assert h.isfinite().all()
        return layer.first(h, g)  # type: ignore[no-any-return]

    with pytest.raises(TraceError, match=r"a condition on a tensor.*A module that is given.*fullgraph=False"):
        columba.compile(step, backend="torch")(G, h)
    torch.testing.assert_close(columba.compile(step, backend="torch", fullgraph=False)(G, h), step(G, h))
    made = columba.compile(type("Made", (Normed,), {}), backend="torch")()
    torch.testing.assert_close(made(G, h), columba.compile(made, disable=True)(G, h))


def test_errors_of_others_in_a_trace(traced: list[str]) -> None:
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()
            self.scripted = torch.jit.script(nn.Linear(4, 4).double())  # type: ignore[no-untyped-call]

        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            return self.scripted(self.conv(h, g))  # type: ignore[no-any-return]

    class Multiplied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(self, g: columba.Graph, h: Tensor, w: Tensor) -> Tensor:
            return self.conv(h, g) @ w  # type: ignore[no-any-return]

    model = Scripted()
    compiled = columba.compile(model, backend="torch")
    h = leaf(N, 4)
    traced.clear()
    for _ in range(3):
        torch.testing.assert_close(compiled(G, h), model(G, h))
    assert traced == ["Scripted", "RGATConv"]
    product = columba.compile(Multiplied(), backend="torch")
    for size in (3, 4, 3, 4):  # an error of the user's is no reason to run in Python ever after
        if size == 4:
            assert product(G, h, h[:4]).shape == (N, 4)
        else:
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                product(G, h, h[:3])
    assert columba.explain(product, G, h, h[:4]).breaks == ()


def test_explain() -> None:
    model = Deep()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    h = leaf(N, 4)
    found = columba.explain(columba.compile(model, backend="torch"), G, h)
    assert [(r.name, r.kind) for r in found.regions] == [
        ("body.normed.first", "RGATConv"), ("body.normed.second", "RGATConv"), ("value.first", "RGATConv"),
        ("value.second", "RGATConv"),
    ]  # fmt: skip
    assert [(b.name, b.kind) for b in found.breaks] == [("", "Deep"), ("body.normed", "Normed"), ("value", "Value")]
    here = "region_models.py"
    for part, why in zip(found.breaks, ("float(x) needs", "float(x) needs", "item needs the values"), strict=True):
        assert f"{here}:" in part.reason
        assert why in part.reason
    text = str(found)
    assert "compiled: body.normed.first (RGATConv)\n" in text
    assert "in Python: value (Value): " in text
    assert text.count("=== Level 1: programs ===") == 4
    with pytest.raises(RuntimeError, match=r"4 compiled regions.*regions\[n\].explanation.compilation"):
        _ = found.compilation
    assert all("RGATConv" in r.explanation.source for r in found.regions)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert model.value.steps == 0
    assert model.value.log == []
    assert torch.equal(torch.get_rng_state(), random)
    one = columba.explain(conv(), h, G)
    assert one.breaks == ()
    assert one.regions[0].explanation is one
    assert str(one.regions[0]) == "RGATConv"
    single = columba.explain(Printing(), G, h)
    assert [r.name for r in single.regions] == ["conv"]
    assert single.compilation is single.regions[0].explanation.compilation
    with pytest.raises(TraceError, match="uses no columba.Graph"):
        columba.explain(nn.Linear(4, 4).double(), h)


def test_what_is_disabled() -> None:
    model = Normed()
    model.first = torch.compiler.disable(model.first)
    eager = copy.deepcopy(model)
    compiled = columba.compile(model, backend="torch")
    assert_steps_agree(compiled, eager, G)
    found = columba.explain(model, G, leaf(N, 4))
    assert [r.name for r in found.regions] == ["second"]

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = conv(), conv()

        @torch.compiler.disable
        def inside(self, g: columba.Graph, h: Tensor) -> Tensor:
            return self.conv(h, g)  # type: ignore[no-any-return]

        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            return self.other(self.inside(g, h), g)  # type: ignore[no-any-return]

    found = columba.explain(Part(), G, leaf(N, 4))
    assert [r.name for r in found.regions] == ["other"]
    assert "Part.inside is marked with torch.compiler.disable" in found.breaks[0].reason
    part = Part()
    torch.testing.assert_close(columba.compile(part, backend="torch")(G, h := leaf(N, 4)), part(G, h))


def test_stances(traced: list[str]) -> None:
    model = Normed()
    compiled = columba.compile(model, backend="torch")
    h = leaf(N, 4)
    model.eval()
    wanted = model(G, h)
    traced.clear()
    for stance in ("force_eager", "eager_on_recompile"):
        with torch.compiler.set_stance(stance):
            torch.testing.assert_close(compiled(G, h), wanted)
    assert traced == []
    with (
        torch.compiler.set_stance("fail_on_recompile"),
        pytest.raises(RuntimeError, match=r"Normed.forward would be traced"),
    ):
        compiled(G, h)
    torch.testing.assert_close(compiled(G, h), wanted)
    assert traced
    traced.clear()
    for stance in ("fail_on_recompile", "eager_on_recompile", "default"):
        with torch.compiler.set_stance(stance):
            torch.testing.assert_close(compiled(OTHER, h), model(OTHER, h))
    assert traced == []


def test_options_of_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Normed()
    assert columba.compile(model, disable=True) is model
    assert columba.compile(disable=True)(len) is len
    plain = columba.compile(columba.compile(model), disable=True)
    assert type(plain) is Normed
    assert plain.first is model.first
    for mode in (None, "default"):
        assert not type(columba.compile(model, mode=mode)).options.autotune  # type: ignore[attr-defined]
    assert type(columba.compile(model, mode="max-autotune")).options.autotune  # type: ignore[attr-defined]
    assert type(columba.compile(model, mode="reduce-overhead")).options.cuda_graphs  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="one of 'default', 'max-autotune', 'reduce-overhead'"):
        columba.compile(model, mode="fastest")
    columba.compile(model, dynamic=True)
    with pytest.raises(ValueError, match="rows are always dynamic"):
        columba.compile(model, dynamic=False)
    for value, is_plain in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("COLUMBA_DISABLE", value)
        assert (columba.compile(model) is model) is is_plain


def test_calls_of_modules_are_intercepted_as_long_as_a_model_needs_it() -> None:
    gc.collect()
    before = hooks._users
    compiled = columba.compile(Normed(), backend="torch")
    compiled.eval(), compiled(G, leaf(N, 4))
    compiled.train()
    for _ in range(4):  # the code that recognizes calls, too, keeps nothing
        compiled(G, leaf(N, 4))
    assert hooks._users == before + 1
    assert nn.Module._call_impl is hooks.call_module
    del compiled
    gc.collect()
    assert hooks._users == before
    assert before or nn.Module._call_impl is hooks._original


def test_models_without_anything_to_gain(caplog: pytest.LogCaptureFixture, traced: list[str]) -> None:
    mlp = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=None)).double()
    compiled = columba.compile(mlp, backend="torch")
    eager = copy.deepcopy(mlp)
    with caplog.at_level(logging.INFO, "columba.regions"):
        assert_steps_agree(compiled, eager)
    assert told(caplog) == []
    unused = columba.compile(Normed(), backend="torch")
    unused(G, leaf(N, 4))
    traced.clear()
    unused(G, leaf(N, 4))
    assert traced == []
