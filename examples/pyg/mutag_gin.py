"""PyG's ``mutag_gin.py``: GIN on batches of molecules. ``python examples/pyg/mutag_gin.py``; ``--eager`` leaves Columba away."""

import time

import planted
import torch
import torch.nn.functional as F
import training
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MLP, GINConv, global_add_pool

import columba

args = training.options(30, __doc__)
molecules = planted.molecules()
tenth = len(molecules) // 10
train_loader = DataLoader(molecules[tenth:], 64, shuffle=True)
test_loader = DataLoader(molecules[:tenth], 64)


class GIN(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels, num_layers):
        super().__init__()

        self.convs = torch.nn.ModuleList()
        for _ in range(num_layers):
            mlp = MLP([in_channels, hidden_channels, hidden_channels])
            self.convs.append(GINConv(nn=mlp, train_eps=False))
            in_channels = hidden_channels

        self.mlp = MLP([hidden_channels, hidden_channels, out_channels], norm=None, dropout=0.5)

    def forward(self, x, edge_index, batch):
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        x = global_add_pool(x, batch)
        return self.mlp(x)


model = GIN(7, 32, 2, num_layers=5)
if not args.eager:
    model = columba.compile(model)

optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
times = []
for epoch in range(1, args.epochs + 1):
    model.train()
    total = 0.0
    for batch in train_loader:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch.x, batch.edge_index, batch.batch), batch.y)
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
        total += loss.item() * batch.num_graphs
    if epoch == 1 or epoch % 10 == 0:
        print(f"epoch {epoch:3}: loss {total / len(train_loader.dataset):.4f}")

model.eval()
with torch.no_grad():
    correct = [(model(b.x, b.edge_index, b.batch).argmax(-1) == b.y).double() for b in test_loader]
training.finish(torch.cat(correct).mean().item(), times)
