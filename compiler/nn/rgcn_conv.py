"""Relational graph convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from columba.nn.init import glorot
from columba.nn.typed_module import TypedModule, named_count
from columba.runtime.eager.views import EdgeView, linear
from columba.runtime.graphs.from_tensors import as_graph
from columba.runtime.graphs.graph import Graph


class RGCNConv(TypedModule):
    r"""The relational graph convolution of Schlichtkrull et al., "Modeling Relational Data with Graph Convolutional
    Networks" (2018), equation 2, with the parameters, shapes and initialization of PyTorch Geometric's layer of this
    name, so that its ``state_dict`` loads:

    .. math::
        x'_i = x_i \Theta + b + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} x_j W_r

    Args:
        in_channels: features of a node, or a pair for (source, destination); the number of nodes if nodes have no
            features.
        out_channels: features of a result.
        num_relations: the number R of relations; None: as many as ``relations`` lists.
        num_bases: if given, W_r is a combination of that many bases (equation 3).
        num_blocks: if given, W_r is block-diagonal with that many blocks (equation 4).
        aggr: ``"mean"`` over the neighbours of one relation, as above; ``"sum"`` (or ``"add"``); ``"max"``, which
            takes the maximum of the neighbours' features, relation by relation, before W_r.
        root_weight: whether there is a weight for the node itself.
        bias: whether there is a bias.
        relations: the names of relations, by id. A graph that numbers them in another way is refused. None: those of the first named
            graph that the layer is called with.

    Shapes:
        ``weight [R, in, out]``, or ``[num_bases, in, out]`` with ``comp [R, num_bases]``, or
        ``[R, num_blocks, in / num_blocks, out / num_blocks]``; ``root [in, out]``; ``bias [out]``.

    >>> from columba.runtime.graphs.graph import Graph
    >>> graph = Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([0, 1, 0]))
    >>> conv = RGCNConv(4, 8, num_relations=2)
    >>> conv(torch.randn(3, 4), graph).shape
    torch.Size([3, 8])
    >>> conv(torch.randn(3, 4), graph.edge_index, graph.edge_type).shape
    torch.Size([3, 8])
    """

    comp: nn.Parameter | None
    root: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        num_relations: int | None = None,
        num_bases: int | None = None,
        num_blocks: int | None = None,
        aggr: str = "mean",
        root_weight: bool = True,
        bias: bool = True,
        *,
        relations: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(relations=relations)
        num_relations = named_count("relations", num_relations, relations)
        if num_bases is not None and num_blocks is not None:
            raise ValueError("give num_bases or num_blocks: a weight cannot be both a combination and block-diagonal")
        if aggr not in ("mean", "sum", "add", "max"):
            raise ValueError(f'aggr must be "mean", "sum" (or "add") or "max", got {aggr!r}')
        sizes = in_channels if isinstance(in_channels, tuple) else (in_channels, in_channels)
        if num_blocks is not None and (sizes[0] % num_blocks or out_channels % num_blocks):
            raise ValueError(f"num_blocks={num_blocks} must divide in_channels={sizes[0]}, out_channels={out_channels}")
        self.in_channels = in_channels
        self.in_channels_l = sizes[0]
        self.out_channels = out_channels
        self.num_relations = num_relations
        self.num_bases = num_bases
        self.num_blocks = num_blocks
        self.aggr = aggr
        if num_blocks is not None:
            shape = (num_relations, num_blocks, sizes[0] // num_blocks, out_channels // num_blocks)
            self.weight = nn.Parameter(torch.empty(shape))
        else:
            self.weight = nn.Parameter(torch.empty(num_bases or num_relations, sizes[0], out_channels))
        self.comp = None if num_bases is None else nn.Parameter(torch.empty(num_relations, num_bases))
        self.root = nn.Parameter(torch.empty(sizes[1], out_channels)) if root_weight else None
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights; the bias becomes zero."""
        for weight in (self.weight, self.comp, self.root):
            if weight is not None:
                glorot(weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor | tuple[Tensor | None, Tensor | None] | None,
        edge_index: Graph | Tensor,
        edge_type: Tensor | None = None,
    ) -> Tensor:
        """The new features of every destination: ``[num_dst, out_channels]``.

        Args:
            x: ``[N, in_channels]``; or integer ids ``[N]`` below ``in_channels``, a row of the weights for each; or
                None, which is the id of each node; or a pair of these for (source, destination). Ids and None need
                ``num_bases``.
            edge_index: a graph, or ``[2, E]`` with sources in row 0.
            edge_type: ``[E]``, if ``edge_index`` is a tensor.
        """
        x_src, x_dst = x if isinstance(x, tuple) else (x, x)
        num_src, num_dst = (self.in_channels_l if end is None else end.shape[0] for end in (x_src, x_dst))
        num_nodes = (num_src, num_dst) if isinstance(x, tuple) else num_src
        g = as_graph(edge_index, edge_type, num_nodes=num_nodes, num_relations=self.num_relations, names=self.names)
        e, pairs = g.edges, g.dst_rel
        if self.aggr == "max" and x_src is not None and x_src.is_floating_point():
            out = pairs.sum(self._transform(e.max(e.src(x_src), to="dst_rel"), pairs.rel(self._relation_weights())))
        else:
            message = self._messages(e, x_src)
            if self.aggr == "mean":
                out = pairs.sum(e.mean(message, to="dst_rel"))
            elif self.aggr == "max":
                out = pairs.sum(e.max(message, to="dst_rel"))
            else:
                out = e.sum(message)
        if self.root is not None:
            out = out + self._root(x_dst)
        return out if self.bias is None else out + self.bias

    def _messages(self, e: EdgeView, x: Tensor | None) -> Tensor:
        """``[E, out]``: each source's features, mapped by the edge's relation."""
        if x is not None and x.is_floating_point():
            return self._transform(e.src(x), e.rel(self._relation_weights()))
        if self.comp is None:
            raise ValueError(
                "RGCNConv needs node features: with x=None or integer ids give num_bases, or learn features with "
                "torch.nn.Embedding(num_nodes, in_channels)"
            )
        table = self.weight.transpose(0, 1)  # [in, bases, out]: of each id, a row of every basis
        table = table if x is None else table[x]
        return torch.einsum("ebo,eb->eo", e.src(table), e.rel(self.comp))

    def _relation_weights(self) -> Tensor:
        if self.comp is None:
            return self.weight
        return (self.comp @ self.weight.flatten(1)).view(self.num_relations, self.in_channels_l, self.out_channels)

    def _transform(self, rows: Tensor, weight: Tensor) -> Tensor:
        """``rows [n, in]`` times one weight each: ``[n, out]``."""
        if self.num_blocks is None:
            return linear(rows, weight)
        blocks = rows.view(rows.shape[0], self.num_blocks, self.in_channels_l // self.num_blocks)
        mapped = torch.einsum("nbi,nbij->nbj", blocks, weight)
        return mapped.reshape(rows.shape[0], self.out_channels)

    def _root(self, x: Tensor | None) -> Tensor:
        assert self.root is not None
        if x is None:
            return self.root
        return x @ self.root if x.is_floating_point() else self.root[x]

    def extra_repr(self) -> str:
        parts = [str(self.in_channels), str(self.out_channels), f"num_relations={self.num_relations}"]
        parts += [f"{k}={v}" for k, v in (("num_bases", self.num_bases), ("num_blocks", self.num_blocks)) if v]
        return ", ".join([*parts, f"aggr={self.aggr!r}"])
