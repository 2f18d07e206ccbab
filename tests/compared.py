"""A module's call beside the same call compiled: results, gradients, and what the call leaves in buffers.

For modules that others have written, whatever their arguments and results: tensors of any layout in tuples, lists, dicts and dataclasses.
Both sides run on copies of the module, so that the module that is given stays as it is.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin

from columba.frontend import TraceError

Compile = Callable[[nn.Module], nn.Module]

RELATIVE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""How far results may differ, in units of the largest magnitude of the eager tensor (at least 1)."""


class Differs(AssertionError):
    """The compiled call did something else."""


class Inexact(Differs):
    """Numbers of single precision differ: whether that is rounding, float64 shows."""


class EagerError(Exception):
    """The call is an error without a compiler, which is the cause."""


@dataclass
class Comparison:
    """What came of it.

    Attributes:
        is_random: the call draws random numbers, so that neither results nor gradients were compared.
        tensors: the names of the results, gradients and buffers that were found equal.
        compiled: the compiled copy, if it was called.
        args, kwargs: what it was called with.
    """

    is_random: bool = False
    tensors: list[str] = field(default_factory=list)
    compiled: nn.Module | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def compare(compiled: Compile, module: nn.Module, *args: Any, **kwargs: Any) -> Comparison:
    """Runs a call of ``module`` as it is and compiled, with a random cotangent where gradients are enabled.

    Args:
        compiled: compiles a module.
        module: of which copies are called.
        args, kwargs: of the call; tensors of floats are copied, and their gradients compared.

    Raises:
        EagerError: the call fails uncompiled.
        Differs: in a result, a gradient, or a buffer; the message says which, and by how much. What differs little in float32, as the
            gradients of a BatchNorm of three rows do, is judged in float64.
    """
    states = random_states()
    try:
        return _compare(compiled, module, args, kwargs, states)
    except Inexact:
        restore(states)
        try:
            return _compare(compiled, copy.deepcopy(module).double(), *_doubled((args, kwargs)), states)
        except (EagerError, RuntimeError):  # what does not run in float64 is judged as it is
            pass
        raise
    finally:
        restore(states)


def _compare(
    compiled: Compile, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], states: Any
) -> Comparison:
    eager, other = copy.deepcopy(module), compiled(copy.deepcopy(module))
    restore(states)  # copies of PyG's Linear draw numbers in older versions
    try:
        expected = Outcome.of(eager, args, kwargs)
    except Exception as e:
        raise EagerError(f"{type(e).__name__}: {e}") from e
    if not same_states(states, random_states()) and (not is_lazy(module) or draws(eager, args, kwargs)):
        return Comparison(is_random=True)
    restore(states)
    found = Outcome.of(other, args, kwargs)
    return Comparison(False, list(differences(expected, found)), other, *found.given)


COMPILED, IN_PART, NOT_COMPILED = "compiled", "in part", "not compiled"


def what_runs(compiled: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str]:
    """What is compiled of a call, and why the rest is not: as ``columba.explain`` finds it, without costs and sources."""
    regions: list[Any] = []
    reasons: list[str] = []

    def seen(module: Any, function: Any, specialization: Any, bound: Any) -> None:
        regions.append(module)
        reasons.extend(reason for _, reason in specialization.trace.breaks)

    states = random_states()
    try:
        reasons += map(str, type(compiled).forward.explained(seen, compiled, *args, **kwargs))  # type: ignore[attr-defined]
    except TraceError as e:
        return NOT_COMPILED, str(e)
    finally:
        restore(states)
    if not reasons:
        return COMPILED, ""
    return IN_PART if regions else NOT_COMPILED, "; ".join(reasons)


def is_lazy(module: nn.Module) -> bool:
    """Whether the first call draws numbers for parameters."""
    return any(isinstance(p, UninitializedTensorMixin) for p in (*module.parameters(), *module.buffers()))


def draws(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call draws random numbers."""
    with torch.no_grad():
        before = random_states()
        module(*args, **kwargs)
        return not same_states(before, random_states())


@dataclass
class Outcome:
    """What a call gives: the result, gradients by the names of what they are of, and the module's buffers after it."""

    given: tuple[tuple[Any, ...], dict[str, Any]]
    result: Any
    gradients: dict[str, Tensor | None]
    state: dict[str, Tensor]

    @staticmethod
    def of(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        own_args, own_kwargs = _owned((args, kwargs))
        result = module(*own_args, **own_kwargs)
        found: dict[str, Tensor | None] = {}
        outputs = [t for _, t in tensors("", result) if t.requires_grad]
        if torch.is_grad_enabled() and outputs:
            leaves = {name: p for name, p in module.named_parameters() if p.requires_grad}
            leaves |= {f"input{name}": t for name, t in tensors("", (own_args, own_kwargs)) if t.requires_grad}
            generator = torch.Generator().manual_seed(7)
            cotangents = [
                torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype).to(t.device) for t in outputs
            ]
            total = sum((t * c).sum() for t, c in zip(outputs, cotangents, strict=True))
            assert isinstance(total, Tensor)
            if leaves:
                grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
                found = dict(zip(leaves, grads, strict=True))
        state = {name: b.detach().clone() for name, b in module.named_buffers()}
        return Outcome((own_args, own_kwargs), result, found, state)


def differences(expected: Outcome, found: Outcome) -> Iterator[str]:
    """The names of what is equal; what is not, raises."""
    a, b = dict(tensors("", expected.result)), dict(tensors("", found.result))
    if list(a) != list(b) or structure(expected.result) != structure(found.result):
        raise Differs(f"the result is {structure(found.result)} in place of {structure(expected.result)}")
    for name, tensor in a.items():
        _check(f"result{name}", tensor, b[name])
        if tensor.requires_grad != b[name].requires_grad:
            raise Differs(f"result{name}: requires_grad is {b[name].requires_grad} in place of {tensor.requires_grad}")
        yield f"result{name}"
    if list(expected.gradients) != list(found.gradients):
        raise Differs(f"gradients of {list(found.gradients)} in place of {list(expected.gradients)}")
    for name, gradient in expected.gradients.items():
        other = found.gradients[name]
        if gradient is None or other is None:
            if gradient is not other:
                raise Differs(f"the gradient of {name} is {_short(other)} in place of {_short(gradient)}")
            continue
        _check(f"the gradient of {name}", gradient, other)
        yield f"gradient of {name}"
    if list(expected.state) != list(found.state):
        raise Differs(f"buffers {list(found.state)} in place of {list(expected.state)}")
    for name, buffer in expected.state.items():
        _check(f"buffer {name}", buffer, found.state[name])
        yield f"buffer {name}"


def _short(x: Tensor | None) -> str:
    if x is None:
        return "None"
    return "zeros" if not x.any() else f"a tensor up to {x.abs().max().item():.3g}"


def _check(what: str, expected: Tensor, found: Tensor) -> None:
    for name in ("dtype", "layout", "shape", "device"):
        if getattr(expected, name) != getattr(found, name):
            raise Differs(f"{what}: {name} is {getattr(found, name)} in place of {getattr(expected, name)}")
    if is_freed(expected):  # by the backward pass of a reversible layer, which computes it again
        return
    a, b = (plain(t).detach() for t in (expected, found))
    if not a.is_floating_point():
        if not torch.equal(a, b):
            raise Differs(f"{what}: other integers")
        return
    if not a.numel():
        return
    a, b = a.double(), b.double()
    scale = a[a.isfinite()].abs().max().item() if a.isfinite().any() else 0.0
    limit = RELATIVE[expected.dtype] * max(scale, 1.0)
    if torch.allclose(a, b, rtol=0.0, atol=limit, equal_nan=True):
        return
    wrong = ~torch.isclose(a, b, rtol=0.0, atol=limit, equal_nan=True)
    first = wrong.nonzero()[0].tolist()
    may_be_rounding = expected.dtype == torch.float32  # on which side of a kink a number lies, too
    raise (Inexact if may_be_rounding else Differs)(
        f"{what}: {int(wrong.sum())} of {a.numel()} elements differ, by up to {(a - b)[wrong].abs().max().item():.3g}; "
        f"first at {first}: {b[tuple(first)].item():.6g} in place of {a[tuple(first)].item():.6g}"
    )


def is_freed(x: Tensor) -> bool:
    """Whether the memory of a tensor has been given back, so that reading it would end the process."""
    return x.layout == torch.strided and x.numel() > 0 and not x.untyped_storage().size()


def plain(x: Tensor) -> Tensor:
    """A tensor as a dense one of no subclass."""
    x = x.as_subclass(Tensor) if type(x) not in (Tensor, nn.Parameter) else x
    return x if x.layout == torch.strided else x.to_dense()


# ------------------------------------------------------------------------------------------------ structures


def _children(x: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a container, with how each is reached."""
    if isinstance(x, Mapping):
        for key, value in x.items():
            yield f"[{key!r}]", value
    elif isinstance(x, (list, tuple)):
        for i, value in enumerate(x):
            yield f"[{i}]", value
    elif is_dataclass(x) and not isinstance(x, type):
        for f in fields(x):
            yield f".{f.name}", getattr(x, f.name)


def tensors(name: str, x: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested containers."""
    if isinstance(x, Tensor):
        yield name, x
    for step, child in _children(x):
        yield from tensors(name + step, child)


def structure(x: Any) -> str:
    """What a result is made of, without the tensors' values."""
    if isinstance(x, Tensor):
        return "Parameter" if isinstance(x, nn.Parameter) else type(x).__name__
    children = list(_children(x))
    if children or isinstance(x, (Mapping, list, tuple)):
        return f"{type(x).__name__}({', '.join(step + ' ' + structure(child) for step, child in children)})"
    return repr(x)


def _owned(x: Any, memo: dict[int, Any] | None = None) -> Any:
    """Nested arguments with copies of tensors of floats, which are leaves that require gradients where gradients are enabled.

    Tensors of integers stay what they are: graphs are recognized by them. One tensor that is given twice is one copy.
    """
    memo = {} if memo is None else memo
    if isinstance(x, Tensor):
        if not x.is_floating_point() or x.layout != torch.strided:
            return x
        if id(x) not in memo:
            memo[id(x)] = x.detach().clone().requires_grad_(torch.is_grad_enabled())
        return memo[id(x)]
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(_owned(v, memo) for v in x))
    if type(x) in (tuple, list):
        return type(x)(_owned(v, memo) for v in x)
    if type(x) is dict:
        return {k: _owned(v, memo) for k, v in x.items()}
    return x


def _doubled(x: Any) -> Any:
    """Nested arguments with tensors of float64 in place of those of float32."""
    if isinstance(x, Tensor):
        return x.double() if x.dtype == torch.float32 else x
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*map(_doubled, x))
    if type(x) in (tuple, list):
        return type(x)(map(_doubled, x))
    return {k: _doubled(v) for k, v in x.items()} if type(x) is dict else x


# ------------------------------------------------------------------------------------------------ random numbers


def random_states() -> tuple[Any, ...]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def restore(states: tuple[Any, ...]) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])


def same_states(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return torch.equal(a[0], b[0]) and a[1] == b[1] and bool(np.array_equal(a[2][1], b[2][1])) and a[2][2] == b[2][2]
