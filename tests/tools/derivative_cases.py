"""Derivatives: what ``torch.func`` and ``torch.autograd`` do beyond ``backward``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

import columba
from tests.tools.cases import REFUSED, THROUGH_PYTORCH, case
from tests.tools.layers import Call, DecoratedLayer, G, X, agree, assert_equal, gradients, model, pairs

SECTION = "Derivatives"
V = torch.linspace(-1, 1, X.numel(), dtype=X.dtype).view(X.shape)
BATCH = torch.stack([X.detach(), -X.detach(), V])


def loss(call: Call) -> Call:
    return lambda h: call(h).square().sum()


@case(SECTION, "`Tensor.backward`, `torch.autograd.grad`, `torch.autograd.functional.jacobian`", slow=True)
def jacobian() -> None:
    agree(lambda call: torch.autograd.functional.jacobian(call, X.detach()))


@case(SECTION, "`torch.autograd.gradcheck`", slow=True)
def gradcheck() -> None:
    for compiled, _, _ in pairs().values():
        assert torch.autograd.gradcheck(compiled, X, fast_mode=True)


@case(SECTION, "`torch.func.functional_call`")
def functional_call() -> None:
    eager = model()
    weights = {name: (2 * p).detach().requires_grad_() for name, p in eager.named_parameters()}

    def use(module: torch.nn.Module) -> list[Tensor]:
        y = torch.func.functional_call(module, weights, (G, X))
        return [y, *torch.autograd.grad(y.square().sum(), [X, *weights.values()])]

    assert_equal(use(columba.compile(eager)), use(eager))


@case(SECTION, "`torch.func.grad`, `grad_and_value`, `vjp`")
def func_grad() -> None:
    agree(lambda call: torch.func.grad_and_value(loss(call))(X))
    agree(lambda call: torch.func.vjp(call, X)[1](torch.ones_like(call(X))))


@case(SECTION, "`torch.func.jacrev`", note="a run of the kernels for each element of the result")
def jacrev() -> None:
    agree(lambda call: torch.func.jacrev(call)(X))


@case(SECTION, "`torch.func.vmap` over features", note="a run of the kernels for each element of the batch", slow=True)
def vmap() -> None:
    agree(lambda call: torch.func.vmap(call)(BATCH))
    with torch.no_grad():
        agree(lambda call: torch.func.vmap(call)(BATCH), ("shipped",))
    agree(
        lambda call: torch.func.vmap(call, in_dims=1, out_dims=2, chunk_size=2)(BATCH.transpose(0, 1)),
        ("function", "shipped"),
    )


@case(SECTION, "`vmap(grad(...))`", note="gradients of each element of a batch", slow=True)
def per_sample_gradients() -> None:
    agree(lambda call: torch.func.vmap(torch.func.grad(loss(call)))(BATCH))


def _ensemble(requires_grad: bool) -> None:
    members = [model() for _ in range(2)]
    for n, member in enumerate(members):
        for p in member.parameters():
            p.data *= n + 1
            p.requires_grad_(requires_grad)
    parameters, buffers = torch.func.stack_module_state(members)
    base = columba.compile(model())

    def call(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(base, (p, b), (G, X.detach()))

    found = torch.func.vmap(call)(parameters, buffers)
    assert_equal(found, torch.stack([member(G, X.detach()) for member in members]))
    if requires_grad:
        name = "second.weight"
        (ours,) = torch.autograd.grad(found.square().sum(), parameters[name])
        assert_equal(ours, torch.stack([gradients(m, X.detach())[1 + _place(m, name)] for m in members]))


def _place(module: torch.nn.Module, name: str) -> int:
    return [n for n, _ in module.named_parameters()].index(name)


@case(SECTION, "`vmap` over `stack_module_state`", note="an ensemble that is evaluated, or trained")
def ensemble() -> None:
    _ensemble(requires_grad=False)
    _ensemble(requires_grad=True)


@case(SECTION, 'dropout under `vmap(randomness="same")`, `"different"`')
def dropout_under_vmap() -> None:
    layer = DecoratedLayer()
    same = torch.func.vmap(lambda h: layer(G, h), randomness="same")(X.detach().expand(3, *X.shape))
    assert torch.equal(same[0], same[2])
    others = torch.func.vmap(lambda h: layer(G, h), randomness="different")(X.detach().expand(9, *X.shape))
    assert any(not torch.equal(others[0], other) for other in others[1:])


@case(
    SECTION,
    'dropout under `vmap(randomness="error")`',
    REFUSED,
    note="As PyTorch's dropout is",
    message="vmap: called random operation while in randomness error mode",
)
def dropout_under_vmap_in_error_mode() -> None:
    layer = DecoratedLayer()
    torch.func.vmap(lambda h: layer(G, h))(BATCH)


@case(
    SECTION,
    "`create_graph=True`, and the gradient of a gradient",
    THROUGH_PYTORCH,
    note="the first derivative is the kernels'",
)
def gradient_penalty() -> None:
    def use(call: Call) -> Tensor:
        (first,) = torch.autograd.grad(loss(call)(X), X, create_graph=True)
        return torch.autograd.grad(first.square().sum(), X)[0]

    agree(use)
    assert torch.autograd.gradgradcheck(pairs()["shipped"][0], X, fast_mode=True)


@case(SECTION, "`torch.autograd.functional.hessian`, `hvp`, `vhp`", THROUGH_PYTORCH)
def autograd_hessian() -> None:
    agree(lambda call: torch.autograd.functional.hessian(loss(call), X.detach()))
    agree(lambda call: torch.autograd.functional.hvp(loss(call), X.detach(), V)[1])


@case(SECTION, "`torch.func.hessian`", THROUGH_PYTORCH)
def func_hessian() -> None:
    agree(lambda call: torch.func.hessian(loss(call))(X))


@case(SECTION, "`torch.func.jvp`, `jacfwd`, `torch.autograd.forward_ad`", THROUGH_PYTORCH)
def jvp() -> None:
    agree(lambda call: torch.func.jvp(call, (X,), (V,)))
    agree(lambda call: torch.func.jacfwd(call)(X))

    def dual(call: Call) -> Tensor:
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(call(forward_ad.make_dual(X.detach(), V))).tangent
            assert tangent is not None
            return tangent

    agree(dual)


@case(SECTION, "`torch.func.functionalize`")
def functionalize() -> None:
    with torch.no_grad():
        agree(lambda call: torch.func.functionalize(call)(X.detach()), ("function",))


@case(SECTION, "`torch.func.functionalize` under other transforms", THROUGH_PYTORCH)
def functionalize_and_others() -> None:
    agree(lambda call: torch.func.grad(torch.func.functionalize(loss(call)))(X), ("function",))


@case(SECTION, "`torch.func.linearize`", THROUGH_PYTORCH)
def linearize() -> None:
    agree(lambda call: torch.func.linearize(call, X)[1](V), ("function",))


@case(SECTION, "`torch.autograd.grad(is_grads_batched=True)`, `jacobian(vectorize=True)`", THROUGH_PYTORCH)
def batched_gradients() -> None:
    agree(lambda call: torch.autograd.functional.jacobian(call, X.detach(), vectorize=True))
