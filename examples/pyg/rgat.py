"""PyG's ``rgat.py``: two layers of relational attention. ``python examples/pyg/rgat.py``; ``--eager`` leaves Columba away.

``--data FOLDER`` with the files of AIFB trains on that, as PyG's example does.
"""

import planted
import torch
import torch.nn.functional as F
import training
from torch_geometric.nn import RGATConv

import columba

args = training.options(50, __doc__)
data, num_relations, num_classes = planted.entities(args.data)
data.x = torch.randn(data.num_nodes, 16)


class RGAT(torch.nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels, num_relations):
        super().__init__()
        self.conv1 = RGATConv(in_channels, hidden_channels, num_relations)
        self.conv2 = RGATConv(hidden_channels, hidden_channels, num_relations)
        self.lin = torch.nn.Linear(hidden_channels, out_channels)

    def forward(self, x, edge_index, edge_type):
        x = self.conv1(x, edge_index, edge_type).relu()
        x = self.conv2(x, edge_index, edge_type).relu()
        x = self.lin(x)
        return F.log_softmax(x, dim=-1)


model = RGAT(16, 16, num_classes, num_relations)
if not args.eager:
    model = columba.compile(model)

training.fit(
    model,
    lambda: model(data.x, data.edge_index, data.edge_type),
    torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.0005),
    (data.train_idx, data.train_y),
    (data.test_idx, data.test_y),
    args.epochs,
)
