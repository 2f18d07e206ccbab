"""PyG's ``hetero/han_imdb.py``: attention over meta-paths. ``python examples/pyg/han.py``; ``--eager`` leaves Columba away."""

import planted
import torch
import training
from torch import nn
from torch_geometric.nn import HANConv

import columba

args = training.options(60, __doc__)
data = planted.imdb()
for middle in (
    "actor",
    "director",
):  # movies that share one: torch_geometric.transforms.AddMetaPaths, without torch-sparse
    there = torch.sparse_coo_tensor(
        data["movie", middle].edge_index,
        torch.ones(data["movie", middle].num_edges),
        (data["movie"].num_nodes, data[middle].num_nodes),
    )
    data["movie", f"by_{middle}", "movie"].edge_index = (there @ there.t()).coalesce().indices()
    del data["movie", "to", middle], data[middle, "to", "movie"], data[middle]


class HAN(nn.Module):
    def __init__(self, in_channels, out_channels, hidden_channels=128, heads=8):
        super().__init__()
        self.han_conv = HANConv(in_channels, hidden_channels, heads=heads, dropout=0.6, metadata=data.metadata())
        self.lin = nn.Linear(hidden_channels, out_channels)

    def forward(self, x_dict, edge_index_dict):
        out = self.han_conv(x_dict, edge_index_dict)
        return self.lin(out["movie"])


model = HAN(in_channels=-1, out_channels=3)
if not args.eager:
    model = columba.compile(model)

with torch.no_grad():  # Initialize lazy modules.
    out = model(data.x_dict, data.edge_index_dict)

movie = data["movie"]
training.fit(
    model,
    lambda: model(data.x_dict, data.edge_index_dict),
    torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=0.001),
    (movie.train_mask, movie.y[movie.train_mask]),
    (movie.test_mask, movie.y[movie.test_mask]),
    args.epochs,
)
