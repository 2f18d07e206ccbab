"""The same layers as others write them: callables ``(x) -> out`` on a fixed graph, on the parameters of one of Columba's layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import columba
from benchmarks.cases import Case
from columba import Graph

PEERS = ("columba", "compact", "folded", "plain", "compact+compile", "plain+compile")
"""All peers, Columba first. ``plain`` and ``compact`` are hand-written PyTorch; ``+compile`` goes through ``torch.compile``."""


class NotApplicable(Exception):
    """A peer has no such layer."""


def build_peer(name: str, case: Case, layer: nn.Module, graph: Graph) -> Callable[[Tensor], Tensor]:
    """The peer's version of ``layer`` on ``graph``; :class:`NotApplicable` where it has none."""
    base, _, how = name.partition("+")
    model: Callable[[Tensor], Tensor]
    match base:
        case "columba":
            compiled = columba.compile(layer, backend="cpp")
            return lambda x: compiled(x, graph)
        case "plain" | "compact" | "folded":
            from benchmarks.peers.handwritten import LAYERS

            model = LAYERS[case.layer](layer, graph, base)
        case _:
            raise ValueError(f"unknown peer {name!r}; one of {', '.join(PEERS)}")
    return torch.compile(model) if how == "compile" else model
