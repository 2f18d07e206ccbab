"""Python's own standard library as a relational graph: real data on every machine."""

from __future__ import annotations

import ast
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from columba.datasets.dataset import EntityClassification
from columba.runtime.graphs.convert import add_inverse_relations
from columba.runtime.graphs.graph import Graph

PACKAGES = ("json", "logging", "argparse", "dataclasses", "asyncio")

NODE_TYPES = ("syntax", "name", "module")
HIDDEN = "(hidden)"


def pycode(packages: Sequence[str] = PACKAGES, *, relations: Sequence[str] | None = None) -> EntityClassification:
    """Syntax trees of standard-library packages; the task is the class of syntax nodes (``Call``, ``If``, ...) that are hidden.

    Nodes are syntax nodes, identifiers (one node a name, shared by all modules) and modules. There is a relation for each field of the
    syntax tree (``body``, ``args``, ...), one for each field that holds an identifier, one from a statement or expression to its next
    sibling, one from a module to its statements; and the inverse of each. ``features`` is the syntax class of visible nodes; a tenth of
    the syntax nodes are hidden for testing and another tenth for training: their feature says only that. The same Python version gives
    the same graph.

    Args:
        packages: names of modules or packages of the standard library (their tests are left out).
        relations: names by id, as the graph of other packages has them (without inverses); None: in the order in which they occur.

    Raises:
        ValueError: there is no such package, or it has no source.
    """
    forest = _Forest()
    for package in packages:
        for path, name in _modules(package):
            forest.add_module(name, ast.parse(path.read_text(encoding="utf-8")))
    return forest.dataset(relations)


def _modules(package: str) -> Iterator[tuple[Path, str]]:
    """The source files of a package of the standard library, with their dotted names."""
    library = Path(sysconfig.get_paths()["stdlib"])
    single = library / f"{package}.py"
    folder = library / package
    if single.is_file():
        yield single, package
    elif (folder / "__init__.py").is_file():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(library).with_suffix("").parts
            if not {"test", "tests", "__pycache__"} & set(parts):
                yield path, ".".join(parts)
    else:
        raise ValueError(f"the standard library in {library} has no Python package {package!r}")


@dataclass
class _Forest:
    """Nodes and edges collected from syntax trees."""

    kinds: list[int] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    relations: dict[str, int] = field(default_factory=dict)
    edges: list[tuple[int, int, int]] = field(default_factory=list)

    def add_module(self, name: str, tree: ast.Module) -> None:
        module = self._node("module", "module", name)
        self._children(module, tree, name)

    def _node(self, kind: str, cls: str, key: str) -> int:
        self.kinds.append(NODE_TYPES.index(kind))
        self.classes.append(cls)
        self.keys.append(key)
        return len(self.kinds) - 1

    def _edge(self, relation: str, source: int, target: int) -> None:
        self.edges.append((source, self.relations.setdefault(relation, len(self.relations)), target))

    def _children(self, parent: int, tree: ast.AST, key: str) -> None:
        """Adds everything below a node, without recursion: expressions may be nested deeply."""
        pending = [(parent, tree, key)]
        while pending:
            parent, tree, key = pending.pop()
            for name, value in ast.iter_fields(tree):
                previous: int | None = None
                for n, item in enumerate(value if isinstance(value, list) else [value]):
                    if isinstance(item, ast.expr_context):
                        continue
                    if isinstance(item, ast.AST):
                        child_key = f"{key}/{name}{n}"
                        child = self._node("syntax", type(item).__name__, child_key)
                        self._edge(name, parent, child)
                        if previous is not None:
                            self._edge("next sibling", previous, child)
                        previous = child
                        pending.append((child, item, child_key))
                    elif isinstance(item, str) and not isinstance(tree, ast.Constant):
                        self._edge(f"name: {name}", parent, self._name(item))

    def _name(self, name: str) -> int:
        if name not in self.names:
            self.names[name] = self._node("name", "name", name)
        return self.names[name]

    def dataset(self, relations: Sequence[str] | None) -> EntityClassification:
        table = torch.tensor(self.edges, dtype=torch.long).reshape(-1, 3)
        graph = Graph(
            torch.stack([table[:, 0], table[:, 2]]),
            table[:, 1],
            num_nodes=len(self.kinds),
            num_relations=len(self.relations),
            node_type=torch.tensor(self.kinds, dtype=torch.long),
            num_node_types=len(NODE_TYPES),
            relation_names=list(self.relations),
            node_type_names=NODE_TYPES,
        ).with_names(relations=relations)
        is_syntax = torch.tensor(self.kinds) == NODE_TYPES.index("syntax")
        tenth = torch.tensor([zlib.crc32(key.encode()) % 10 for key in self.keys])
        test, train = ((is_syntax & (tenth == n)).nonzero().flatten() for n in (0, 1))
        class_names = sorted({c for c, kind in zip(self.classes, self.kinds, strict=True) if kind == 0})
        vocabulary = {name: n for n, name in enumerate([*class_names, "name", "module", HIDDEN])}
        features = torch.tensor([vocabulary[c] for c in self.classes])
        labels = torch.where(is_syntax, features, -1)
        features[test] = features[train] = vocabulary[HIDDEN]
        return EntityClassification(
            "pycode",
            add_inverse_relations(graph),
            labels,
            train,
            test,
            class_names=tuple(class_names),
            features=features,
            num_features=len(vocabulary),
        )
