"""``HEATConv``: attention whose scores the types and features of edges decide, beside both ends, which are mapped by their types.

What PyG computes of the concatenation of all of these is the sum of what is computed of each: only edge features are mapped edge by edge.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from columba.frontend.pyg.cases import (
    NotLowered,
    check_edges,
    check_floating,
    check_messages,
    check_plain,
    reduction,
)
from columba.runtime.eager.views import linear
from columba.runtime.graphs.from_tensors import as_graph


def heat_conv(conv: Any, x: Any, edge_index: Any, node_type: Any, edge_type: Any, edge_attr: Any = None) -> Tensor:
    check_messages(conv)
    kind = reduction(conv)
    check_edges(edge_index, edge_type, node_type)
    check_floating(x=x, edge_attr=edge_attr)
    check_plain(conv, hetero_lin="HeteroLinear", edge_type_emb="Embedding", att="Linear", lin="Linear")
    if conv.edge_type_emb.max_norm is not None:
        raise NotLowered("its embedding renormalizes")
    num_types, num_relations = conv.hetero_lin.num_types, conv.edge_type_emb.num_embeddings
    g = as_graph(
        edge_index,
        edge_type,
        node_type,
        num_nodes=x.shape[0],
        num_relations=num_relations,
        num_node_types=num_types,
    )
    e, n, out = g.edges, g.nodes, conv.out_channels
    h = linear(x, n.type(conv.hetero_lin.weight))
    if conv.hetero_lin.bias is not None:
        h = h + n.type(conv.hetero_lin.bias)
    of_types = F.leaky_relu(conv.edge_type_emb.weight, conv.negative_slope)
    of_edges = F.leaky_relu(conv.edge_attr_emb(e(edge_attr)), conv.negative_slope)
    sizes = [out, out, of_types.shape[1], of_edges.shape[1]]
    to_dst, to_src, to_type, to_attr = (part.t() for part in conv.att.weight.split(sizes, dim=1))
    score = e.dst(h @ to_dst) + e.src(h @ to_src) + e.rel(of_types @ to_type) + of_edges @ to_attr  # [E, heads]
    alpha = e.softmax(F.leaky_relu(score, conv.negative_slope))
    alpha = F.dropout(alpha, p=conv.dropout, training=conv.training)
    of_src, of_attr = (part.t() for part in conv.lin.weight.split(sizes[1::2], dim=1))
    message = e.src(h @ of_src) + of_edges @ of_attr
    if conv.lin.bias is not None:
        message = message + conv.lin.bias
    found = getattr(e, kind)(alpha.unsqueeze(-1) * message.unsqueeze(-2))  # [N, heads, out]
    if conv.concat:
        found = found + h.unsqueeze(1) if conv.root_weight else found
        return found.flatten(1)  # type: ignore[no-any-return]
    found = found.mean(1)
    return found + h if conv.root_weight else found
