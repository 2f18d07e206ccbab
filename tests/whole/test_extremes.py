"""At the ends of floating point every function of the language gives what PyTorch gives: values and gradients."""

from __future__ import annotations

import pytest
import torch
from extremes import BINARY, CASES, FEATURES, UNARY, check, covered, listed

KINDS = ("single", "pair", "row")

SAMPLE = (
    "abs", "elu", "gelu", "hardtanh", "log", "logsigmoid", "pow 0.5", "pow -0.5", "pow 1.5", "relu", "sign", "softplus", "sqrt", "tanh",
    "clamp", "div (pair)", "maximum (pair)", "pow (pair)", "clamp tensors (pair)", "amax (row)", "max (row)", "logsumexp (row)",
    "norm (row)", "norm inf (row)", "normalize (row)", "std (row)", "floor", "round", "hardswish", "cosh", "celu", "nan_to_num",
    "atan2 (pair)", "topk smallest (row)", "prod (row)",
)  # fmt: skip
"""What is compiled in every run; all of it is where time is no matter."""


def test_the_matrix_has_every_function() -> None:
    assert {f.split()[0] for f in (*UNARY, *BINARY)} >= listed("Pointwise")
    assert {f.split()[0] for f in FEATURES} >= listed("Over feature dimensions")
    assert covered(CASES) <= listed("Pointwise") | listed("Over feature dimensions") | {"inner", "product"}
    assert len({c.name for c in CASES}) == len(CASES)
    assert {c.name for c in CASES} >= set(SAMPLE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.filterwarnings("ignore:(std|var).*:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_operations_give_what_torch_gives(kind: str, dtype: torch.dtype) -> None:
    wrong = check([c for c in CASES if c.kind == kind], "torch", dtype)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_give_what_torch_gives(kind: str) -> None:
    wrong = check([c for c in CASES if c.kind == kind and c.name in SAMPLE], "cpp", torch.float32)
    assert not wrong, "\n".join(wrong)


def test_triton_kernels_give_what_torch_gives() -> None:
    """In double precision, in which a constant of fewer bits shows: what Triton has formulas for, and no other test runs."""
    wrong = check([c for c in CASES if c.name == "atan2 (pair)"], "triton", torch.float64)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(std|var).*:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_all_kernels_give_what_torch_gives(kind: str, dtype: torch.dtype) -> None:
    wrong = check([c for c in CASES if c.kind == kind], "cpp", dtype)
    assert not wrong, "\n".join(wrong)
