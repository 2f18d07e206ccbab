"""Readouts: the rows of the nodes of each graph of a batch put together, under PyTorch Geometric's names."""

from __future__ import annotations

from torch import Tensor

from columba.runtime.graphs.graph import Graph


def global_add_pool(x: Tensor, graph: Graph) -> Tensor:
    """The sum over the nodes of each graph: ``[N, *features]`` to ``[num_graphs, *features]``; 0 for graphs without nodes.

    Args:
        x: one row per node of a square graph.
        graph: a batch (:func:`columba.batch`, ``Graph(..., batch=)``), where PyG's function takes the vector; one that is no batch is one
            graph.

    Raises:
        TypeError: ``graph`` is no graph, or ``x`` no tensor of numbers. ValueError: the graph is bipartite, or ``x`` has other rows.

    >>> import torch
    >>> from columba import Graph
    >>> graph = Graph(torch.tensor([[0, 2], [1, 2]]), batch=torch.tensor([0, 0, 1]))
    >>> x = torch.tensor([[1.0], [10.0], [100.0]])
    >>> global_add_pool(x, graph).tolist(), global_mean_pool(x, graph).tolist(), global_max_pool(x, graph).tolist()
    ([[11.0], [100.0]], [[5.5], [100.0]], [[10.0], [100.0]])
    """
    return batch_of(graph).nodes.sum(x, to="graph")


def global_mean_pool(x: Tensor, graph: Graph) -> Tensor:
    """The mean over the nodes of each graph; otherwise as :func:`global_add_pool`."""
    return batch_of(graph).nodes.mean(x, to="graph")


def global_max_pool(x: Tensor, graph: Graph) -> Tensor:
    """The largest number of the nodes of each graph, feature by feature; otherwise as :func:`global_add_pool`.

    Ties share the gradient evenly.
    """
    return batch_of(graph).nodes.max(x, to="graph")


def batch_of(graph: Graph) -> Graph:
    """The graph, if it is one: PyG's functions take the vector."""
    if not isinstance(graph, Graph):
        raise TypeError(
            f"expected a columba.Graph, got {type(graph).__name__}; give the graph where PyG's function takes the vector batch, which "
            "columba.Graph(edge_index, batch=batch) holds"
        )
    return graph
