"""The layer that docs/architecture.md follows through the compiler."""

import torch
import torch.nn.functional as F

import columba


class Attention(torch.nn.Module):
    """Messages weighted by an attention score that both ends and the relation of an edge decide."""

    def __init__(self, size: int, num_relations: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(num_relations, size, size))
        self.att_src = torch.nn.Parameter(torch.randn(num_relations, size))
        self.att_dst = torch.nn.Parameter(torch.randn(num_relations, size))

    def forward(self, g: columba.Graph, h: torch.Tensor) -> torch.Tensor:
        e = g.edges
        message = columba.linear(e.src(h), e.rel(self.weight))
        target = columba.linear(e.dst(h), e.rel(self.weight))
        score = (message * e.rel(self.att_src)).sum(-1) + (target * e.rel(self.att_dst)).sum(-1)
        alpha = e.softmax(F.leaky_relu(score, 0.2))
        return e.sum(alpha.unsqueeze(-1) * message)


def example() -> tuple[Attention, columba.Graph, torch.Tensor]:
    """The layer and its arguments; also for ``columba explain docs/layer.py:example``."""
    edge_index = torch.tensor([[0, 1, 2, 0], [2, 2, 0, 1]])
    graph = columba.Graph(edge_index, torch.tensor([0, 1, 1, 0]), num_nodes=4)
    return Attention(4, graph.num_relations), graph, torch.randn(4, 4, requires_grad=True)
