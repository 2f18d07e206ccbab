"""The same layers as others write them: callables ``(x) -> out`` on a fixed graph, on the parameters of one of Columba's layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import columba
from benchmarks.cases import Case
from benchmarks.device import backend_of
from benchmarks.recipes import RECIPES
from benchmarks.records import HAND_WRITTEN
from columba import Graph

PEERS = (
    "columba",
    "compact",
    "folded",
    "plain",
    "pyg",
    "pyg-fast",
    "dgl",
    "compact+compile",
    "plain+compile",
    "pyg+compile",
    "pyg-fast+compile",
)
"""All peers, Columba first. ``plain``, ``compact`` and ``folded`` are hand-written PyTorch; ``+compile`` goes through ``torch.compile``."""

SETTINGS = {"dgl": {"OMP_WAIT_POLICY": "PASSIVE"}}
"""Environment variables of single peers. DGL and PyTorch bring an OpenMP runtime each; while the threads of one spin, those of the other
wait: RGCN on AIFB takes half a second so, and 28 ms without."""

LIBRARIES = ("pyg", "pyg-fast", "pyg+compile", "pyg-fast+compile", "dgl")
"""The peers that are layers of PyG or DGL."""

FAMILIES = {
    "hand-written PyTorch": HAND_WRITTEN,
    "libraries": ("pyg", "pyg-fast", "dgl"),
    "through torch.compile": ("compact+compile", "plain+compile", "pyg+compile", "pyg-fast+compile"),
}
"""The peers that stand side by side in a table."""


@dataclass(frozen=True)
class Built:
    """A peer's layer: what to call, the parameters that its training step finds gradients of, and whether its outputs are ours.

    ``source`` is, for Columba, the source of the kernels that a call runs.
    """

    call: Callable[[Tensor], Tensor]
    parameters: Sequence[nn.Parameter]
    comparable: bool = True
    source: Callable[[Tensor], str] | None = None


def applies(peer: str, case: Case) -> bool:
    """Whether the peer has a version of its own of the case's layer."""
    base = peer.partition("+")[0]
    return {"folded": case.layer == "rgat", "pyg-fast": case.layer == "rgcn"}.get(base, True)


def build_peer(name: str, case: Case, layer: nn.Module, graph: Graph) -> Built:
    """The peer's version of ``layer`` on ``graph``. ``columba:RECIPE`` is Columba with one of :data:`benchmarks.recipes.RECIPES`."""
    base, _, how = name.partition("+")
    base, _, recipe = base.partition(":")
    parameters = list(layer.parameters())
    match base:
        case "columba":
            backend = backend_of(graph.device.type)
            compiled = columba.compile(layer, backend=backend, passes=RECIPES[recipe] if recipe else "")
            return Built(
                lambda x: compiled(x, graph), parameters, source=lambda x: columba.explain(compiled, x, graph).source
            )
        case "plain" | "compact" | "folded":
            from benchmarks.peers.handwritten import LAYERS

            built = Built(LAYERS[case.layer](layer, graph, base), parameters)
        case "pyg" | "pyg-fast":
            from benchmarks.peers import pyg

            built = pyg.build(case, layer, graph, fast=base == "pyg-fast")
        case "dgl":
            from benchmarks.peers import dgl

            built = dgl.build(case, layer, graph)
        case _:
            raise ValueError(f"unknown peer {name!r}; one of {', '.join(PEERS)}")
    if how == "compile":
        return Built(torch.compile(built.call), built.parameters, built.comparable)
    return built
