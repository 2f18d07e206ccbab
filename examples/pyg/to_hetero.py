"""PyG's ``hetero/to_hetero_mag.py``: GraphSAGE made heterogeneous. ``python examples/pyg/to_hetero.py``; ``--eager`` leaves Columba away.

On the whole graph, since PyG's sampler is compiled. ``--data FOLDER`` takes the edges of a tenth of ogbn-mag.
"""

import planted
import torch
import training
from torch.nn import ReLU
from torch_geometric.nn import Linear, SAGEConv, Sequential, to_hetero
from torch_geometric.transforms import ToUndirected

import columba

args = training.options(30, __doc__)
data = planted.mag(args.data)
if args.data is None:
    data = ToUndirected(merge=True)(data)

model = Sequential(
    "x, edge_index",
    [
        (SAGEConv((-1, -1), 64), "x, edge_index -> x"),
        ReLU(inplace=True),
        (SAGEConv((-1, -1), 64), "x, edge_index -> x"),
        ReLU(inplace=True),
        (Linear(-1, int(data["paper"].y.max()) + 1), "x -> x"),
    ],
)
model = to_hetero(model, data.metadata(), aggr="sum")
if not args.eager:
    model = columba.compile(model)

with torch.no_grad():  # Initialize lazy modules.
    model(data.x_dict, data.edge_index_dict)

paper = data["paper"]
training.fit(
    model,
    lambda: model(data.x_dict, data.edge_index_dict)["paper"],
    torch.optim.Adam(model.parameters(), lr=0.01),
    (paper.train_mask, paper.y[paper.train_mask]),
    (paper.test_mask, paper.y[paper.test_mask]),
    args.epochs,
)
