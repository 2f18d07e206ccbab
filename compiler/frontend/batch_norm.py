"""``F.batch_norm``, ``F.instance_norm`` of one instance, and their buffers: running statistics are stored once a call has succeeded.

In training a row is normalized by statistics of all rows of its space. Which space that is shows only when the whole function has run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from columba.frontend.effects import in_place
from columba.frontend.errors import fail, location
from columba.frontend.in_place import change
from columba.frontend.metadata import check_dtypes
from columba.frontend.over_rows import adds_first, transposes
from columba.frontend.record import Record, Recorder, RecordingMode, SymbolicTensor, meta_tensor
from columba.frontend.sources import Attribute, Registered


def _rows(recorder: Recorder, x: Tensor) -> Tensor:
    record = recorder.operand(x)
    meta = meta_tensor((), torch.float64)

    def count(x: Tensor) -> Tensor:
        return torch.tensor(float(x.shape[0]), dtype=torch.float64, device=x.device)

    return recorder.add(Record("_row_count", (record,), {}, meta, location(), count))


def _constant(recorder: Recorder, x: Tensor) -> Tensor:
    """``x`` as it is stored in a buffer, which has no gradient."""
    record = recorder.operand(x)
    return recorder.add(Record("_constant", (record,), {}, record.meta, location(), Tensor.detach))


def _by_channel(x: Tensor, rank: int) -> Tensor:
    return x.view(-1, *(1,) * (rank - 2)) if rank > 2 else x


def trace_batch_norm(
    recorder: Recorder,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Records what ``F.batch_norm`` computes for ``[rows, C, *rest]``; of no rows there are no statistics, and none are stored."""
    x = SymbolicTensor(recorder.operand(input))
    shape, dtype = x.record.meta.shape, x.record.meta.dtype
    check_dtypes("batch_norm", (x, weight, bias, running_mean, running_var))
    with RecordingMode(recorder):
        if training and not (x.shape[0] > 0 and shape[1:].numel()):
            return _of_nothing(x, weight, bias)
        wide = x.float() if dtype in (torch.bfloat16, torch.float16) else x
        if training:
            _check_several(recorder, x.record, shape)
            centred, variance, mean = _moments(wide, len(shape))
            _store(recorder, wide, shape, (running_mean, running_var), (mean, variance), momentum)
        else:
            if running_mean is None or running_var is None:
                raise ValueError(
                    f"{location()}: Expected running_mean and running_var to be defined when training=False"
                )
            centred, variance = wide - _by_channel(running_mean, len(shape)), running_var
        scale = torch.rsqrt(variance + eps)
        if weight is not None:
            scale = scale * weight
        result = centred * _by_channel(scale, len(shape))
        if bias is not None:
            result = result + _by_channel(bias, len(shape))
        return result.to(dtype) if wide is not x else result


def _of_nothing(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """As PyTorch has it, so that gradients of parameters are 0."""
    result = x.clone() if weight is None else x * weight[0]
    return result if bias is None else result + bias[0]


def trace_instance_norm(
    recorder: Recorder,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Records what ``F.instance_norm`` computes for ``x.t().unsqueeze(0)``, whose rows are one instance: a batch norm of them."""
    options = (running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    wide = recorder.operand(input)
    flat = wide.operands[0] if adds_first(wide) else None
    if flat is None or not transposes(flat):
        return recorder.record(F.instance_norm, "instance_norm", (input, *options))
    x = SymbolicTensor(flat.operands[0])
    with RecordingMode(recorder):
        return trace_batch_norm(recorder, x, *options).t().unsqueeze(0)


def _check_several(recorder: Recorder, x: Record, shape: Sequence[int]) -> None:
    rest = math.prod(shape[2:])
    if shape[0] * rest == 1:
        raise ValueError(
            f"{location()}: Expected more than 1 value per channel when training, got input size {torch.Size(shape)}"
        )
    if rest == 1:
        recorder.several.append(x)


def _moments(x: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is left without the mean, the biased variance, and the mean."""

    def mean_of(x: Tensor) -> Tensor:
        return x.mean((0, *range(2, rank)))

    mean = mean_of(x)
    centred = x - _by_channel(mean, rank)
    return centred, mean_of(centred * centred), mean


def _store(
    recorder: Recorder,
    x: Tensor,
    shape: Sequence[int],
    buffers: tuple[Tensor | None, Tensor | None],
    moments: tuple[Tensor, Tensor],
    momentum: float,
) -> None:
    """The running mean and the running variance, which is that of a sample, after this call."""
    running_mean, running_var = buffers
    if running_mean is None or running_var is None:
        return
    count = _rows(recorder, x) * math.prod(shape[2:])
    sample = (count / (count - 1)).to(moments[1].dtype)
    found_var = _constant(recorder, moments[1]) * sample
    for buffer, found in ((running_mean, moments[0]), (running_var, found_var)):
        new = buffer * (1 - momentum) + _constant(recorder, found).to(buffer.dtype) * momentum
        _write(recorder, buffer, new)


def _write(recorder: Recorder, buffer: Tensor, value: Any) -> None:
    """Has later reads of a buffer see a value, which is stored there once the call has succeeded."""
    first = recorder.operand(buffer)
    target = next((t for t, v in recorder.writes.items() if v is first), first)  # one that was written before
    if target.source is None or target not in recorder.real:
        raise fail("statistics are stored in a tensor that is computed; pass a buffer, or None")
    recorder.writes[target] = value.record
    recorder.inputs[id(recorder.real[target])] = value.record


def trace_add(recorder: Recorder, input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """``buffer.add_(number)``, as batch norm counts its calls; of what the function has computed, see :mod:`columba.frontend.in_place`."""
    if isinstance(input, SymbolicTensor):
        return change(recorder, Tensor.add_, "add_", (input, other), {"alpha": alpha} if alpha != 1 else {})
    source = recorder.sources.get(id(input))
    if not isinstance(source, (Attribute, Registered)) or isinstance(other, Tensor) or input.requires_grad:
        raise in_place("add_")
    with RecordingMode(recorder):
        value = torch.add(SymbolicTensor(recorder.input(input)), other, alpha=alpha)
    _write(recorder, input, value)
    return input


def store(writes: Sequence[tuple[Record, Record]], values: dict[Record, Any]) -> None:
    """Stores what a call has computed for buffers."""
    with torch.no_grad():
        for target, value in writes:
            values[target].copy_(values[value])


OPERATIONS: dict[Any, Callable[..., Any]] = {
    F.batch_norm: trace_batch_norm,
    F.instance_norm: trace_instance_norm,
    Tensor.add_: trace_add,
}
"""Functions of PyTorch that are recorded in ways of their own."""
