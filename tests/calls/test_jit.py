"""``torch.jit.trace`` of compiled modules: refused, with what to do instead, and nothing is left behind."""

from __future__ import annotations

import pytest
import torch

import columba
from columba.nn import RGCNConv


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traces_of_torchscript_are_refused() -> None:
    graph = columba.Graph(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1]))
    layer = RGCNConv(3, 3, 2)
    compiled, x = columba.compile(layer, backend="torch"), torch.ones(2, 3)
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"torch\.jit\.trace cannot record; trace the module that it was made of"
        ):
            torch.jit.trace(lambda h: compiled(h, graph), (x,), check_trace=False)
        assert not torch.jit.is_tracing()
        torch.testing.assert_close(compiled(x, graph), layer(x, graph))
