"""PyG's ``hetero/hetero_conv_dblp.py``: a layer for each edge type. ``python examples/pyg/hetero_conv.py [--eager]``."""

import planted
import torch
import torch.nn.functional as F
import training
from torch_geometric.nn import HeteroConv, Linear, SAGEConv

import columba

args = training.options(100, __doc__)
data = planted.dblp()


class HeteroGNN(torch.nn.Module):
    def __init__(self, metadata, hidden_channels, out_channels, num_layers):
        super().__init__()

        self.convs = torch.nn.ModuleList()
        for _ in range(num_layers):
            conv = HeteroConv({edge_type: SAGEConv((-1, -1), hidden_channels) for edge_type in metadata[1]})
            self.convs.append(conv)

        self.lin = Linear(hidden_channels, out_channels)

    def forward(self, x_dict, edge_index_dict):
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
            x_dict = {key: F.leaky_relu(x) for key, x in x_dict.items()}
        return self.lin(x_dict["author"])


model = HeteroGNN(data.metadata(), hidden_channels=64, out_channels=4, num_layers=2)
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
