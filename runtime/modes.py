"""What is kept is made outside of PyTorch's modes, of real tensors, and without drawing random numbers.

A call may run under a function transform, a fake or a tracing mode, a default device, inference mode: whatever a graph, a compiled function
or a cache keeps beyond that call has to serve calls without them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

PLAIN = (Tensor, torch.nn.Parameter)
"""The classes of tensors that hold their data themselves."""


def any_modes() -> bool:
    """Whether a tensor made now may be another than a plain one that trains: a mode, a transform or inference mode is active."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_function_stack()
        or torch._C._get_tracing_state() is not None
        or torch.is_inference_mode_enabled()
    )


@contextlib.contextmanager
def without_transforms() -> Iterator[None]:
    """Inside, no dispatch mode, function transform or tracer sees what happens; function modes and grad mode stay as they are."""
    if not (
        torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
    ):
        yield
        return
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
    from torch.utils._python_dispatch import _disable_current_modes

    tracing = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        with temporarily_clear_interpreter_stack(), _disable_current_modes():
            yield
    finally:
        torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]


@contextlib.contextmanager
def outside_modes() -> Iterator[None]:
    """Inside, tensors are plain and real, and live where they are asked to, whatever modes the caller is under.

    Neither dispatch and function modes (a default device is one) nor function transforms nor tracers are active, nor inference mode.
    """
    if not any_modes():
        yield
        return
    grad = torch.is_grad_enabled()
    with (
        without_transforms(),
        torch._C.DisableTorchFunction(),
        torch.inference_mode(False),
        torch.set_grad_enabled(grad),
    ):
        yield


def numbers(structure: Tensor) -> list[Any]:
    """The elements of a plain tensor, whatever modes the caller is under: in a transform, some versions of PyTorch give none."""
    with without_transforms():
        return structure.tolist()


def disguise(t: Tensor) -> str | None:
    """Why a tensor is meaningless outside of a transform or a mode; None where it is not."""
    if torch._C._functorch.is_functorch_wrapped_tensor(t):
        return "is wrapped by a function transform (torch.func)"
    if torch._is_functional_tensor(t):
        return "stands for another in a functional trace"
    if type(t) in PLAIN:
        return None
    for kind in type(t).__mro__:
        if kind.__module__.startswith(("torch._subclasses", "torch.fx")):
            return f"is a {type(t).__name__}, which holds no data"
    return None


def obstacle(t: Tensor) -> str | None:
    """Why a tensor is not one whose data can be read now and later; None where it is."""
    if t.device.type == "meta":
        return disguise(t) or "is on the meta device, where tensors hold no data"
    return disguise(t)


def required_real(name: str, t: Tensor) -> None:
    """ValueError that says why where a tensor's data cannot be read: a graph is kept, and outlives every transform and mode."""
    why = obstacle(t)
    if why is not None:
        raise ValueError(
            f"{name} {why}; a graph needs ids that can be read and kept: make the columba.Graph of real tensors, outside of the "
            "transform or mode, and pass it in"
        )


RandomStates = tuple[Tensor, tuple[Tensor, ...]]


def random_states() -> RandomStates:
    """The states of PyTorch's default generators: of the CPU, and of the GPUs where they are in use."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with outside_modes():
        return torch.get_rng_state(), tuple(torch.cuda.get_rng_state(n) for n in gpus)


def restore_random_states(states: RandomStates) -> None:
    """Sets the generators to what :func:`random_states` gave."""
    cpu, gpus = states
    with outside_modes():
        torch.set_rng_state(cpu)
        for n, state in enumerate(gpus):
            torch.cuda.set_rng_state(state, n)


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """What is drawn inside from PyTorch's default generators is drawn again after: their states are as before."""
    before = random_states()
    try:
        yield
    finally:
        restore_random_states(before)


def skipped_by_dynamo(function: Any, recursive: bool = False) -> None:
    """Dynamo does not compile a function by itself (nor, ``recursive``, what it calls), though it may read it as part of its callers."""
    inside: Any = torch._C._dynamo.eval_frame  # in C: this does not load Dynamo
    if hasattr(inside, "set_code_exec_strategy"):
        skip, default = inside._FrameAction.SKIP, inside._FrameAction.DEFAULT
        inside.set_code_exec_strategy(
            function.__code__, inside._FrameExecStrategy(skip, skip if recursive else default)
        )
