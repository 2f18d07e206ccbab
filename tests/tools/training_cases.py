"""Tools around a training step."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import columba
from tests.tools.cases import REFUSED, case
from tests.tools.layers import DecoratedLayer, G, X, assert_equal, gradients, model, pairs

TRAINING, MEMORY, INSPECTION = "Training", "Precision and memory", "Inspection"


def train(
    module: nn.Module, optimizer: torch.optim.Optimizer, step: Callable[[Tensor], None] | None = None
) -> list[Tensor]:
    for _ in range(3):
        optimizer.zero_grad()
        value = module(G, X.detach()).square().mean()
        value.backward() if step is None else step(value)
        optimizer.step()
    return [p.detach().clone() for p in module.parameters()]


@case(TRAINING, "`torch.optim`, with `foreach`, `fused`, and `LBFGS`")
def optimizers() -> None:
    for make in (
        lambda p: torch.optim.AdamW(p, fused=True),
        lambda p: torch.optim.Adam(p, foreach=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    ):
        eager = model()
        compiled = columba.compile(copy.deepcopy(eager))
        assert_equal(train(compiled, make(compiled.parameters())), train(eager, make(eager.parameters())))
    eager = model()
    compiled = columba.compile(copy.deepcopy(eager))
    for module in (compiled, eager):
        optimizer = torch.optim.LBFGS(module.parameters(), max_iter=3)

        def closure(module: nn.Module = module, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = module(G, X.detach()).square().mean()
            value.backward()
            return value

        optimizer.step(closure)
    assert_equal([*compiled.parameters()], [*eager.parameters()])


@case(TRAINING, "gradient accumulation, `clip_grad_norm_`, `clip_grad_value_`")
def accumulation_and_clipping() -> None:
    eager = model()
    compiled = columba.compile(copy.deepcopy(eager))
    for module in (compiled, eager):
        for scale in (1, 2, 3):
            module(G, X.detach() * scale).square().sum().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        nn.utils.clip_grad_value_(module.parameters(), 0.2)
    assert_equal([p.grad for p in compiled.parameters()], [p.grad for p in eager.parameters()])


@case(TRAINING, "`torch.optim.swa_utils.AveragedModel`, `copy.deepcopy`")
def averaged_models() -> None:
    eager = model()
    compiled = columba.compile(copy.deepcopy(eager))
    averages = []
    for module in (compiled, eager):
        average = torch.optim.swa_utils.AveragedModel(
            module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
        )
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):
            train(module, optimizer)
            average.update_parameters(module)
        averages.append(average)
    assert_equal(averages[0](G, X), averages[1](G, X))
    copied = copy.deepcopy(compiled)
    assert_equal(gradients(copied), gradients(eager))
    assert next(copied.parameters()) is not next(compiled.parameters())


@case(TRAINING, "`state_dict`, `load_state_dict`, `torch.save`, `torch.load`")
def saving() -> None:
    eager = model()
    other = columba.compile(model())
    file = io.BytesIO()
    torch.save(columba.compile(eager).state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert_equal(gradients(other), gradients(eager))


@case(TRAINING, "`torch.nn.utils.parametrize`, `parametrizations.weight_norm`", slow=True)
def parametrizations() -> None:
    for make in (
        lambda m: nn.utils.parametrizations.weight_norm(m.second, "weight"),
        lambda m: nn.utils.parametrize.register_parametrization(m.first, "weight", _Doubled()),
    ):
        eager = model()
        compiled = columba.compile(copy.deepcopy(eager))
        gradients(compiled)
        for module in (compiled, eager):
            torch.manual_seed(1)
            make(module)
            module.eval()
        with torch.no_grad():
            for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
                ours.copy_(theirs)
            for ours, theirs in zip(compiled.buffers(), eager.buffers(), strict=True):
                ours.copy_(theirs)
        assert_equal(gradients(compiled), gradients(eager))
        with nn.utils.parametrize.cached():
            assert_equal(gradients(compiled), gradients(eager))


@case(
    TRAINING,
    "`torch.nn.utils.weight_norm`, the old one, of a module that a compiled function calls",
    REFUSED,
    message="torch.nn.utils.weight_norm sets 'weight' of this RGCNConv in a hook, which a compiled function cannot; use "
    "torch.nn.utils.parametrizations.weight_norm",
    note="A compiled model runs such a module in Python",
    slow=True,
)
def old_weight_norm() -> None:
    eager = model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(eager.first, "weight")
    y = columba.compile(eager)(G, X)
    assert_equal(y, eager(G, X))
    columba.compile(lambda g, h: eager.first(h, g))(G, X)


class _Doubled(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


@case(TRAINING, "hooks of modules and tensors")
def hooks() -> None:
    seen: list[tuple[int, ...]] = []
    eager = model()
    compiled = columba.compile(eager)
    handles = [
        compiled.register_forward_hook(lambda module, args, result: result * 2),
        compiled.register_full_backward_hook(lambda module, of_inputs, of_results: seen.append(of_results[0].shape)),
        compiled.second.weight.register_hook(lambda grad: grad * 0),
        compiled.first.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.shape)),
    ]
    y = compiled(G, X)
    y.sum().backward()
    for handle in handles:
        handle.remove()
    assert_equal(y, 2 * eager(G, X))
    assert not compiled.second.weight.grad.any()
    assert sorted(seen) == sorted([y.shape, compiled.first.weight.shape])


# ------------------------------------------------------------------------------------------------ precision and memory


@case(MEMORY, "`torch.utils.checkpoint`, around and inside compiled modules, either `use_reentrant`", slow=True)
def checkpoints() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module, reentrant: bool) -> None:
            super().__init__()
            self.inner, self.reentrant = inner, reentrant

        def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
            return checkpoint(self.inner, g, h, use_reentrant=self.reentrant)

    eager = model()
    wanted = gradients(eager)
    for reentrant in (False, True):
        for module in (Outer(columba.compile(eager), reentrant), columba.compile(Outer(eager, reentrant))):
            for _ in range(3):
                found = module(G, X)
                grads = [torch.zeros(())]
                for leaf in (X, *eager.parameters()):
                    leaf.grad = None
                found.square().sum().backward()
                grads = [leaf.grad for leaf in (X, *eager.parameters())]
                assert_equal([found, *grads], wanted)
                for leaf in (X, *eager.parameters()):
                    leaf.grad = None
    layer = DecoratedLayer()
    torch.manual_seed(3)
    (first,) = torch.autograd.grad(layer(G, X).sum(), layer.weight)
    torch.manual_seed(3)
    (again,) = torch.autograd.grad(checkpoint(layer, G, X, use_reentrant=False).sum(), layer.weight)
    assert_equal(again, first)  # with the same dropout


@case(MEMORY, "`torch.autograd.graph.save_on_cpu`, `saved_tensors_hooks`")
def saved_tensors() -> None:
    packed: list[Tensor] = []
    for compiled, eager, parameters in pairs().values():
        wanted = torch.autograd.grad(eager(X).square().sum(), [X, *parameters])
        for context in (
            torch.autograd.graph.save_on_cpu(),
            torch.autograd.graph.saved_tensors_hooks(lambda x: (packed.append(x), x.clone())[1], lambda x: x),
        ):
            with context:
                y = compiled(X)
            assert_equal(torch.autograd.grad(y.square().sum(), [X, *parameters]), wanted)
    assert packed


@case(MEMORY, "`torch.amp.GradScaler` on the CPU")
def grad_scaler() -> None:
    results = []
    for compiles in (True, False):
        module = model().float()
        module = columba.compile(module) if compiles else module
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for scale in (1.0, float("inf"), 2.0):  # the second step is skipped
            optimizer.zero_grad()
            scaler.scale(module(G, X.detach().float() * scale).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 512
        results.append([p.detach().double() for p in module.parameters()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------ inspection


@case(
    INSPECTION,
    "`torch.autograd.set_detect_anomaly`",
    note="names the result that is NaN, and shows the call of the forward pass",
)
def anomaly() -> None:
    shown = io.StringIO()
    with torch.autograd.set_detect_anomaly(True), contextlib.redirect_stderr(shown), warnings.catch_warnings():
        warnings.showwarning = lambda message, *args: shown.write(str(message))  # type: ignore[assignment]
        with pytest.raises(RuntimeError, match="returned nan values in its 0th output"):
            pairs()["shipped"][0](X * float("nan")).sum().backward()
    assert "layers.py" in shown.getvalue()
