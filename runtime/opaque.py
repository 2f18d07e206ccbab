"""Calls of compiled functions as one PyTorch operator, ``columba::call``, which torch.compile and torch.export take as it is.

Everything that a call computes of tensors is an argument: inputs, parameters, buffers, and what names or makes its graphs. What is called
is registered here under a key; or its key is the text of a program, from which it is made in whatever process meets it first.

The operator runs the ordinary compiled call. Where gradients are wanted, PyTorch's compilers ask for them later, and elsewhere, of another
operator, ``columba::call_backward``. What the call has saved for it is kept beside a *ticket*, a tensor that the first operator returns and
the second one takes: it lives as long as the memory of that tensor, which is as long as anybody can still ask for gradients.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, Protocol

import torch
from torch import Tensor

from columba.runtime import autocast


class OpaqueCall(Protocol):
    """What the operator calls."""

    def run(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """The results; with their gradient where gradients are enabled."""
        ...

    def fake(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Tensors of the shapes and dtypes of the results, for tensors that may have no data, and symbolic sizes."""
        ...


_calls: weakref.WeakValueDictionary[str, OpaqueCall] = weakref.WeakValueDictionary()
_makers: list[tuple[str, Callable[[str], OpaqueCall]]] = []


def register(key: str, call: OpaqueCall) -> None:
    """Calls of ``key`` are calls of this, as long as somebody else keeps it."""
    _calls[key] = call


def register_maker(prefix: str, make: Callable[[str], OpaqueCall]) -> None:
    """What keys that begin like this name is made from the keys themselves."""
    _makers.append((prefix, make))


def call_of(key: str) -> OpaqueCall:
    """What a key names; RuntimeError that says what to do where this process has nothing of the name."""
    found = _calls.get(key)
    if found is not None:
        return found
    for prefix, make in _makers:
        if key.startswith(prefix):
            return make(key)
    raise RuntimeError(
        f"columba: nothing is compiled as {key[:80]!r} in this process. Keep the compiled function or model as long as what torch.compile "
        "or torch.export made of it; what is to be saved, and loaded elsewhere, is exported by torch.export.export(..., strict=False)"
    )


# ------------------------------------------------------------------------------------------------ what is saved for gradients


class _Saved(bytearray):
    """The memory of a ticket: with it die the results of a call, which hold what their gradients need."""

    inputs: list[Tensor]
    results: list[Tensor]


_numbers = itertools.count(1)
_saved: weakref.WeakValueDictionary[int, _Saved] = weakref.WeakValueDictionary()


def _ticket(inputs: list[Tensor], results: list[Tensor]) -> Tensor:
    number = next(_numbers)
    saved = _Saved(number.to_bytes(8, "little"))
    saved.inputs, saved.results = inputs, results
    _saved[number] = saved
    return torch.frombuffer(saved, dtype=torch.int64)


@contextlib.contextmanager
def _above_autograd(enabled: bool) -> Iterator[None]:
    """Inside of an operator, PyTorch records gradients, or not, as in ordinary code; nothing is cast by autocast."""
    include = torch._C._dispatch_tls_local_include_set()
    exclude = torch._C._dispatch_tls_local_exclude_set()
    exclude = exclude.remove(torch._C.DispatchKey.AutogradFunctionality).remove(torch._C.DispatchKey.AutogradOther)
    with (
        torch._C._ForceDispatchKeyGuard(include, exclude),
        torch.inference_mode(torch.is_inference_mode_enabled() and not enabled),
        torch.set_grad_enabled(enabled),
        autocast.disabled(),
    ):
        yield


def _run(
    key: str, tensors: Sequence[Tensor], sizes: Sequence[int], wanted: Sequence[int]
) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs whose gradients are wanted, and the results that hold them."""
    given, inputs = list(tensors), []
    with _above_autograd(bool(wanted)):
        for n in wanted:
            given[n] = tensors[n].detach().requires_grad_()
            inputs.append(given[n])
        return inputs, call_of(key).run(given, sizes)


def _owned(results: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """The tensors without gradients, each dense, and with memory of its own: PyTorch's compilers rely on both."""
    taken = {x.untyped_storage()._cdata for x in others}
    owned = []
    for x in results:
        own = x.detach().contiguous()
        if own.untyped_storage()._cdata in taken:
            own = own.clone(memory_format=torch.contiguous_format)
        taken.add(own.untyped_storage()._cdata)
        owned.append(own)
    return owned


def _called(key: str, tensors: Sequence[Tensor], sizes: Sequence[int], wanted: Sequence[int]) -> list[Tensor]:
    inputs, results = _run(key, tensors, sizes, wanted)
    owned = _owned(results, tensors)
    return [*owned, _ticket(inputs, results) if wanted else torch.zeros(1, dtype=torch.int64)]


def _called_fake(key: str, tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    return [*call_of(key).fake(tensors, sizes), torch.empty(1, dtype=torch.int64, device="cpu")]


@torch.library.custom_op("columba::call", mutates_args=())
def call(key: str, tensors: Sequence[Tensor], sizes: Sequence[int], wanted: Sequence[int]) -> list[Tensor]:
    """The results of a call, then its ticket.

    Args:
        key: what is called.
        tensors: everything that it computes of.
        sizes: numbers that shapes of results depend on, and no tensor has.
        wanted: the tensors whose gradients may be asked for, by their positions.
    """
    return _called(key, tensors, sizes, wanted)


@call.register_fake
def _(key: str, tensors: Sequence[Tensor], sizes: Sequence[int], wanted: Sequence[int]) -> list[Tensor]:
    return _called_fake(key, tensors, sizes)


@torch.library.custom_op("columba::random_call", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def random_call(
    on: Tensor, key: str, tensors: Sequence[Tensor], sizes: Sequence[int], wanted: Sequence[int]
) -> list[Tensor]:
    """The same, of what draws random numbers: PyTorch has it draw the same again where it computes it again.

    Args:
        on: any tensor, to tell PyTorch on which device they are drawn.
        key, tensors, sizes, wanted: as of :func:`call`.
    """
    return _called(key, tensors, sizes, wanted)


@random_call.register_fake
def _(on: Tensor, key: str, tensors: Sequence[Tensor], sizes: Sequence[int], wanted: Sequence[int]) -> list[Tensor]:
    return _called_fake(key, tensors, sizes)


@torch.library.custom_op("columba::call_backward", mutates_args=())
def call_backward(
    ticket: Tensor,
    inputs: Sequence[Tensor],
    grads: Sequence[Optional[Tensor]],  # noqa: UP045 (PyTorch reads the annotation)
) -> list[Tensor]:
    """The gradients of those inputs of a call that were wanted, from those of its results."""
    saved = _saved.get(int(ticket))
    if saved is None:
        raise RuntimeError(
            "columba: what a compiled call has saved for its gradient is gone, because PyTorch holds a copy of its ticket in place of it: "
            "hooks on saved tensors that copy them do not go together with a compiled call inside of torch.compile"
        )
    pairs = [(x, g) for x, g in zip(saved.results, grads, strict=True) if g is not None and x.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        with _above_autograd(True):
            found = torch.autograd.grad(
                [x for x, _ in pairs], saved.inputs, [g for _, g in pairs], retain_graph=True, allow_unused=True
            )
    given = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
    return _owned(given, [*inputs, *(g for g in grads if g is not None)])


@call_backward.register_fake
def _(
    ticket: Tensor,
    inputs: Sequence[Tensor],
    grads: Sequence[Optional[Tensor]],  # noqa: UP045
) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *_, key, tensors, sizes, wanted = inputs
    ctx.key, ctx.has_sizes, ctx.wanted, ctx.counts = key, bool(sizes), list(wanted), (len(inputs), len(tensors))
    ctx.set_materialize_grads(False)
    ctx.ticket = output[-1]  # as long as this, whatever hooks on saved tensors do with it
    ctx.save_for_backward(output[-1], *(tensors[n] for n in wanted))


def _backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    ticket, *inputs = ctx.saved_tensors
    if not ctx.wanted:
        raise RuntimeError(
            f"columba: gradients of {ctx.key[:80]!r} are asked for, and it was compiled, or exported, without: where gradients were "
            "disabled, or nothing required one"
        )
    found = call_backward(ticket, inputs, list(grads[:-1]))
    arguments, count = ctx.counts
    gradients: list[Tensor | None] = [None] * count
    for n, grad in zip(ctx.wanted, found, strict=True):
        gradients[n] = grad
    first = (None,) * (arguments - 3)
    return *first, gradients, None if ctx.has_sizes else [], None  # PyTorch takes an empty list for one of tensors


for _operator in (call, random_call):
    _operator.register_autograd(_backward, setup_context=_setup)


def schemas() -> list[str]:
    """What the operators take, which belongs to a key: PyTorch's caches hold calls of them, and may be older than they are."""
    return [str(one._opoverload._schema) for one in (call, random_call, call_backward)]
