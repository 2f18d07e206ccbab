"""PyG's ``rgcn.py``: two layers of R-GCN, nodes known by their ids. ``python examples/pyg/rgcn.py``; ``--eager`` leaves Columba away.

``--data FOLDER`` with the files of AIFB trains on that, as PyG's example does.
"""

import planted
import torch
import torch.nn.functional as F
import training
from torch_geometric.nn import FastRGCNConv

import columba

args = training.options(50, __doc__)
data, num_relations, num_classes = planted.entities(args.data)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = FastRGCNConv(data.num_nodes, 16, num_relations, num_bases=30)
        self.conv2 = FastRGCNConv(16, num_classes, num_relations, num_bases=30)

    def forward(self, edge_index, edge_type):
        x = F.relu(self.conv1(None, edge_index, edge_type))
        x = self.conv2(x, edge_index, edge_type)
        return F.log_softmax(x, dim=1)


model = Net()
if not args.eager:
    model = columba.compile(model)

training.fit(
    model,
    lambda: model(data.edge_index, data.edge_type),
    torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.0005),
    (data.train_idx, data.train_y),
    (data.test_idx, data.test_y),
    args.epochs,
)
