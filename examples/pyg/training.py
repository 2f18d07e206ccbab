"""What the examples share: options, and a loop that trains and tells the accuracy."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer


def options(epochs: int, about: str | None) -> argparse.Namespace:
    """Of every example: ``eager``, ``epochs``, ``data``."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--eager", action="store_true", help="train PyG's layers as they are, without Columba")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--data", type=Path, help="a folder with the real data set, where the example knows one")
    parser.add_argument("--seed", type=int, default=0)
    found = parser.parse_args()
    torch.manual_seed(found.seed)
    return found


def fit(
    model: nn.Module,
    logits: Callable[[], Tensor],
    optimizer: Optimizer,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    epochs: int,
) -> None:
    """Trains on the whole graph, and prints the accuracy at the end.

    Args:
        logits: calls the model.
        train, test: the rows that count, as indices or a mask, and their classes.
    """
    times = []
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(logits()[train[0]], train[1])
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
        if epoch == 1 or epoch == epochs or epoch % 10 == 0:
            print(f"epoch {epoch:3}: loss {loss.item():.4f}")
    finish(accuracy(model, logits, *test), times)


@torch.no_grad()
def accuracy(model: nn.Module, logits: Callable[[], Tensor], rows: Tensor, y: Tensor) -> float:
    model.eval()
    return (logits()[rows].argmax(-1) == y).double().mean().item()


def finish(reached: float, times: list[float]) -> None:
    print(f"{1e3 * statistics.median(times):.1f} ms a step (median)")
    print(f"test accuracy: {reached:.4f}")
