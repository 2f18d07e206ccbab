"""PyG's ``gcn.py``: two layers of GCN. ``python examples/pyg/gcn.py``; ``--eager`` leaves Columba away."""

import planted
import torch
import torch.nn.functional as F
import training
from torch_geometric.nn import GCNConv
from torch_geometric.transforms import NormalizeFeatures

import columba

args = training.options(200, __doc__)
data = NormalizeFeatures()(planted.cora())


class GCN(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels):
        super().__init__()
        self.conv1 = GCNConv(in_channels, hidden_channels)
        self.conv2 = GCNConv(hidden_channels, out_channels)

    def forward(self, x, edge_index, edge_weight=None):
        x = F.dropout(x, p=0.5, training=self.training)
        x = self.conv1(x, edge_index, edge_weight).relu()
        x = F.dropout(x, p=0.5, training=self.training)
        return self.conv2(x, edge_index, edge_weight)


model = GCN(data.num_features, 16, int(data.y.max()) + 1)
if not args.eager:
    model = columba.compile(model)

optimizer = torch.optim.Adam(
    [
        {"params": model.conv1.parameters(), "weight_decay": 5e-4},
        {"params": model.conv2.parameters(), "weight_decay": 0},
    ],
    lr=0.01,
)
training.fit(
    model,
    lambda: model(data.x, data.edge_index, data.edge_attr),
    optimizer,
    (data.train_mask, data.y[data.train_mask]),
    (data.test_mask, data.y[data.test_mask]),
    args.epochs,
)
