"""What a graph can be made of, and how its ids are renamed: methods of :class:`columba.Graph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from columba.runtime.graphs import convert
from columba.runtime.graphs.convert import G
from columba.runtime.structure import NamedGraph


class Conversions:
    """From other libraries' graphs, to other names, and from node tensors to a tensor a type. A base of :class:`columba.Graph`."""

    @classmethod
    def from_pyg(
        cls: type[G],
        data: Any,
        *,
        relations: Sequence[Any] | None = None,
        node_types: Sequence[Any] | None = None,
        num_relations: int | None = None,
        num_node_types: int | None = None,
    ) -> G:
        """From PyG's ``Data`` (with ``edge_type`` and ``node_type``, if it has them) or ``HeteroData``.

        Node types of ``HeteroData`` get contiguous ranges of ids, in the order of ``node_types``: ``graph.node_slices[name]``. A type that
        only edge types name has as many nodes as their ids need. Edges are those of ``edge_index``, or of ``adj_t``.

        Args:
            relations, node_types: names by id, as a trained layer knows them. Edge types of ``HeteroData`` are triples (source, relation,
                destination). One that the data does not have keeps its id. None: those of the data, in its order, which depends on how it
                was filled.
            num_relations, num_node_types: of ``Data``, which has ids instead of names; None: one more than the largest.

        Raises:
            ValueError: the data has a relation or a node type that is not listed, an edge type without edges, an end that is no node.

        >>> import torch
        >>> from columba import Graph
        >>> from torch_geometric.data import HeteroData
        >>> data = HeteroData()
        >>> data["paper"].num_nodes = 2
        >>> data["paper", "cites", "paper"].edge_index = torch.tensor([[0], [1]])
        >>> relations = [("author", "writes", "paper"), ("paper", "cites", "paper")]
        >>> Graph.from_pyg(data, relations=relations).edge_type
        tensor([1])
        """
        return convert.from_pyg(
            cls,
            data,
            relations=relations,
            node_types=node_types,
            num_relations=num_relations,
            num_node_types=num_node_types,
        )

    @classmethod
    def from_networkx(
        cls: type[G],
        graph: Any,
        relation: str = "relation",
        node_type: str | None = None,
        *,
        relations: Sequence[Any] | None = None,
        node_types: Sequence[Any] | None = None,
    ) -> G:
        """From a directed networkx graph. Nodes keep their order, also those without edges.

        Args:
            relation: the edge attribute that names each edge's relation; ``"key"`` of a multigraph: the edge's key.
            node_type: the node attribute that names each node's type; None: nodes have no types.
            relations, node_types: names by id, as a trained layer knows them; one that no edge (no node) has keeps its id. None: those that
                occur, sorted, so that a graph in which one is missing gives the others other ids.

        Raises:
            ValueError: the graph is undirected; an edge or a node has no name, one that is not listed, or none that can be told apart from
                others (NaN, 1 and True).

        >>> import networkx
        >>> from columba import Graph
        >>> graph = networkx.MultiDiGraph([(0, 1, "likes")])
        >>> Graph.from_networkx(graph, "key", relations=["hates", "likes"]).edge_type
        tensor([1])
        """
        return convert.from_networkx(cls, graph, relation, node_type, relations=relations, node_types=node_types)

    @classmethod
    def from_dgl(
        cls: type[G],
        graph: Any,
        *,
        relations: Sequence[Any] | None = None,
        node_types: Sequence[Any] | None = None,
        num_relations: int | None = None,
        num_node_types: int | None = None,
    ) -> G:
        """From a DGL graph: heterogeneous, or homogeneous with ``dgl.ETYPE`` and ``dgl.NTYPE`` data.

        Arguments as of :meth:`from_pyg`; names of relations are canonical edge types.
        """
        return convert.from_dgl(
            cls,
            graph,
            relations=relations,
            node_types=node_types,
            num_relations=num_relations,
            num_node_types=num_node_types,
        )

    @classmethod
    def from_triples(
        cls: type[G],
        triples: Any,
        *,
        num_nodes: int | None = None,
        num_relations: int | None = None,
        relations: Sequence[Any] | None = None,
        add_inverse: bool = False,
    ) -> G:
        """From ``[T, 3]`` integers: head, relation, tail.

        Args:
            num_nodes, num_relations: of the whole data set. None: one more than the largest id *of these triples*, which differs between
                training, validation and test.
            relations: names by id, as many as there are relations.
            add_inverse: whether each edge gets one from tail to head, of relation ``r + num_relations``.

        >>> from columba import Graph
        >>> Graph.from_triples([[0, 1, 2]], num_nodes=5, num_relations=4, add_inverse=True).edge_type
        tensor([1, 5])
        """
        return convert.from_triples(
            cls, triples, num_nodes=num_nodes, num_relations=num_relations, relations=relations, add_inverse=add_inverse
        )

    def with_names(self: G, *, relations: Sequence[Any] | None = None, node_types: Sequence[Any] | None = None) -> G:
        """The same nodes and edges, in the same order, with ids that follow lists of names.

        Args:
            relations, node_types: names by id; one that the graph does not have gets an id without edges (nodes). A graph without names
                keeps its ids, and gets these names for them. None: as they are.

        Raises:
            ValueError: the graph has a name that is not listed, or, without names, an id that has none.

        >>> import torch
        >>> from columba import Graph
        >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]), relation_names=["writes", "cites"])
        >>> graph.with_names(relations=["cites", "reads", "writes"]).edge_type
        tensor([2, 0])
        """
        return convert.with_names(self, relations, node_types)

    def split_nodes(self: NamedGraph, x: Tensor) -> dict[Any, Tensor]:
        """The rows of a node tensor by node type; for graphs whose types are ranges of ids (``node_slices``)."""
        return convert.split_nodes(self, x)

    def cat_nodes(self: NamedGraph, parts: Mapping[Any, Tensor]) -> Tensor:
        """The opposite of :meth:`split_nodes`: rows in the order of the graph's nodes, whatever the order of ``parts``.

        Raises:
            ValueError: a type is unknown to the graph, has another number of rows than it has nodes, or is missing and has nodes.
        """
        return convert.cat_nodes(self, parts)
