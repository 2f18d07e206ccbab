"""Relational graphs to learn on: real ones, and synthetic ones with the statistics of published datasets.

:func:`pycode` is made of Python's own standard library and needs no download.
"""

from columba.datasets.dataset import Dataset, EntityClassification
from columba.datasets.mag import mag10
from columba.datasets.pycode import pycode
from columba.datasets.rdf import aifb, mutag, rdf
from columba.datasets.statistics import GraphStatistics, published, statistics
from columba.datasets.synthetic import PUBLISHED, Statistics, synthetic
from columba.datasets.triples import triples

__all__ = [
    "PUBLISHED",
    "Dataset",
    "EntityClassification",
    "GraphStatistics",
    "Statistics",
    "aifb",
    "mag10",
    "mutag",
    "published",
    "pycode",
    "rdf",
    "statistics",
    "synthetic",
    "triples",
]
