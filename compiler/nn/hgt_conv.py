"""Heterogeneous graph transformer."""

from __future__ import annotations

import math
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


class HGTConv(TypedModule):
    r"""The heterogeneous graph transformer of Hu et al., "Heterogeneous Graph Transformer" (2020), equations 3 to 5,
    with the gated skip connection of the authors' code. For every head, with d = out / heads, node types
    :math:`\tau` and the edges (j, r, i) into i:

    .. math::
        k_j = x_j K_{\tau(j)}, \quad q_i = x_i Q_{\tau(i)}, \quad v_j = x_j V_{\tau(j)}

        \alpha = \mathrm{softmax}_{jr}\left(\langle k_j A_r, q_i \rangle\, \mu_r / \sqrt d\right), \quad
        h_i = \sum_{jr} \alpha_{jri}\, v_j M_r

        x'_i = g\,(\mathrm{gelu}(h_i)\, O_{\tau(i)}) + (1 - g)\, x_i, \quad
        g = \mathrm{sigmoid}(\mathrm{skip}_{\tau(i)})

    K, Q, V and O have biases. Where ``in_channels != out_channels`` there is no skip: :math:`g = 1`.

    Args:
        in_channels: features of a node, of any type.
        out_channels: features of a result.
        num_node_types: the number T of node types; None: as many as ``node_types`` lists.
        num_relations: the number R of relations; None: as many as ``relations`` lists.
        heads: the number H of attention heads; divides ``out_channels``.
        relations, node_types: names by id. A graph that numbers them in another way is refused. None: those of the first named graph that
            the layer is called with.

    Shapes:
        ``k_weight``, ``q_weight``, ``v_weight [T, in, out]``; ``out_weight [T, out, out]``; their biases
        ``[T, out]``; ``att`` and ``msg [R, H, d, d]``; ``prior [R, H]``; ``skip [T]``, if ``in == out``.

    >>> from columba.runtime.graphs.graph import Graph
    >>> graph = Graph(
    ...     torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([0, 1, 0]), node_type=torch.tensor([0, 0, 1])
    ... )
    >>> conv = HGTConv(8, 8, num_node_types=2, num_relations=2, heads=4)
    >>> conv(torch.randn(3, 8), graph).shape
    torch.Size([3, 8])
    """

    skip: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_node_types: int | None = None,
        num_relations: int | None = None,
        heads: int = 1,
        *,
        relations: Sequence[Any] | None = None,
        node_types: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(relations=relations, node_types=node_types)
        num_relations = named_count("relations", num_relations, relations)
        num_node_types = named_count("node_types", num_node_types, node_types)
        if out_channels % heads:
            raise ValueError(f"heads={heads} must divide out_channels={out_channels}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_node_types = num_node_types
        self.num_relations = num_relations
        self.heads = heads
        size = out_channels // heads
        self.k_weight, self.k_bias = _linear_maps(num_node_types, in_channels, out_channels)
        self.q_weight, self.q_bias = _linear_maps(num_node_types, in_channels, out_channels)
        self.v_weight, self.v_bias = _linear_maps(num_node_types, in_channels, out_channels)
        self.out_weight, self.out_bias = _linear_maps(num_node_types, out_channels, out_channels)
        self.att = nn.Parameter(torch.empty(num_relations, heads, size, size))
        self.msg = nn.Parameter(torch.empty(num_relations, heads, size, size))
        self.prior = nn.Parameter(torch.empty(num_relations, heads))
        self.skip = nn.Parameter(torch.empty(num_node_types)) if in_channels == out_channels else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights; biases become zero, priors and skips one."""
        for name, parameter in self.named_parameters():
            if name in ("prior", "skip"):
                nn.init.ones_(parameter)
            elif name.endswith("_bias"):
                nn.init.zeros_(parameter)
            else:
                glorot(parameter)

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Graph | Tensor,
        edge_type: Tensor | None = None,
        node_type: Tensor | tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The new features of every destination: ``[num_dst, out_channels]``.

        Args:
            x: ``[N, in_channels]``, or a pair of such for (source, destination).
            edge_index: a graph, or ``[2, E]`` with sources in row 0.
            edge_type: ``[E]``, if ``edge_index`` is a tensor.
            node_type: ``[N]``, or a pair, if ``edge_index`` is a tensor.
        """
        x_src, x_dst = x if isinstance(x, tuple) else (x, x)
        num_nodes = (x_src.shape[0], x_dst.shape[0]) if isinstance(x, tuple) else x_src.shape[0]
        g = as_graph(
            edge_index,
            edge_type,
            node_type,
            num_nodes=num_nodes,
            num_relations=self.num_relations,
            num_node_types=self.num_node_types,
            names=self.names,
        )
        e = g.edges
        source, target = (g.nodes, g.nodes) if g.is_square else (g.src_nodes, g.dst_nodes)

        def split_heads(y: Tensor) -> Tensor:
            return y.view(y.shape[0], self.heads, self.out_channels // self.heads)

        k = split_heads(linear(x_src, source.type(self.k_weight)) + source.type(self.k_bias))
        q = split_heads(linear(x_dst, target.type(self.q_weight)) + target.type(self.q_bias))
        v = split_heads(linear(x_src, source.type(self.v_weight)) + source.type(self.v_bias))
        key = torch.einsum("ehi,ehij->ehj", e.src(k), e.rel(self.att))
        message = torch.einsum("ehi,ehij->ehj", e.src(v), e.rel(self.msg))
        score = (key * e.dst(q)).sum(-1) * e.rel(self.prior) / math.sqrt(self.out_channels // self.heads)
        alpha = e.softmax(score)
        h = e.sum(alpha.unsqueeze(-1) * message).view(x_dst.shape[0], self.out_channels)
        out = linear(F.gelu(h), target.type(self.out_weight)) + target.type(self.out_bias)
        if self.skip is None:
            return out
        gate = torch.sigmoid(target.type(self.skip)).unsqueeze(-1)
        return gate * out + (1 - gate) * x_dst

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, num_node_types={self.num_node_types}, "
            f"num_relations={self.num_relations}, heads={self.heads}"
        )


def _linear_maps(types: int, size: int, out: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights and biases, one of each for every type."""
    return nn.Parameter(torch.empty(types, size, out)), nn.Parameter(torch.empty(types, out))
