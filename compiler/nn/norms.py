"""Normalizations over the nodes of each graph of a batch, with the names, parameters and formulas of PyTorch Geometric."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from columba.nn.pool import batch_of
from columba.runtime.graphs.graph import Graph


class GraphNorm(nn.Module):
    r"""Normalization over each graph with a learned part of the mean, of Cai et al., "GraphNorm" (2021):

    .. math::
        x'_i = \gamma \frac{x_i - \alpha E[x]}{\sqrt{E[(x - \alpha E[x])^2] + \epsilon}} + \beta

    Args:
        in_channels: features of a node.
        eps: what is added to the variance.

    Shapes:
        ``weight`` (gamma), ``bias`` (beta) and ``mean_scale`` (alpha): ``[in_channels]``.

    >>> graph = Graph(torch.tensor([[0, 2], [1, 2]]), batch=torch.tensor([0, 0, 1]))
    >>> GraphNorm(1)(torch.tensor([[0.0], [4.0], [7.0]]), graph).round(decimals=3).flatten().tolist()
    [-1.0, 1.0, 0.0]
    """

    def __init__(self, in_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.in_channels, self.eps = in_channels, eps
        self.weight = nn.Parameter(torch.empty(in_channels))
        self.bias = nn.Parameter(torch.empty(in_channels))
        self.mean_scale = nn.Parameter(torch.empty(in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """What is given is normalized, and no more."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.mean_scale)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """``[N, in_channels]`` to the same; of a graph that is no batch, over all nodes."""
        n = batch_of(graph).nodes
        out = x - n.graph(n.mean(x, to="graph") * self.mean_scale)
        std = (n.mean(out.square(), to="graph") + self.eps).sqrt()
        return self.weight * out / n.graph(std) + self.bias

    def extra_repr(self) -> str:
        return str(self.in_channels)


class PairNorm(nn.Module):
    r"""Normalization of the distances between the nodes of each graph, of Zhao and Akoglu, "PairNorm" (2020): with the mean of the graph's
    nodes subtracted,

    .. math::
        x'_i = s \frac{x_i}{\sqrt{E[\lVert x \rVert^2] + \epsilon}}

    Args:
        scale: s.
        scale_individually: whether each node is divided by its own norm plus eps instead.
        eps: what is added.

    >>> graph = Graph(torch.tensor([[0, 2], [1, 2]]), batch=torch.tensor([0, 0, 1]))
    >>> PairNorm()(torch.tensor([[0.0], [4.0], [7.0]]), graph).round(decimals=3).flatten().tolist()
    [-1.0, 1.0, 0.0]
    """

    def __init__(self, scale: float = 1.0, scale_individually: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale, self.scale_individually, self.eps = scale, scale_individually, eps

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """``[N, features]`` to the same; of a graph that is no batch, over all nodes."""
        n = batch_of(graph).nodes
        x = x - n.graph(n.mean(x, to="graph"))
        if self.scale_individually:
            return self.scale * x / (self.eps + x.norm(2, -1, keepdim=True))
        squares = n.mean(x.square().sum(-1, keepdim=True), to="graph")
        return self.scale * x / n.graph((self.eps + squares).sqrt())


class GraphSizeNorm(nn.Module):
    """Each node divided by the square root of the number of nodes of its graph, of Dwivedi et al., "Benchmarking Graph Neural Networks".

    >>> graph = Graph(torch.tensor([[0], [3]]), batch=torch.zeros(4, dtype=torch.long))
    >>> GraphSizeNorm()(torch.ones(4, 1), graph).flatten().tolist()
    [0.5, 0.5, 0.5, 0.5]
    """

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """``[N, features]`` to the same."""
        return x * batch_of(graph).nodes.degree("graph", dtype=x.dtype).pow(-0.5).view(-1, 1)
