"""Numbers for the inputs of a case."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from columba.ir.spaces import Space
from columba.runtime.graphs.graph import Graph

from .kinds import Value

DTYPES = {"f32": torch.float32, "f64": torch.float64, "mixed": torch.float64}
DEFAULTS = {"f32": torch.float32, "f64": torch.float64, "mixed": torch.float32}
"""The dtype of inputs, and PyTorch's default dtype, in which degrees and constants come."""

SPECIAL = ("zeros", "ties", "inf", "nan", "huge", "tiny")
"""What some inputs hold: zeros of both signs among others, few different numbers, infinities, NaN, very large or small ones."""


def tensors(
    inputs: Sequence[Value], graph: Graph, dtype: str, seed: int, special: str = "", *, draw: int = 0
) -> dict[str, Tensor]:
    """A tensor for every input, uniform in (-1.5, 1.5) where nothing is special; another one for each ``draw``."""
    generator = torch.Generator().manual_seed(seed + 1000003 * draw)
    kind, *named = special.split() or [""]
    found = {}
    for v in inputs:
        rows = (graph.count(Space(v.kind.space)),) if v.kind.has_rows else ()
        x = torch.rand((*rows, *v.kind.shape), generator=generator, dtype=torch.float64) * 3 - 1.5
        if v.name in named:
            x = _made_special(x, kind, random.Random(seed + draw))
        found[v.name] = x.to(DTYPES[dtype])
    return found


def _made_special(x: Tensor, kind: str, rng: random.Random) -> Tensor:
    if kind == "ties":
        return (x * 2).round() / 2
    if kind in ("huge", "tiny"):
        share = rng.choice((0.2, 1.0))
        factor = 10.0 ** (rng.choice((20, 30)) * (1 if kind == "huge" else -1))
        chosen = torch.tensor([rng.random() < share for _ in range(x.numel())], dtype=torch.bool).view(x.shape)
        return torch.where(chosen, x * factor, x)
    flat = x.reshape(-1).clone()
    numbers = {"zeros": (0.0, -0.0), "inf": (float("inf"), -float("inf")), "nan": (float("nan"),)}[kind]
    share = rng.choice((0.3, 1.0)) if kind == "zeros" else 0.1
    for n in range(flat.numel()):
        if rng.random() < share:
            flat[n] = rng.choice(numbers)
    return flat.view(x.shape)


def direction(x: Tensor, seed: int) -> Tensor:
    """A gradient for a result."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(x.shape, generator=generator, dtype=torch.float64) * 3 - 1.5).to(x.dtype)
