"""What tests of PyTorch Geometric's layers share: small graphs, and the comparison of a compiled layer with the layer itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import columba
from columba.frontend.trees import leaves, mapped


def relational_graphs(nodes: int, relations: int, sources: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """``(edge_index, edge_type)``: with isolated nodes and a relation without edges, without edges, and one without gaps."""
    generator = torch.Generator().manual_seed(nodes)
    found = []
    for edges, limit, kinds in (
        (3 * nodes, nodes - 2, relations - 1),
        (0, nodes, relations),
        (5 * nodes, nodes, relations),
    ):
        rows = torch.randint(sources or limit, (edges,), generator=generator)
        columns = torch.randint(limit, (edges,), generator=generator)
        found.append((torch.stack([rows, columns]), torch.randint(kinds, (edges,), generator=generator)))
    return found


def floats(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def drawn(module: nn.Module) -> nn.Module:
    """The module in float64, with every parameter drawn: those, too, that its class leaves at zero, at one, or uninitialized."""
    module = module.double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module


def gradients(module: nn.Module, args: Sequence[Any], parameters: Sequence[Tensor]) -> tuple[Any, list[Tensor | None]]:
    """What a module returns, and the gradients of its inputs and of ``parameters`` for cotangents that are no constants."""
    args = mapped(
        lambda x: x.detach().clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x,
        tuple(args),
    )
    out = module(*args)
    inputs = [x for x in leaves(args) if isinstance(x, Tensor) and x.requires_grad]
    results = [x for x in leaves(out) if isinstance(x, Tensor) and x.requires_grad]
    total = sum(
        ((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)).sum() for x in results), torch.zeros(())
    )
    wanted = [*inputs, *parameters]
    if not results:
        return out, [None] * len(wanted)
    return out, list(torch.autograd.grad(total, wanted, allow_unused=True))


def compare(module: Any, *calls: Sequence[Any], backend: str = "torch", tolerance: float = 1e-9, **options: Any) -> Any:
    """Compiles a module once, and compares each call with the module itself: results and all gradients. Gives the compiled module.

    Nothing may run in Python, unless ``fullgraph=False``.
    """
    options.setdefault("fullgraph", True)
    compiled = columba.compile(module, backend=backend, **options)
    parameters = [p for p in module.parameters() if p.requires_grad]
    for args in calls:
        expected, wanted = gradients(module, copy.deepcopy(args), parameters)
        got, found = gradients(compiled, args, parameters)
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
        for one, other in zip(found, wanted, strict=True):
            if one is not None or other is not None:  # zero, where one of them is not connected
                shape = (one if other is None else other).shape  # type: ignore[union-attr]
                pair = [torch.zeros(shape, dtype=torch.float64) if x is None else x for x in (one, other)]
                torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)
    return compiled


def traces(compiled: nn.Module) -> list[Any]:
    """The specializations of a compiled module."""
    return list(vars(type(compiled))["forward"]._of_modules.get(compiled, ()))


def typed_edges(names: Sequence[Any], sizes: dict[str, int], count: int) -> dict[Any, Tensor]:
    """``count`` edges of each type."""
    generator = torch.Generator().manual_seed(count)
    return {
        name: torch.stack(
            [torch.randint(max(sizes[end], 1), (count,), generator=generator) for end in (name[0], name[-1])]
        )
        for name in names
    }
