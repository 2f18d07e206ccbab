"""Relational GNN layers, each a few lines of the language, ready to be compiled.

Called as they are they run eagerly; ``columba.compile(layer)`` compiles them.
"""

from columba.nn.hgt_conv import HGTConv
from columba.nn.rgat_conv import RGATConv
from columba.nn.rgcn_conv import RGCNConv
from columba.nn.typed_module import TypedModule

__all__ = ["HGTConv", "RGATConv", "RGCNConv", "TypedModule"]
