"""PyG's ``gat.py``: two layers of attention. ``python examples/pyg/gat.py``; ``--eager`` leaves Columba away."""

import planted
import torch
import torch.nn.functional as F
import training
from torch_geometric.nn import GATConv
from torch_geometric.transforms import NormalizeFeatures

import columba

args = training.options(200, __doc__)
data = NormalizeFeatures()(planted.cora())


class GAT(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels, heads):
        super().__init__()
        self.conv1 = GATConv(in_channels, hidden_channels, heads, dropout=0.6)
        self.conv2 = GATConv(hidden_channels * heads, out_channels, heads=1, concat=False, dropout=0.6)

    def forward(self, x, edge_index):
        x = F.dropout(x, p=0.6, training=self.training)
        x = F.elu(self.conv1(x, edge_index))
        x = F.dropout(x, p=0.6, training=self.training)
        return self.conv2(x, edge_index)


model = GAT(data.num_features, 8, int(data.y.max()) + 1, heads=8)
if not args.eager:
    model = columba.compile(model)

training.fit(
    model,
    lambda: model(data.x, data.edge_index),
    torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=5e-4),
    (data.train_mask, data.y[data.train_mask]),
    (data.test_mask, data.y[data.test_mask]),
    args.epochs,
)
