"""Relational GNN layers, and norms and readouts of batches, each a few lines of the language, ready to be compiled.

Called as they are they run eagerly; ``columba.compile(layer)`` compiles them.
"""

from columba.nn.distmult import DistMult
from columba.nn.hgt_conv import HGTConv
from columba.nn.norms import GraphNorm, GraphSizeNorm, PairNorm
from columba.nn.pool import global_add_pool, global_max_pool, global_mean_pool
from columba.nn.rgat_conv import RGATConv
from columba.nn.rgcn_conv import RGCNConv
from columba.nn.typed_module import TypedModule

__all__ = [
    "DistMult",
    "GraphNorm",
    "GraphSizeNorm",
    "HGTConv",
    "PairNorm",
    "RGATConv",
    "RGCNConv",
    "TypedModule",
    "global_add_pool",
    "global_max_pool",
    "global_mean_pool",
]
