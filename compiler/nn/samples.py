"""One of each layer, 64 features in and out, on a graph of two nodes: what ``columba inspect`` and ``explain`` can be pointed at.

    columba inspect columba.nn.samples:rgat --stats mag

A layer's kernels depend neither on the size of the graph nor on the number of its types, so a small graph serves for all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from columba.nn.hgt_conv import HGTConv
from columba.nn.rgat_conv import RGATConv
from columba.nn.rgcn_conv import RGCNConv
from columba.runtime.graphs.graph import Graph

Sample = tuple[nn.Module, Tensor, Graph]

LAYERS = ("rgcn", "rgat", "hgt")


def sample(layer: str, features: int = 64, heads: int = 1, dtype: torch.dtype = torch.float32) -> Sample:
    """A layer of the name, with what to call it with; the input requires a gradient.

    >>> model, x, graph = sample("rgat", features=8, heads=2)
    >>> model(x, graph).shape
    torch.Size([2, 8])
    """
    types = torch.tensor([0, 1])
    graph = Graph(torch.tensor([[0, 1], [1, 0]]), types, node_type=types)
    model: nn.Module
    match layer:
        case "rgcn":
            model = RGCNConv(features, features, 2)
        case "rgat":
            model = RGATConv(features, features // heads, 2, heads=heads)
        case "hgt":
            model = HGTConv(features, features, 2, 2, heads=heads)
        case _:
            raise ValueError(f"unknown layer {layer!r}; one of {', '.join(LAYERS)}")
    return model.to(dtype), torch.randn(2, features, dtype=dtype).requires_grad_(), graph


def rgcn() -> Sample:
    """A relational graph convolution."""
    return sample("rgcn")


def rgat() -> Sample:
    """Relational graph attention with one head."""
    return sample("rgat")


def rgat_4_heads() -> Sample:
    """Relational graph attention with four heads."""
    return sample("rgat", heads=4)


def hgt() -> Sample:
    """A heterogeneous graph transformer with one head."""
    return sample("hgt")


def hgt_4_heads() -> Sample:
    """A heterogeneous graph transformer with four heads."""
    return sample("hgt", heads=4)
