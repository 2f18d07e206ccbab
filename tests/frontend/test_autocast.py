"""Autocast: casts, dtypes and values as PyTorch's autocast gives them for the same code run eagerly."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from eager_graphs import NODE_TYPES, RELATIONS, square_graphs
from torch import Tensor, nn

import columba
from columba.frontend.decompositions import DECOMPOSITIONS
from columba.frontend.rules import RULES
from columba.ir.spaces import Space
from columba.ir.types import DType
from columba.runtime import autocast

pytestmark = pytest.mark.unoptimized

HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64
G = square_graphs()["random"]
N = G.num_nodes


# ------------------------------------------------------------------------------------------------ PyTorch's lists

OF_ONE: dict[str, Callable[[Tensor], Any]] = {
    **{name: getattr(torch, name) for name in ("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "erf")},
    **{name: getattr(torch, name) for name in ("tanh", "sigmoid", "square", "neg", "abs", "sign")},
    **{name: getattr(F, name) for name in ("relu", "leaky_relu", "elu", "silu", "gelu", "softplus", "mish", "selu", "logsigmoid")},
    **{name: getattr(F, name) for name in ("hardtanh", "relu6", "softsign", "dropout")},
    "pow": lambda x: torch.pow(x, 2.5), "__pow__": lambda x: x**2, "__rpow__": lambda x: 2.0**x, "__rtruediv__": lambda x: 1.0 / x,
    "clamp": lambda x: x.clamp(0, 1), "softmax": lambda x: torch.softmax(x, -1), "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1), "sum": lambda x: x.sum(-1), "mean": lambda x: x.mean(-1),
    "amax": lambda x: x.amax(-1), "max": lambda x: x.max(-1).values, "var": lambda x: x.var(-1), "std": lambda x: x.std(-1),
    "norm": lambda x: x.norm(dim=-1), "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "normalize": lambda x: F.normalize(x, dim=-1), "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "rms_norm": lambda x: F.rms_norm(x, (4,)), "lerp": lambda x: torch.lerp(x, x, 0.5), "cat": lambda x: torch.cat([x, x]),
    "prod": lambda x: x.prod(-1), "cosh": torch.cosh, "sinh": torch.sinh, "tan": torch.tan, "atan": torch.atan, "floor": torch.floor,
    "group_norm": lambda x: F.group_norm(x, 2), "glu": lambda x: F.glu(x, -1), "nan_to_num": torch.nan_to_num, "celu": torch.celu,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "topk": lambda x: x.topk(2).values, "pad": lambda x: F.pad(x, (1, 1)),
}  # fmt: skip
OF_TWO: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "matmul": torch.matmul, "mm": torch.mm, "linear": F.linear, "addmm": lambda x, y: torch.addmm(x, x, y), "add": torch.add,
    "bmm": lambda x, y: torch.bmm(x[None], y[None]), "einsum": lambda x, y: torch.einsum("ij,jk->ik", x, y), "mul": torch.mul,
    "prelu": lambda x, y: F.prelu(x, y[0]), "mv": lambda x, y: torch.mv(x, y[0]), "div": torch.div, "maximum": torch.maximum,
    "cat": lambda x, y: torch.cat([x, y]), "stack": lambda x, y: torch.stack([x, y]), "where": lambda x, y: torch.where(x > 0, x, y),
    "pow": torch.pow, "__rmatmul__": lambda x, y: x @ y,
    "cosine_similarity": F.cosine_similarity, "atan2": torch.atan2,
}  # fmt: skip
CALLS = [(name, f, 1) for name, f in OF_ONE.items()] + [(name, f, 2) for name, f in OF_TWO.items()]


def dtype_under(f: Callable[..., Any], operands: list[Tensor]) -> Any:
    """What PyTorch says: the dtype of the result, or the class of the error."""
    try:
        return f(*operands).dtype
    except (RuntimeError, NotImplementedError) as e:
        return NotImplemented if "not linked with support for cuda" in str(e) else type(e)


@pytest.mark.parametrize("device", autocast.DEVICES)
def test_functions_are_cast_as_pytorch_casts_them(device: str) -> None:
    """Every function of the lists, and others; on tensors that hold no data, since there need not be a GPU. What a list says of a
    function that PyTorch cannot even describe without one is what it says for other devices."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    known = autocast.Autocast(device, HALF)
    seen = 0
    with FakeTensorMode():
        for name, f, count in CALLS:
            for dtypes in [
                (a, b)[:count] for a in (HALF, SINGLE, DOUBLE) for b in (HALF, SINGLE, DOUBLE)[: 1 + 2 * (count > 1)]
            ]:
                if DOUBLE in dtypes and set(dtypes) != {DOUBLE}:
                    continue
                operands = [torch.empty(4, 4, dtype=d, device=device) for d in dtypes]
                torch.set_autocast_enabled(device, True)
                torch.set_autocast_dtype(device, HALF)
                try:
                    wanted = dtype_under(f, operands)
                finally:
                    torch.set_autocast_enabled(device, before[0])
                    torch.set_autocast_dtype(device, before[1])
                if wanted is NotImplemented:
                    continue
                to = known.dtype_for(name, {})
                cast = [x if to is None or not autocast.is_eligible(x.dtype) else x.to(to) for x in operands]
                assert dtype_under(f, cast) == wanted, f"{name} of {dtypes} on {device}"
                seen += 1
    assert seen > 150
    listed = {*autocast.LOWER[device], *autocast.FLOAT32[device]} - {
        "typed_linear",
        "__matmul__",
        "__rdiv__",
        "vector_norm",
    }
    assert listed - DECOMPOSITIONS.keys() <= {name for name, _, _ in CALLS}
    assert listed <= {*RULES, *DECOMPOSITIONS}


def test_sums_and_softmax_of_the_language_are_cast_as_torch_does_it() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(4, dtype=HALF, device="cuda")
        assert autocast.as_operand(x, "sum").dtype is HALF
        torch.set_autocast_enabled("cuda", True)
        try:
            assert {n: autocast.as_operand(x, n).dtype for n in ("sum", "softmax", "mean", "max")} == {
                "sum": SINGLE,
                "softmax": SINGLE,
                "mean": HALF,
                "max": HALF,
            }
            assert autocast.as_operand(x.double(), "sum").dtype is DOUBLE
        finally:
            torch.set_autocast_enabled("cuda", False)


# ------------------------------------------------------------------------------------------------ values


class Layer(nn.Module):
    """Products of all kinds, weights that PyTorch computes, numbers of the whole graph, and contexts inside of contexts."""

    def __init__(self) -> None:
        super().__init__()
        self.bases = nn.Parameter(torch.randn(2, 8, 8) / 3)
        self.shares = nn.Parameter(torch.randn(RELATIONS, 2))
        self.att = nn.Parameter(torch.randn(RELATIONS, 2, 4, 4) / 2)
        self.linear = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, g: columba.Graph, h: Tensor) -> dict[str, Tensor]:
        e = g.edges
        weight = torch.tensordot(self.shares, self.bases, 1)  # a function that only PyTorch knows
        message = columba.linear(e.src(h), e.rel(weight))
        key = torch.einsum("ehi,ehij->ehj", e.src(h.view(-1, 2, 4)), e.rel(self.att))
        score = torch.einsum("ehj,ehj->eh", key, e.dst(h.view(-1, 2, 4)))
        scaled = torch.einsum("eh,ehj->ehj", score, key)  # without a sum: no product of matrices
        with torch.autocast("cpu", enabled=False):
            exact = h @ self.linear.weight
            with torch.autocast("cpu", dtype=torch.bfloat16):
                inner = h @ self.linear.weight
        alpha = e.softmax(score)
        out = e.sum(alpha.unsqueeze(-1) * message.view(-1, 2, 4)).view(-1, 8)
        mean = g.nodes.mean(self.linear(h))
        return {
            "out": self.norm(torch.relu(self.linear(out)).float()),
            "message": message,
            "score": score,
            "scaled": e.max(scaled),
            "exact": exact,
            "inner": inner,
            "logits": self.linear(out) @ self.linear.weight.T + h,
            "mean": mean @ self.linear.weight,
            "both": torch.cat([inner, exact], -1),
        }


def results(model: Any, layer: nn.Module, h: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
    with torch.autocast("cpu", dtype=HALF):
        found = model(G, h)
    loss = sum((t.float() * torch.linspace(-1, 1, t.numel()).view(t.shape)).sum() for t in found.values())
    return found, list(torch.autograd.grad(loss, [h, *layer.parameters()]))


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.slow)])
def test_dtypes_and_values_are_those_of_eager_code(backend: str) -> None:
    torch.manual_seed(0)
    layer, h = Layer(), torch.randn(N, 8, requires_grad=True)
    wanted, gradients = results(layer, layer, h)
    got, found = results(columba.compile(layer, backend=backend), layer, h)
    assert {k: t.dtype for k, t in got.items()} == {k: t.dtype for k, t in wanted.items()}
    for name, w in wanted.items():
        torch.testing.assert_close(
            got[name].float(), w.float(), atol=0.03, rtol=0.03, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(got["exact"], wanted["exact"])
    for f, w, p in zip(found, gradients, [h, *layer.parameters()], strict=True):
        assert f.dtype is w.dtype is p.dtype
        assert (f - w).norm() <= 0.02 * w.norm()


def test_weights_are_cast_as_products_read_them_and_their_gradients_are_of_32_bits() -> None:
    layer = columba.nn.RGATConv(32, 8, RELATIONS, heads=4)
    h = torch.randn(N, 32, requires_grad=True)
    with torch.autocast("cpu", dtype=HALF):
        compilation = columba.explain(columba.compile(layer, backend="cpp"), h, G).compilation
    written = {b.type for plan in compilation.plans for k in plan.kernels for b in _writes(k)}
    assert any(t.dtype is DType.BF16 and t.size == 32 for t in written)  # rows of features
    assert not any(t.dtype is DType.BF16 and t.space is Space.REL for t in written)


def _writes(kernel: Any) -> Any:
    from columba.ir.plan.kernels import writes

    return writes(kernel)


def test_on_gpus_sums_and_softmax_are_of_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the lists for GPUs, here for the CPU: products are of 16 bits and all else of 32."""
    for table in (autocast.LOWER, autocast.FLOAT32):
        monkeypatch.setitem(table, "cpu", table["cuda"])
    torch.manual_seed(0)
    h = torch.randn(N, 8, requires_grad=True)
    for layer in (
        columba.nn.RGATConv(8, 4, RELATIONS, heads=2),
        columba.nn.HGTConv(8, 8, NODE_TYPES, RELATIONS, heads=2),
        columba.nn.RGCNConv(8, 8, RELATIONS, aggr="sum"),
    ):
        compiled = columba.compile(layer, backend="torch")
        expected = layer(h, G)
        with torch.autocast("cpu", dtype=HALF):
            got, eager = compiled(h, G), layer(h, G)
            program = str(columba.explain(compiled, h, G).compilation.traced)
        assert got.dtype is eager.dtype is SINGLE
        torch.testing.assert_close(got, eager, atol=0.03, rtol=0.03)
        torch.testing.assert_close(got, expected, atol=0.1, rtol=0.1)
        lines = [line for line in program.splitlines() if "linear(" in line]
        assert lines
        assert all("bf16 = linear" in line for line in lines)
        assert not any("bf16 =" in line for line in program.splitlines() if "softmax(" in line or "op=sum" in line)
        got.sum().backward()
        assert all(p.grad.dtype is SINGLE for p in layer.parameters())


# ------------------------------------------------------------------------------------------------ when it changes


def test_every_way_of_calling_notices_a_change() -> None:
    """The usual way, the fast one of calls that look like the last, and back."""

    def layer(g: columba.Graph, h: Tensor, w: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h) @ w)

    compiled = columba.compile(layer, backend="cpp")
    h, w = torch.randn(N, 8), torch.randn(8, 8)
    for _ in range(3):
        for enabled in (False, True):
            for _ in range(4):
                with torch.autocast("cpu", dtype=HALF, enabled=enabled):
                    got, wanted = compiled(G, h, w), layer(G, h, w)
                assert got.dtype is wanted.dtype is (HALF if enabled else SINGLE)
                torch.testing.assert_close(got, wanted, atol=0.1 if enabled else 1e-5, rtol=0.02 if enabled else 1e-5)
    (of_halves, of_singles) = compiled._own  # one trace for each
    assert of_halves.shortcut is not None
    assert of_singles.shortcut is not None
    assert torch.is_autocast_enabled("cpu") is False


def test_autocast_of_another_device_changes_nothing() -> None:
    def layer(g: columba.Graph, h: Tensor, w: Tensor) -> Tensor:
        return g.edges.sum(g.edges.src(h) @ w)

    compiled = columba.compile(layer, backend="torch")
    torch.set_autocast_enabled("cuda", True)
    try:
        assert compiled(G, torch.randn(N, 8), torch.randn(8, 8)).dtype is SINGLE
    finally:
        torch.set_autocast_enabled("cuda", False)


@pytest.fixture
def warned() -> Iterator[list[Any]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def test_float16_runs_through_pytorch_on_a_cpu(warned: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("columba.runtime.warn._warned", set(), raising=False)
    layer = columba.nn.RGCNConv(8, 8, RELATIONS)
    h = torch.randn(N, 8)
    with torch.autocast("cpu", dtype=torch.float16):
        got, wanted = columba.compile(layer)(h, G), layer(h, G)
        with pytest.raises(RuntimeError, match=r'backend="cpp" has no kernels for torch.float16; use backend="torch"'):
            columba.compile(layer, backend="cpp")(h, G)
    assert got.dtype is wanted.dtype
    torch.testing.assert_close(got, wanted, atol=1e-2, rtol=1e-2)
    assert any("has no kernels for torch.float16" in str(w.message) for w in warned)


# ------------------------------------------------------------------------------------------------ scaled losses


def steps(model: nn.Module, layer: nn.Module, x: Tensor) -> tuple[list[float], list[Tensor], float]:
    """Four training steps, the second of which overflows: losses, parameters, and the scale in the end."""
    optimizer = torch.optim.SGD(layer.parameters(), 0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    losses = []
    for step in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=HALF):
            loss = model(x, G).float().square().mean()
        scaler.scale(loss * (torch.inf if step == 1 else 1.0)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        before = [p.detach().clone() for p in layer.parameters()]
        scaler.step(optimizer)
        scaler.update()
        if step == 1:
            assert all(torch.equal(b, p) for b, p in zip(before, layer.parameters(), strict=True)), (
                "the step is skipped"
            )
        losses.append(float(loss.detach()))
    return losses, [p.detach() for p in layer.parameters()], scaler.get_scale()


def test_a_gradient_scaler_finds_overflow_and_skips_the_step() -> None:
    torch.manual_seed(0)
    layer, other = (columba.nn.RGATConv(8, 4, RELATIONS, heads=2) for _ in range(2))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(N, 8)
    losses, parameters, scale = steps(columba.compile(layer, backend="cpp"), layer, x)
    wanted, expected, other_scale = steps(other, other, x)
    assert scale == other_scale == 2.0**10
    assert losses == pytest.approx(wanted, rel=0.02)
    assert losses[-1] < losses[0]
    for got, want in zip(parameters, expected, strict=True):
        torch.testing.assert_close(got, want, atol=0.01, rtol=0.01)


def _inside(g: columba.Graph, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = g.edges.sum(g.edges.src(h)) @ w
        with torch.autocast("cpu", enabled=False):
            z = y.float() @ w
    return y, z + h @ w


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_switched_on_inside(backend: str) -> None:
    """Of a call without autocast; the next one, of the same trace or under autocast, too."""
    g = columba.Graph(torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]]), num_nodes=3)
    compiled = columba.compile(_inside, backend=backend)
    for outer in (False, True, False, False):
        h, w = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (3, 4))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
            found, wanted = compiled(g, h, w), _inside(g, h, w)
        assert [t.dtype for t in found] == [t.dtype for t in wanted]
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0.02, atol=0.05)
        grads = [
            torch.autograd.grad(torch.stack([t.float().sum() for t in out]).sum(), (h, w)) for out in (found, wanted)
        ]
        torch.testing.assert_close(*grads, rtol=0.02, atol=0.05)
    assert not torch.is_autocast_enabled("cpu")
