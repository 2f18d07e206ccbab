"""PyG's ``hetero/hgt_dblp.py``: a graph transformer. ``python examples/pyg/hgt.py``; ``--eager`` leaves Columba away."""

import planted
import torch
import training
from torch_geometric.nn import HGTConv, Linear

import columba

args = training.options(100, __doc__)
data = planted.dblp()


class HGT(torch.nn.Module):
    def __init__(self, hidden_channels, out_channels, num_heads, num_layers):
        super().__init__()

        self.lin_dict = torch.nn.ModuleDict()
        for node_type in data.node_types:
            self.lin_dict[node_type] = Linear(-1, hidden_channels)

        self.convs = torch.nn.ModuleList()
        for _ in range(num_layers):
            conv = HGTConv(hidden_channels, hidden_channels, data.metadata(), num_heads)
            self.convs.append(conv)

        self.lin = Linear(hidden_channels, out_channels)

    def forward(self, x_dict, edge_index_dict):
        x_dict = {node_type: self.lin_dict[node_type](x).relu_() for node_type, x in x_dict.items()}

        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)

        return self.lin(x_dict["author"])


model = HGT(hidden_channels=64, out_channels=4, num_heads=2, num_layers=1)
if not args.eager:
    model = columba.compile(model)

with torch.no_grad():  # Initialize lazy modules.
    out = model(data.x_dict, data.edge_index_dict)

author = data["author"]
training.fit(
    model,
    lambda: model(data.x_dict, data.edge_index_dict),
    torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=0.001),
    (author.train_mask, author.y[author.train_mask]),
    (author.test_mask, author.y[author.test_mask]),
    args.epochs,
)
