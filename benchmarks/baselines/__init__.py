"""What PyG's and DGL's layers allocate, move and compute on a graph of given counts, operation by operation.

Each layer is written down as the list of tensor operations that its source runs (:mod:`~benchmarks.baselines.pyg`,
:mod:`~benchmarks.baselines.dgl`) on a :class:`~benchmarks.baselines.tape.Tape`, which counts as PyTorch's eager mode and autograd
behave. Nothing is executed. ``tests/whole/test_baselines.py`` holds PyG's lists against what its layers allocate on small graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.baselines import dgl, pyg
from benchmarks.baselines.sizes import Sizes
from benchmarks.baselines.tape import Tape, Totals

Layer = Callable[[Tape, Sizes], None]

BASELINES: Mapping[str, Mapping[str, Layer]] = {
    "rgcn": {"RGCNConv": pyg.rgcn, "FastRGCNConv": pyg.fast_rgcn, "RelGraphConv": dgl.rel_graph_conv},
    "rgat": {"RGATConv": pyg.rgat, "HeteroGraphConv(GATConv)": dgl.hetero_gat},
    "hgt": {"PyG HGTConv": pyg.hgt, "DGL HGTConv": dgl.hgt},
}
"""By layer, then by what the libraries call it."""


def run(layer: Layer, sizes: Sizes, *, training: bool) -> Totals:
    """What a call takes, or a training step with gradients for the input and all parameters."""
    tape = Tape(training)
    layer(tape, sizes)
    return tape.totals()


__all__ = ["BASELINES", "Sizes", "Tape", "Totals", "run"]
