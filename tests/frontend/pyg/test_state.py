"""What people do with a model of PyG's layers between calls: the compiled one goes on as the uncompiled one does."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GraphNorm, HGTConv, MeanSubtractionNorm, RGATConv, SAGEConv
from torch_geometric.nn.models import GAT

import columba

EDGES = torch.tensor([[0, 1, 2, 2, 3, 0, 4], [1, 2, 0, 1, 3, 0, 4]])
TYPES = torch.tensor([0, 1, 0, 0, 1, 1, 0])
BATCH = torch.tensor([0, 0, 0, 1, 1])


class Net(nn.Module):
    """A lowering, layers of the generic route, lazy sizes, buffers, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = RGATConv(4, 6, num_relations=2, dropout=0.3)
        self.second = SAGEConv(-1, 6)
        self.batch_norm, self.norm = nn.BatchNorm1d(6), GraphNorm(6)
        self.dropout = nn.Dropout(0.4)
        self.last = GATConv((-1, -1), 3, heads=2, concat=False, dropout=0.2)

    def forward(self, x: Tensor, edges: Tensor, types: Tensor, batch: Tensor) -> Tensor:
        x = self.batch_norm(self.first(x, edges, types)).relu()
        x = self.norm(self.second(self.dropout(x), edges).relu(), batch)
        return self.last((x, x), edges)


def features(seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair() -> tuple[Net, Net]:
    """A model, and a copy of it that is compiled; both in evaluation, since what is dropped differs."""
    torch.manual_seed(0)
    model = Net().double().eval()
    compiled = columba.compile(copy.deepcopy(model), backend="torch", strict=True)
    model(features(), EDGES, TYPES, BATCH)  # sizes of -1
    compiled(features(), EDGES, TYPES, BATCH)
    compiled.load_state_dict(model.state_dict())
    return model, compiled


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> Tensor:
    optimizer.zero_grad()
    loss = model(features(seed), EDGES, TYPES, BATCH).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def in_training_without_dropout(model: nn.Module) -> None:
    model.train()
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0


@pytest.mark.parametrize(
    "made",
    [
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    ],
)
def test_optimizers(made: Callable[[Any], torch.optim.Optimizer]) -> None:
    model, compiled = pair()
    in_training_without_dropout(model)
    in_training_without_dropout(compiled)
    optimizers = made(model.parameters()), made(compiled.parameters())
    for seed in range(4):
        torch.testing.assert_close(step(compiled, optimizers[1], seed), step(model, optimizers[0], seed))
    for (name, a), b in zip(model.state_dict().items(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, msg=lambda text, name=name: f"{name}: {text}")


def test_copies_and_files() -> None:
    model, compiled = pair()
    args = EDGES, TYPES, BATCH
    buffer = io.BytesIO()
    torch.save(compiled, buffer)
    buffer.seek(0)
    others = [copy.deepcopy(compiled), torch.load(buffer, weights_only=False)]
    fresh = columba.compile(Net().double().eval(), backend="torch")
    fresh.load_state_dict(model.state_dict())
    for other in (*others, fresh):
        torch.testing.assert_close(other(features(1), *args), model(features(1), *args))
        with torch.no_grad():
            other.second.lin_l.weight.zero_()
        assert not torch.allclose(other(features(1), *args), model(features(1), *args))
    torch.testing.assert_close(compiled(features(1), *args), model(features(1), *args))


def test_other_dtypes_and_frozen_parameters() -> None:
    model, compiled = pair()
    args = EDGES, TYPES, BATCH
    for change in (
        lambda m: m.float(),
        lambda m: m.double(),
        lambda m: m.first.requires_grad_(False),
        lambda m: m.first.requires_grad_(True),
        lambda m: m.last.register_parameter("bias", None),
        lambda m: setattr(m, "norm", MeanSubtractionNorm()),
    ):
        change(model)
        change(compiled)
        x = features(2, next(model.parameters()).dtype)
        found = []
        for one in (model, compiled):
            one.zero_grad()
            out = one(x, *args)
            out.square().sum().backward()
            found.append((out.detach(), [p.grad for p in one.parameters()]))
        (wanted, grads), (got, others) = found
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        for a, b in zip(grads, others, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)


def test_hooks() -> None:
    model, compiled = pair()
    args = EDGES, TYPES, BATCH
    for one in (model, compiled):
        one.seen = []  # type: ignore[assignment]
        one.second.register_forward_hook(lambda m, i, o, one=one: one.seen.append(o.detach().clone()))
        one.last.register_forward_pre_hook(lambda m, i: ((2 * i[0][0], i[0][1]), *i[1:]))
        one.last.register_full_backward_hook(lambda m, gi, go, one=one: one.seen.append(go[0].clone()))
    for seed in range(3):
        for one in (model, compiled):
            one(features(seed), *args).square().sum().backward()
    assert len(model.seen) == len(compiled.seen) == 6  # type: ignore[arg-type]
    for a, b in zip(model.seen, compiled.seen, strict=True):  # type: ignore[call-overload]
        torch.testing.assert_close(b, a)


def test_dropout_is_reproducible() -> None:
    _, compiled = pair()
    compiled.train()
    args = EDGES, TYPES, BATCH
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        out = compiled(features(), *args)
        out.sum().backward()
        found.append(out.detach())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not torch.equal(found[0], found[2])


def test_checkpoints_and_anomalies() -> None:
    model, compiled = pair()
    args = EDGES, TYPES, BATCH
    found = []
    for one in (model, compiled):
        x = features(3).requires_grad_()
        with torch.autograd.set_detect_anomaly(True):
            torch.utils.checkpoint.checkpoint(one, x, *args, use_reentrant=False).square().sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(found[1], found[0])
    with torch.inference_mode():
        torch.testing.assert_close(compiled(features(4), *args), model(features(4), *args))


def test_a_failed_call_leaves_no_trace() -> None:
    model, compiled = pair()
    for wrong in (
        (features()[:3], EDGES, TYPES, BATCH),
        (features(), EDGES, TYPES[:2], BATCH),
        (features(), EDGES + 3, TYPES, BATCH),
        (features().float(), EDGES, TYPES, BATCH),
        (features(), None, TYPES, BATCH),
    ):
        with pytest.raises(Exception):  # noqa: B017, PT011 - PyG's own, whichever
            model(*wrong)
        with pytest.raises(Exception):  # noqa: B017, PT011
            compiled(*wrong)
        args = features(5), EDGES, TYPES, BATCH
        torch.testing.assert_close(compiled(*args), model(*args))


def test_several_models_at_once() -> None:
    """Of one class, with other options: they share nothing that differs."""
    models = [GAT(4, 8, 2, 3, v2=v2, heads=heads).double().eval() for v2 in (False, True) for heads in (1, 2)]
    compiled = [columba.compile(copy.deepcopy(model), backend="torch", strict=True) for model in models]
    for seed in range(2):
        for one, other in zip(models, compiled, strict=True):
            torch.testing.assert_close(other(features(seed), EDGES), one(features(seed), EDGES))


def test_metadata_that_lacks_types() -> None:
    """Tables of another set of node types than before, and edge types that come and go."""
    torch.manual_seed(0)
    metadata = ["a", "b", "c"], [("a", "to", "b"), ("b", "to", "a"), ("c", "to", "a")]
    conv = HGTConv({"a": 4, "b": 4, "c": 4}, 8, metadata, heads=2).double()
    compiled = columba.compile(copy.deepcopy(conv), backend="torch")
    x = {name: features(n) for n, name in enumerate(metadata[0])}
    for edge_types in (metadata[1], metadata[1][:2], metadata[1][2:], metadata[1]):
        edges = dict.fromkeys(edge_types, EDGES)
        wanted, found = conv(x, edges), compiled(x, edges)
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            assert (value is None) == (found[name] is None)
            if value is not None:
                torch.testing.assert_close(found[name], value)


def test_indices_of_32_bits() -> None:
    """Whose gradients PyTorch's own ``scatter_add_`` gets wrong."""
    conv = SAGEConv(4, 6).double()
    compiled = columba.compile(copy.deepcopy(conv), backend="torch", strict=True)
    found = []
    for model, edges in ((conv, EDGES), (compiled, EDGES), (compiled, EDGES.int())):
        x = features().requires_grad_()
        out = model(x, edges)
        out.square().sum().backward()
        found.append((out.detach(), x.grad))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
