"""Relational graph attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from columba.nn.init import glorot
from columba.nn.typed_module import TypedModule, named_count
from columba.runtime.eager.views import linear
from columba.runtime.graphs.from_tensors import as_graph
from columba.runtime.graphs.graph import Graph


class RGATConv(TypedModule):
    r"""Relational graph attention, one softmax over all incoming edges, as in Wu et al., "Hector: An Efficient
    Programming and Compilation Framework for Implementing Relational Graph Neural Networks in GPU Architectures"
    (2024), after Busbridge et al., "Relational Graph Attention Networks" (2019), equations 2, 3 and 6 (additive
    attention across relations). For every head, with the edges (j, r, i) into i:

    .. math::
        s_{jri} = \mathrm{LeakyReLU}(\langle a^{src}_r, x_j W_r \rangle + \langle a^{dst}_r, x_i W_r \rangle), \quad
        \alpha = \mathrm{softmax}_{jr}(s_{jri}), \quad
        x'_i = \sum_{jr} \alpha_{jri}\, x_j W_r

    Args:
        in_channels: features of a node, source or destination.
        out_channels: features of a result, of each head.
        num_relations: the number R of relations; None: as many as ``relations`` lists.
        heads: the number H of attention heads.
        concat: whether the heads' results are concatenated, or averaged.
        negative_slope: of the leaky ReLU.
        bias: whether there is a bias.
        relations: the names of relations, by id. A graph that numbers them in another way is refused. None: those of the first named
            graph that the layer is called with.

    Shapes:
        ``weight [R, in, H, out]``; ``att_src`` and ``att_dst [R, H, out]``; ``bias [H * out]``, or ``[out]``.

    >>> from columba.runtime.graphs.graph import Graph
    >>> graph = Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([0, 1, 0]))
    >>> RGATConv(4, 8, num_relations=2, heads=3)(torch.randn(3, 4), graph).shape
    torch.Size([3, 24])
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int | None = None,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        bias: bool = True,
        *,
        relations: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(relations=relations)
        num_relations = named_count("relations", num_relations, relations)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.weight = nn.Parameter(torch.empty(num_relations, in_channels, heads, out_channels))
        self.att_src = nn.Parameter(torch.empty(num_relations, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(num_relations, heads, out_channels))
        self.bias = nn.Parameter(torch.empty(heads * out_channels if concat else out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights; the bias becomes zero."""
        glorot(self.weight, self.in_channels, self.heads * self.out_channels)
        glorot(self.att_src)
        glorot(self.att_dst)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], edge_index: Graph | Tensor, edge_type: Tensor | None = None
    ) -> Tensor:
        """The new features of every destination: ``[num_dst, H * out]`` if ``concat``, else ``[num_dst, out]``.

        Args:
            x: ``[N, in_channels]``, or a pair of such for (source, destination).
            edge_index: a graph, or ``[2, E]`` with sources in row 0.
            edge_type: ``[E]``, if ``edge_index`` is a tensor.
        """
        x_src, x_dst = x if isinstance(x, tuple) else (x, x)
        num_nodes = (x_src.shape[0], x_dst.shape[0]) if isinstance(x, tuple) else x_src.shape[0]
        g = as_graph(edge_index, edge_type, num_nodes=num_nodes, num_relations=self.num_relations, names=self.names)
        e = g.edges
        z_src = linear(e.src(x_src), e.rel(self.weight))  # [E, H, out]
        z_dst = linear(e.dst(x_dst), e.rel(self.weight))
        score = (z_src * e.rel(self.att_src)).sum(-1) + (z_dst * e.rel(self.att_dst)).sum(-1)
        alpha = e.softmax(F.leaky_relu(score, self.negative_slope))
        out = e.sum(alpha.unsqueeze(-1) * z_src)  # [num_dst, H, out]
        out = out.view(x_dst.shape[0], self.heads * self.out_channels) if self.concat else out.mean(1)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, num_relations={self.num_relations}, heads={self.heads}, "
            f"concat={self.concat}"
        )
