"""A relational attention layer in plain PyTorch, compiled by a decorator, and trained."""

import torch
import torch.nn.functional as F

import columba
from columba.datasets import Statistics, synthetic


class Attention(torch.nn.Module):
    """Edge scores from both ends, softmax over each node's incoming edges, weighted messages."""

    def __init__(self, size: int, num_relations: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(num_relations, size, size) / size**0.5)
        self.att = torch.nn.Parameter(torch.randn(num_relations, 2 * size) / size**0.5)

    @columba.compile
    def forward(self, g: columba.Graph, h: torch.Tensor) -> torch.Tensor:
        e = g.edges
        message = columba.linear(e.src(h), e.rel(self.weight))  # [E, size]: one matrix a relation
        target = columba.linear(e.dst(h), e.rel(self.weight))
        score = (torch.cat([message, target], -1) * e.rel(self.att)).sum(-1)
        alpha = e.softmax(F.leaky_relu(score, 0.2))
        return h + e.sum(alpha.unsqueeze(-1) * message)


def main() -> None:
    torch.manual_seed(0)
    graph = synthetic(Statistics(nodes=2000, edges=20000, relations=30, node_types=1)).graph
    h, target = torch.randn(2000, 32), torch.randn(2000, 32)
    model = Attention(32, graph.num_relations)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(50):
        optimizer.zero_grad()
        loss = F.mse_loss(model(graph, h), target)
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == 49:
            print(f"step {step:2d}  loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
