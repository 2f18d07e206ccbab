"""Loops have no branches: what chooses between two numbers reads both."""

from __future__ import annotations

import re

import torch

import columba


def test_a_choice_reads_both() -> None:
    """A compiler makes a jump of a choice that reads memory in one branch alone, an element, and nobody guesses it."""
    g = columba.Graph(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    compiled = columba.compile(lambda g, h: torch.relu(g.edges.sum(g.edges.src(h))), backend="cpp")
    h = torch.tensor([[-1.0, 2.0], [3.0, -torch.inf]], requires_grad=True)
    compiled(g, h).backward(torch.tensor([[5.0, 6.0], [torch.nan, 7.0]]))
    assert h.grad is not None
    assert h.grad.tolist() == [[0.0, 7.0], [5.0, 0.0]]
    (traced,) = compiled._own
    (runnable,) = traced.kernels[0].runnables.values()
    loops = [line for line in runnable.executable.source.splitlines() if "b_grad_out[" in line]
    assert loops
    assert not any("?" in line for line in loops)


def test_local_rows_of_truth_values_are_bytes() -> None:
    """Of which GCC makes vectors; loops that read arrays of ``bool`` stay scalar, with a call of ``tanh`` for each number."""
    g = columba.Graph(torch.tensor([[0, 1, 2, 1], [1, 0, 1, 1]]), num_nodes=3)

    def largest(g: columba.Graph, h: torch.Tensor) -> torch.Tensor:
        e = g.edges
        return e.max(torch.tanh(e.dst(h) - e.src(h)) * e.src(h))

    h = torch.tensor([[-1.0, 2.0], [3.0, 0.5], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    explanation = columba.explain(columba.compile(largest, backend="cpp"), g, h)
    assert "uint8_t pointwise" in explanation.source
    assert not re.search(r"\bbool \w+\[", explanation.source)
    (found,) = torch.autograd.grad(columba.compile(largest, backend="cpp")(g, h).sum(), h)
    (wanted,) = torch.autograd.grad(largest(g, h).sum(), h)
    torch.testing.assert_close(found, wanted)


def test_loops_read_a_number_from_a_variable() -> None:
    """A compiler that must read a number again for each element, since what the loop writes may be the number, makes no vectors."""
    g = columba.Graph(torch.tensor([[0, 1, 2, 1], [1, 0, 1, 1]]), num_nodes=3)

    def messages(g: columba.Graph, h: torch.Tensor, t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        e = g.edges
        return e.sum(torch.tanh(torch.tanh((e.src(h) + e.dst(h)) * t) @ w))

    generator = torch.Generator().manual_seed(0)
    h, w = (torch.randn(n, 8, generator=generator).double().requires_grad_() for n in (3, 8))
    t = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    source = columba.explain(columba.compile(messages, backend="cpp"), g, h, t, w).source
    loops = re.findall(r"^ *for \(int i.*;$", source, re.MULTILINE)
    assert any("b_t[0]" in line for line in source.splitlines())
    assert not any("b_t[0]" in line for line in loops)
    assert (
        "__builtin_prefetch((const char*)(b_h + (int64_t)src_of_edge[ahead] * 8)" in source
    )  # rows that no reduction reads, too
    found = torch.autograd.grad(columba.compile(messages, backend="cpp")(g, h, t, w).sin().sum(), (h, t, w))
    wanted = torch.autograd.grad(messages(g, h, t, w).sin().sum(), (h, t, w))
    torch.testing.assert_close(found, wanted)
