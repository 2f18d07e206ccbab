"""Graphs by tensors that name them: how a graph comes to an operator, whose arguments are tensors and numbers.

A token is a tensor of one number, which is an input of what PyTorch's compilers make of a function: another graph is another token, and
needs no compilation. It does not keep the graph alive; whoever calls does.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor

from columba.runtime.modes import outside_modes

_numbers = itertools.count(1)
_graphs: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def new_token(graph: Any) -> Tensor:
    """A tensor that names a graph from now on, as long as the graph lives."""
    number = next(_numbers)
    _graphs[number] = graph
    with outside_modes():
        return torch.full((), number)


def graph_of(token: Tensor) -> Any:
    """The graph that a token names; RuntimeError if it is gone, or of another process."""
    graph = _graphs.get(int(token))
    if graph is None:
        raise RuntimeError(
            "columba: the graph of this call is gone, or was made in another process. Keep the columba.Graph as long as what was compiled "
            "or exported with it is called; pass edge_index and edge_type tensors to what is saved and loaded elsewhere"
        )
    return graph
