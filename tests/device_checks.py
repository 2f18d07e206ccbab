"""What only a GPU can show: no synchronization by the driver's word, CUDA graphs, streams, several devices. Nothing here needs pytest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from triton_matrix import PASSES, PROGRAMS, Device, Pair, assert_close, graphs, tensors_of

import columba

Step = Callable[[], list[Tensor]]


def make_step(program: str, device: Device, **options: bool) -> tuple[Step, list[Tensor]]:
    """A training step, warm, that gives results and gradients; and what they are."""
    pair = Pair(PROGRAMS[program], 16, 4, torch.float32, device)
    ours, theirs = pair.arguments(graphs()["tiles"])
    compiled = columba.compile(pair.layer, backend="triton", passes=PASSES[0], **options)

    def run(module: Callable[..., Any], args: list[Any], parameters: list[Tensor]) -> list[Tensor]:
        results = tensors_of(module(*args))
        leaves = [*(x for x in args if isinstance(x, Tensor)), *parameters]
        wanted = [r for r in results if r.requires_grad]
        found = torch.autograd.grad(wanted, leaves, [torch.ones_like(r) for r in wanted], allow_unused=True)
        return [*results, *(f for f in found if f is not None)]

    def step() -> list[Tensor]:
        return run(compiled, ours, list(pair.layer.parameters()))

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    return step, run(pair.oracle, theirs, list(pair.oracle.parameters()))


def check(found: list[Tensor], wanted: list[Tensor]) -> None:
    for n, (f, w) in enumerate(zip(found, wanted, strict=True)):
        assert_close(f"tensor {n}", f, w, torch.float32)


def check_no_synchronization(program: str, device: Device) -> None:
    """A warm step does not wait for the device."""
    step, wanted = make_step(program, device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    check(found, wanted)


def check_cuda_graphs(program: str, device: Device) -> None:
    """A step can be captured into a CUDA graph, and replayed."""
    step, wanted = make_step(program, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    for t in found:
        t.detach().zero_()
    graph.replay()
    torch.cuda.synchronize()
    check(found, wanted)


def check_replays(program: str, device: Device) -> None:
    """With ``cuda_graphs=True``, steps that replay CUDA graphs compute what others do; inputs may move, and results stay."""
    step, wanted = make_step(program, device, cuda_graphs=True)
    kept = [step() for _ in range(4)]
    padding = torch.empty(1 << 20, device=device.name)  # so that what is allocated next is elsewhere
    kept += [step() for _ in range(2)]
    del padding
    torch.cuda.synchronize()
    for found in kept:
        check(found, wanted)


def check_streams(program: str, device: Device) -> None:
    """Kernels run on the current stream: they see what was written there just before."""
    step, wanted = make_step(program, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = step()
    stream.synchronize()
    check(found, wanted)


def check_the_second_device(program: str, device: Device) -> None:
    """Kernels run where tensors are, whichever device is the current one."""
    second = Device("cuda:1", device.target)
    _, wanted = make_step(program, device)
    step, _ = make_step(program, second)
    found = step()
    assert all(t.device == torch.device("cuda:1") for t in found)
    torch.cuda.synchronize("cuda:1")
    check(found, wanted)
