"""What a dataset holds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from columba.runtime.graphs.graph import Graph


@dataclass(frozen=True)
class Dataset:
    """A graph with a name."""

    name: str
    graph: Graph


@dataclass(frozen=True)
class EntityClassification(Dataset):
    """Nodes to classify.

    Attributes:
        labels: ``[N]`` class of each node, -1 where it has none.
        train, test: ids of the nodes to train on and to test on; they have no node in common.
        class_names: one name a class.
        features: ``[N]`` a small integer that describes each node (embed it), or None if nodes are known by their id alone.
        num_features: how many different such integers there are.
    """

    labels: Tensor
    train: Tensor
    test: Tensor
    class_names: tuple[str, ...]
    features: Tensor | None = None
    num_features: int = 0

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def majority_accuracy(self) -> float:
        """Test accuracy of always answering the class that is most frequent among the training nodes."""
        majority = self.labels[self.train].bincount(minlength=self.num_classes).argmax()
        return float((self.labels[self.test] == majority).double().mean())
