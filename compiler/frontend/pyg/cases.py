"""What lowerings ask of a layer and its arguments, and what they say where they do not cover a case.

Attributes are read from the layer itself, so that a trace depends on them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from columba.frontend.errors import fail
from columba.frontend.record import current
from columba.runtime.graphs.graph import Graph


class NotLowered(Exception):
    """A lowering does not cover a case, for the reason given: the layer's own ``forward`` runs.

    Raised before anything is computed.
    """


HOOKS = (
    "_propagate_forward_pre_hooks", "_propagate_forward_hooks", "_message_forward_pre_hooks", "_message_forward_hooks",
    "_aggregate_forward_pre_hooks", "_aggregate_forward_hooks", "_message_and_aggregate_forward_pre_hooks",
    "_message_and_aggregate_forward_hooks",
)  # fmt: skip
ALL_HOOKS = (*HOOKS, "_edge_update_forward_pre_hooks", "_edge_update_forward_hooks")
METHODS = ("message", "aggregate", "update", "message_and_aggregate")
"""What a layer's message passing is made of, beside ``propagate``, which PyG generates for each class."""

SIMPLE = {"sum": "sum", "add": "sum", "mean": "mean", "max": "max", "min": "min"}
"""PyG's names of aggregations that are reductions of the language."""

_AGGREGATIONS = {
    "sum": "SumAggregation",
    "add": "SumAggregation",
    "mean": "MeanAggregation",
    "max": "MaxAggregation",
    "min": "MinAggregation",
}


def check_messages(conv: Any, node_dim: tuple[int, ...] = (0, -2)) -> None:
    """NotLowered where messages do not go as the class of a layer says."""
    if conv.flow != "source_to_target":
        raise NotLowered(f"flow={conv.flow!r}")
    if conv.node_dim not in node_dim:
        raise NotLowered(f"node_dim={conv.node_dim}")
    if conv._decomposed_layers > 1:
        raise NotLowered(f"decomposed_layers={conv._decomposed_layers}")
    if conv._explain:
        raise NotLowered("the layer is being explained (explain=True)")
    for name in HOOKS:
        if getattr(conv, name):
            raise NotLowered(f"the layer has hooks on its message passing ({name[1:]})")
    own = object.__getattribute__(conv, "__dict__")  # all of which would be compared at each call
    for name in METHODS:
        method = getattr(conv, name)  # noted: where the layer, or its class, gets another one, it is traced again
        if name in own or not method.__module__.startswith("torch_geometric."):
            raise NotLowered(f"this layer has a {name} that is not PyG's")


def check_no_hooks(module: nn.Module) -> None:
    """TraceError for a layer with hooks on its message passing: they belong to each call, and only tracing it would call them."""
    own = object.__getattribute__(module, "__dict__")
    for name in ALL_HOOKS:
        if own.get(name):
            raise fail(
                f"this {type(module).__name__} has hooks on its message passing ({name[1:]}), which a compiled function does not "
                "call: with them it runs as it is"
            )


def reduction(conv: Any) -> str:
    """The reduction of the language that a layer aggregates by."""
    found = SIMPLE.get(conv.aggr) if isinstance(conv.aggr, str) else None
    if found is None or type(conv.aggr_module).__name__ != _AGGREGATIONS[conv.aggr]:
        raise NotLowered(f"aggr={conv.aggr!r}")
    return found


def check_edges(edge_index: Any, *types: Any) -> None:
    """NotLowered unless edges are given as a dense ``[2, E]`` of integers, and their types as a tensor."""
    if isinstance(edge_index, Graph):
        return
    if not isinstance(edge_index, Tensor):
        raise NotLowered(f"edge_index is a {type(edge_index).__name__}; give it as a tensor [2, num_edges]")
    recorder: Any = current()
    record = recorder.operand(edge_index)
    real = recorder.real.get(record)
    if record.source is None or real is None:
        raise NotLowered("edge_index is computed inside the compiled function")
    if real.layout is not torch.strided:
        raise NotLowered("edge_index is a sparse tensor; give it as a tensor [2, num_edges]")
    for one in types:
        if not isinstance(one, Tensor):
            raise NotLowered("edge types are not given as a tensor")


def check_floating(**tensors: Any) -> None:
    """NotLowered unless all are tensors of floating point numbers."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise NotLowered(f"{name} is no tensor of floating point numbers")


def is_plain(module: Any, kind: str = "Linear") -> bool:
    """Whether a module is PyTorch's or PyG's of a kind and nothing else, so that its weight may be used by parts."""
    if type(module).__name__ != kind or not type(module).__module__.startswith(("torch.nn.", "torch_geometric.")):
        return False
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks) and not isinstance(module.weight, nn.parameter.UninitializedParameter)


def check_plain(conv: Any, **kinds: str) -> None:
    """NotLowered unless modules of a layer, by their names, are of these kinds and nothing else."""
    for name, kind in kinds.items():
        if not is_plain(getattr(conv, name), kind):
            raise NotLowered(f"its module {name} has hooks, another class, or sizes that are not known yet")
