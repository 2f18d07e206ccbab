"""Hooks of the modules of a model that runs in regions: called as in PyTorch, around the regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import leaf, tensors_of
from region_models import G, N, Normed
from torch import Tensor, nn

import columba
from columba.calls.module_call import call_with

pytestmark = pytest.mark.unoptimized

EVENTS: list[Any] = []


def hooked(model: Normed) -> Normed:
    """Hooks of every kind on an inner layer; what they are called with is written down."""
    conv = model.first

    def note(kind: str, module: Any, *handed: Any) -> None:
        assert module is conv
        EVENTS.append((kind, [x.detach().clone() for x in tensors_of(handed)]))

    conv.register_forward_pre_hook(lambda m, args: note("pre", m, args))
    conv.register_forward_pre_hook(lambda m, args, kw: (note("pre kw", m, args), (args, kw))[1], with_kwargs=True)
    conv.register_forward_hook(lambda m, args, out: note("post", m, args, out))
    conv.register_forward_hook(lambda m, args, kw, out: (note("kw", m, args), 2 * out)[1], with_kwargs=True)
    conv.register_forward_hook(lambda m, args, out: note("always", m, args, out), always_call=True)
    conv.register_full_backward_pre_hook(lambda m, out: note("back pre", m, out))
    conv.register_full_backward_hook(lambda m, given, out: note("back", m, out))
    return model


@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_of_inner_modules(everywhere: bool) -> None:
    torch.manual_seed(0)
    eager, model = Normed(), Normed()
    model.load_state_dict(eager.state_dict())
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda m, args, out: EVENTS.append((type(m).__name__, [out.detach().clone()])) if everywhere else None
    )
    try:
        for run in (columba.compile(hooked(model), backend="torch"), hooked(eager)):
            EVENTS.clear()
            for step in range(3):
                torch.manual_seed(step)
                run(G, h := leaf(N, 4)).square().sum().backward()
            seen.append([list(EVENTS), h.grad, [p.grad for p in run.parameters()]])
    finally:
        handle.remove()
    ours, theirs = seen
    assert [kind for kind, _ in ours[0]] == [kind for kind, _ in theirs[0]]
    torch.testing.assert_close([values for _, values in ours[0]], [values for _, values in theirs[0]])
    torch.testing.assert_close(ours[1:], theirs[1:])


class Smooth(Normed):
    """Can be traced as one program, as long as no hook prevents it."""

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(h, g)) * getattr(self.first, "factor", 1.0), g)  # type: ignore[no-any-return]


def in_place(module: nn.Module, args: Any, out: Tensor) -> None:
    out.detach().mul_(2)


def retaining(module: nn.Module, args: Any, out: Tensor) -> None:
    if out.requires_grad:
        out.retain_grad()
        EVENTS.append(out)


def keeping(module: nn.Module, args: Any, out: Tensor) -> None:
    module.factor = out.detach().mean(0)


@pytest.mark.parametrize("hook", [in_place, retaining, keeping])
def test_hooks_that_no_program_can_have_inside(hook: Callable[..., None]) -> None:
    models = Smooth(), Smooth()
    models[1].load_state_dict(models[0].state_dict())
    compiled = columba.compile(models[0], backend="torch")
    compiled(G, leaf(N, 4))
    grads = []
    for model, run in zip(models, (compiled, models[1]), strict=True):
        EVENTS.clear()
        model.first.register_forward_hook(hook)
        for _ in range(4):
            run(G, h := leaf(N, 4)).square().sum().backward()
        grads.append([h.grad, *(p.grad for p in model.parameters()), *(x.grad for x in EVENTS)])
    torch.testing.assert_close(*grads)
    assert len(columba.explain(compiled, G, h).breaks) == 1


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fails = False

    def forward(self, x: Tensor, *, by: float = 1.0) -> Tensor:
        if self.fails:
            raise KeyError("forward")
        return x * by


def register(module: nn.Module, kind: str, note: Callable[..., Any]) -> Any:
    """A hook of a kind; ``global`` ones are for all modules."""
    everywhere = nn.modules.module
    match kind:
        case "kwargs":
            return module.register_forward_pre_hook(
                lambda m, a, k: (note(kind, a, k["by"]), (a, {"by": 3.0}))[1], with_kwargs=True
            )
        case "bad kwargs":
            return module.register_forward_pre_hook(lambda m, a, k: a, with_kwargs=True)
        case "changing":
            return module.register_forward_pre_hook(lambda m, a: (note(kind, a), a[0] + 1)[1])
        case "result":
            return module.register_forward_hook(
                lambda m, a, k, out: (note(kind, k["by"]), out + 2)[1], with_kwargs=True
            )
        case "raising":
            return module.register_forward_hook(lambda m, a, out: {}[note(kind, out)])  # type: ignore[func-returns-value]
        case "always":
            return module.register_forward_hook(lambda m, a, out: note(kind, a, out), always_call=True)
        case "legacy":
            return module.register_backward_hook(lambda m, given, out: note(kind, out))
        case "full":
            return module.register_full_backward_hook(lambda m, given, out: note(kind, given, out))
        case "backward pre":
            return module.register_full_backward_pre_hook(lambda m, out: (out[0] * 2,))
        case "global pre":
            return everywhere.register_module_forward_pre_hook(lambda m, a: note(kind, a))
        case "global":
            return everywhere.register_module_forward_hook(lambda m, a, out: note(kind, a, out), always_call=True)
        case "global backward":
            return everywhere.register_module_full_backward_hook(lambda m, given, out: note(kind, given, out))
    raise AssertionError(kind)


KINDS = [
    ["kwargs", "changing", "result", "always", "full", "global pre", "global", "global backward"], ["legacy", "result"],
    ["backward pre", "full"], ["raising", "always", "global"], ["always", "raising", "result"], ["bad kwargs", "always"],
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook:FutureWarning")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
def test_a_call_with_another_forward_runs_hooks_as_pytorch_does(kinds: list[str], fails: bool) -> None:
    def call(calls: Callable[..., Tensor]) -> list[Any]:
        events: list[Any] = []

        def note(*what: Any) -> None:
            events.append((what[0], [t.detach().clone() for t in tensors_of(what[1:])]))

        module = Doubling()
        module.fails = fails
        handles = [register(module, kind, note) for kind in kinds]
        x = leaf(2, 2)
        try:
            out = calls(module, x)
            out.square().sum().backward()
            events.append(("out", [out.detach(), x.grad]))
        except Exception as e:
            events.append((repr(e), []))
        finally:
            for handle in handles:
                handle.remove()
        return events

    theirs = call(lambda module, x: module(x, by=1.5))
    ours = call(lambda module, x: call_with(module, module.forward, (x,), {"by": 1.5}))
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    torch.testing.assert_close([values for _, values in ours], [values for _, values in theirs])
