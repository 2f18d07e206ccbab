"""What the processes of distributed training do: started by ``torch.multiprocessing`` from :mod:`tests.tools.distributed_cases`."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from compiled import randomized
from torch import Tensor, nn

import columba

RANKS = 2
SIZE, RELATIONS = 2, 3
"""Features, and relations: the last one occurs on the second rank alone."""


def part(rank: int) -> tuple[columba.Graph, Tensor]:
    """The graph of a rank, and its features."""
    edges = [torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([[3, 1, 0, 2], [0, 0, 2, 1]])][rank]
    types = [torch.tensor([0, 1, 1]), torch.tensor([2, 0, 2, 1])][rank]
    graph = columba.Graph(edges, types, num_nodes=4, num_relations=RELATIONS)
    return graph, torch.linspace(-1 - rank, 1, 4 * SIZE, dtype=torch.float64).view(4, SIZE)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = columba.nn.RGCNConv(SIZE, SIZE, RELATIONS)
        self.head = nn.Linear(SIZE, SIZE)

    def forward(self, g: columba.Graph, h: Tensor) -> Tensor:
        return self.head(self.conv(h, g).relu())


def new_model() -> nn.Module:
    return randomized(Model(), torch.float64)


def loss_of(module: Any, rank: int) -> Tensor:
    return module(*part(rank)).square().sum()


def expected() -> dict[str, Tensor]:
    """The gradients of one process on the union, divided by the number of ranks as DDP does."""
    module = new_model()
    (sum(loss_of(module, rank) for rank in range(RANKS)) / RANKS).backward()  # type: ignore[attr-defined]
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def run(folder: Path) -> None:
    """Both ranks' processes run all jobs; each leaves what went wrong in a file."""
    torch.multiprocessing.spawn(_work, (folder, dict(os.environ)), nprocs=RANKS)  # type: ignore[no-untyped-call]


def _work(rank: int, folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    patience = timedelta(seconds=100)  # where the other one has failed
    dist.init_process_group("gloo", f"file://{folder / 'meeting'}", patience, rank=rank, world_size=RANKS)
    wanted = expected()
    for job in (data_parallel, fully_sharded):
        try:
            job(rank, wanted)
            error = ""
        except Exception:
            error = traceback.format_exc()
        (folder / "results" / f"{job.__name__}{rank}").write_text(error, encoding="utf-8")
    dist.destroy_process_group()


def check(module: nn.Module, wanted: dict[str, Tensor], full: Callable[[Tensor], Tensor] = lambda t: t) -> None:
    found = {name.removeprefix("module."): p.grad for name, p in module.named_parameters()}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        assert gradient is not None, name
        torch.testing.assert_close(full(gradient), wanted[name], rtol=1e-9, atol=1e-9)


def data_parallel(rank: int, wanted: dict[str, Tensor]) -> None:
    from torch.nn.parallel import DistributedDataParallel

    for compiles_first in (True, False):
        module = new_model()
        if compiles_first:
            parallel: Any = DistributedDataParallel(columba.compile(module))
        else:
            parallel = columba.compile(DistributedDataParallel(module))
        for _ in range(3):
            parallel.zero_grad()
            loss_of(parallel, rank).backward()
            check(parallel, wanted)
        with parallel.no_sync():
            loss_of(parallel, rank).backward()


def fully_sharded(rank: int, wanted: dict[str, Tensor]) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    for compiles_first in (True, False):
        module = new_model()
        if compiles_first:
            module = columba.compile(module)
        fully_shard(module.conv)
        fully_shard(module)
        if not compiles_first:
            module = columba.compile(module)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(module, rank).backward()
            assert all(isinstance(p, DTensor) for p in module.parameters())
            check(module, wanted, lambda t: t.full_tensor())
            optimizer.step()
