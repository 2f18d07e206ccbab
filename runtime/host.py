"""Host calls: small programs on weights, which PyTorch runs between the kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from columba.ir.indices import IndexArray, Lookup, Order, Segments
from columba.ir.program.program import Program
from columba.ir.spaces import Space
from columba.runtime import autocast
from columba.runtime.reference import evaluate


class CountsOnly:
    """As much of a graph as a program on weights can ask for: row counts, and the map of everything to one row."""

    def __init__(self, counts: Sequence[int], device: torch.device) -> None:
        self.counts = dict(zip(Space, counts, strict=True))
        self.device = device
        self.index_dtype = torch.int64

    def count(self, space: Space) -> int:
        return self.counts[space]

    def index(self, array: IndexArray) -> Tensor:
        if array.map.coarse is not Space.ONE:
            raise TypeError(f"host programs know no {array}; only weights are theirs")
        rows = self.counts[array.map.fine]
        match array:
            case Lookup():
                return torch.zeros(rows, dtype=torch.int64, device=self.device)
            case Order():
                return torch.arange(rows, device=self.device)
            case Segments():
                return torch.arange(2, device=self.device) * rows  # made on the device: nothing is copied to it
            case _:
                raise TypeError(f"host programs know no {array}")


def run_host_program(program: Program, inputs: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """The results of a program on weights, contiguous and without gradient."""
    device = inputs[0].device if inputs else torch.device("cpu")
    with torch.no_grad(), autocast.disabled():
        return [r.contiguous() for r in evaluate(program, inputs, CountsOnly(counts, device))]
