"""Layers of PyTorch Geometric: which of them run as programs of our own, in place of their ``forward``."""

from columba.frontend.pyg.dispatch import forward_of, lowered
from columba.frontend.pyg.registry import (
    LOWERINGS,
    Lowering,
    has_own_forwards,
    has_result,
    is_graph_layer,
    is_layer,
    lowering_of,
    own_forward,
)

__all__ = [
    "LOWERINGS",
    "Lowering",
    "forward_of",
    "has_own_forwards",
    "has_result",
    "is_graph_layer",
    "is_layer",
    "lowered",
    "lowering_of",
    "own_forward",
]
