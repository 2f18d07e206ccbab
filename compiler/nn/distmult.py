"""Scores of triples from embeddings of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from columba.nn.init import glorot
from columba.nn.typed_module import TypedModule, named_count
from columba.runtime.graphs.from_tensors import as_graph
from columba.runtime.graphs.graph import Graph


class DistMult(TypedModule):
    r"""The decoder of Yang et al., "Embedding Entities and Relations for Learning and Inference in Knowledge Bases" (2015), equation 3, as
    R-GCN uses it for link prediction (Schlichtkrull et al. 2018, equation 6). A triple (head j, relation r, tail i) has the score

    .. math::
        s_{jri} = \sum_k x_{jk}\, w_{rk}\, x_{ik}

    The triples are the edges of a graph over the same nodes as the one that the embeddings come from: positive ones, or samples of wrong
    ones. For a dot product, or a bilinear form, write that line: ``(e.src(x) * e.dst(y)).sum(-1)``,
    ``(columba.linear(e.src(x), e.rel(w)) * e.dst(y)).sum(-1)``.

    Args:
        channels: features of a node.
        num_relations: the number R of relations; None: as many as ``relations`` lists.
        relations: the names of relations, by id. A graph that numbers them in another way is refused.

    Shapes:
        ``weight [R, channels]``.

    >>> triples = torch.tensor([[0, 1, 2], [2, 0, 0]])  # heads, tails
    >>> DistMult(4, num_relations=2)(torch.randn(3, 4), triples, torch.tensor([0, 1, 1])).shape
    torch.Size([3])
    """

    def __init__(
        self, channels: int, num_relations: int | None = None, *, relations: Sequence[Any] | None = None
    ) -> None:
        super().__init__(relations=relations)
        self.channels = channels
        self.num_relations = named_count("relations", num_relations, relations)
        self.weight = nn.Parameter(torch.empty(self.num_relations, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights."""
        glorot(self.weight)

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], edge_index: Graph | Tensor, edge_type: Tensor | None = None
    ) -> Tensor:
        """The score of every triple: ``[E]``.

        Args:
            x: ``[N, channels]``, or a pair of such for (heads, tails).
            edge_index: the triples as a graph, or ``[2, E]`` with heads in row 0, tails in row 1.
            edge_type: ``[E]``, if ``edge_index`` is a tensor.
        """
        head, tail = x if isinstance(x, tuple) else (x, x)
        num_nodes = (head.shape[0], tail.shape[0]) if isinstance(x, tuple) else head.shape[0]
        g = as_graph(edge_index, edge_type, num_nodes=num_nodes, num_relations=self.num_relations, names=self.names)
        e = g.edges
        return (e.src(head) * e.rel(self.weight) * e.dst(tail)).sum(-1)

    def extra_repr(self) -> str:
        return f"{self.channels}, num_relations={self.num_relations}"
