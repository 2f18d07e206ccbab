"""Columba compiles relational graph neural networks written in PyTorch.

>>> import torch, columba
>>> @columba.compile
... def mean_of_neighbours(g, h):
...     return g.edges.mean(g.edges.src(h))
>>> g = columba.Graph(torch.tensor([[0, 1, 2], [2, 2, 0]]))
>>> mean_of_neighbours(g, torch.tensor([[1.0], [3.0], [5.0]])).tolist()
[[5.0], [0.0], [2.0]]
"""

from columba import datasets, nn
from columba.api import Explanation, compile, explain, inspect, tune
from columba.frontend import TraceError, UnsupportedOperation
from columba.runtime.config import config
from columba.runtime.eager.views import linear
from columba.runtime.graphs.batches import batch, unbatch
from columba.runtime.graphs.from_tensors import as_graph
from columba.runtime.graphs.graph import Graph
from columba.runtime.graphs.names import TypeNames
from columba.runtime.logs import configure as _configure

__version__ = "0.1.0"

__all__ = [
    "Explanation",
    "Graph",
    "TraceError",
    "TypeNames",
    "UnsupportedOperation",
    "as_graph",
    "batch",
    "compile",
    "config",
    "datasets",
    "explain",
    "inspect",
    "linear",
    "nn",
    "tune",
    "unbatch",
]

_configure()
