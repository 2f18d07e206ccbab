"""What ``backend="auto"`` runs on a GPU: checked Triton kernels, else PyTorch, with a warning that says why. The GPU is a stand-in."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_stand_in
import own_cache
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

import triton

import columba
from columba.calls.function import CompiledFunction
from columba.cli import doctor
from columba.cli.doctor import Finding, _kernels_on
from columba.nn import RGCNConv
from columba.runtime import warn
from columba.runtime.graphs.graph import Graph
from columba.runtime.self_check import verdicts
from columba.runtime.self_check.job import Job, Verdict

WRONG = Verdict(False, "RGCNConv out_kernel", "on a graph with hubs, out is nan in row 3", 7)


class Checks:
    """Answers in place of a check, and counts."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.answer = Verdict(True)

    def __call__(self, job: Job) -> Verdict:
        self.jobs.append(job)
        return self.answer


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Checks]:
    found = Checks()
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("COLUMBA_SELF_CHECK", raising=False)
    monkeypatch.setattr(verdicts, "check", found)
    with own_cache.fresh_process(monkeypatch), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield found


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, checks: Checks) -> gpu_stand_in.Seen:
    gpu_stand_in.choose(monkeypatch)
    return gpu_stand_in.install(monkeypatch)


def graph_of(edges: int) -> Graph:
    generator = torch.Generator().manual_seed(edges)
    ends = torch.randint(9, (2, edges), generator=generator)
    return Graph(ends, torch.randint(2, (edges,), generator=generator), num_nodes=9, num_relations=2)


@columba.compile
def total(g: Graph, x: Tensor) -> Tensor:
    return g.edges.sum(g.edges.src(x))


def call() -> tuple[Graph, Tensor]:
    return graph_of(20), torch.randn(9, 4)


def test_triton_kernels_run_on_a_gpu(seen: gpu_stand_in.Seen, checks: Checks) -> None:
    """Checked once, for all graphs, calls, sizes and instances."""
    for function in (columba.compile(total.fn), columba.compile(total.fn)):
        graph, x = call()
        for g in (graph, graph, graph, graph_of(35)):
            seen.clear()
            function(g, x)
            assert [launched.kernel for launched in seen.launches] == ["total_out_kernel"]
    assert len(checks.jobs) == 1
    assert checks.jobs[0].gpu == gpu_stand_in.NAME


def test_calls_after_the_first_do_not_ask(
    seen: gpu_stand_in.Seen, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, (graph, x) = columba.compile(total.fn), call()
    function(graph, x)
    monkeypatch.setattr(verdicts, "objection", None)
    monkeypatch.setattr(verdicts, "mode", None)
    for g in (graph, graph, graph, graph_of(35)):
        function(g, x)
    assert len(seen.launches) == 5


@pytest.mark.slow
def test_other_settings_of_precision_are_checked_apart(seen: gpu_stand_in.Seen, checks: Checks) -> None:
    layer, x, graph = columba.compile(RGCNConv(8, 8, 2)).requires_grad_(False), torch.randn(9, 8), graph_of(20)
    for _ in range(4):  # the last ones through the shortcut
        layer(x, graph)
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        layer(x, graph)
        layer(x, graph)
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    layer(x, graph)
    assert [job.precision for job in checks.jobs] == ["ieee", "tf32"]


def test_wrong_kernels_do_not_run(seen: gpu_stand_in.Seen, checks: Checks) -> None:
    """Those of both directions are checked together. Results and gradients are PyTorch's; a warning says so once."""
    checks.answer = WRONG
    layer = RGCNConv(8, 8, 2)
    fast, x, graph = columba.compile(layer), torch.randn(9, 8, requires_grad=True), graph_of(20)
    leaves = [x, *layer.parameters()]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for g in (graph, graph, graph_of(35)):
            y, wanted = fast(x, g), layer(x, g)
            torch.testing.assert_close(y, wanted)
            torch.testing.assert_close(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(wanted.sum(), leaves))
    (warning,) = found
    assert str(warning.message) == (
        f"columba: the triton kernels of RGCNConv fail their check on {gpu_stand_in.NAME}: RGCNConv out_kernel: on a graph with hubs, out "
        "is nan in row 3 (please report this; COLUMBA_SELF_CHECK=force checks them again). Falling back to "
        'backend="torch", which is slower.'
    )
    assert not seen.launches
    (job,) = checks.jobs
    assert [plan.name for plan in job.parsed_plans()] == ["RGCNConv", "RGCNConv_backward"]
    checks.answer = Verdict(True)
    with torch.inference_mode():
        fast(x, graph)
    assert [launched.kernel for launched in seen.launches][-1] == "RGCNConv_out_kernel"
    assert len(checks.jobs[1].plans) == 1


@pytest.mark.parametrize("version", [None, "3.4.0"])
def test_without_triton_pytorch_runs(
    seen: gpu_stand_in.Seen, checks: Checks, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    if version is None:
        monkeypatch.setitem(sys.modules, "triton", None)
        said = r"needs Triton, which cannot be imported \(.*\); pip install 'columba\[triton\]'. Falling back"
    else:
        monkeypatch.setattr(triton, "__version__", version)
        said = "needs Triton 3.5 or newer, this is 3.4.0; pip install 'triton>=3.5'. Falling back"
    graph, x = call()
    with pytest.warns(RuntimeWarning, match=said) as found:
        result = columba.compile(total.fn)(graph, x)
    assert found[0].filename == __file__
    assert len(found) == 1
    for g in (graph, graph_of(35)):  # without another warning
        result = columba.compile(total.fn)(g, x)
        torch.testing.assert_close(result, total.fn(g, x))
    assert not seen.launches
    assert not checks.jobs


def test_unchecked_kernels_run_where_that_is_asked_for(
    seen: gpu_stand_in.Seen, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "0")
    columba.compile(total.fn)(*call())
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "1")
    columba.compile(total.fn, backend="triton")(*call())
    assert len(seen.launches) == 2
    assert not checks.jobs


def test_force_checks_what_is_asked_for_by_name(
    seen: gpu_stand_in.Seen, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "force")
    columba.compile(total.fn, backend="triton")(*call())
    assert (len(seen.launches), len(checks.jobs)) == (1, 1)
    monkeypatch.setattr(verdicts, "_known", {})
    checks.answer = WRONG
    with pytest.raises(
        RuntimeError, match='the triton kernels of total fail their check .* Use backend="torch", or "auto"'
    ):
        columba.compile(total.fn, backend="triton")(*call())
    assert len(seen.launches) == 1


def test_nonsense_in_the_variable_is_an_error(
    seen: gpu_stand_in.Seen, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "yes")
    for backend in ("auto", "triton"):
        with pytest.raises(ValueError, match="COLUMBA_SELF_CHECK=yes is not known"):
            columba.compile(total.fn, backend=backend)(*call())


def test_what_runs_is_what_is_explained(
    seen: gpu_stand_in.Seen, checks: Checks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs(backend: str = "auto") -> str:
        found = columba.explain(columba.compile(total.fn, backend=backend), *call())
        assert ("@triton.jit" in found.source) == (backend != "cpp")
        return found.runs

    there = gpu_stand_in.NAME
    assert runs() == f"triton kernels on cpu, which are checked on {there} at the first call"
    assert not checks.jobs
    assert runs("triton") == "triton kernels on cpu, unchecked, as they were asked for by name"
    columba.compile(total.fn)(*call())
    assert runs() == f"triton kernels on cpu, checked on {there}"
    monkeypatch.setattr(verdicts, "_known", {})
    assert runs() == f"triton kernels on cpu, checked on {there}"
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "0")
    assert runs() == "triton kernels on cpu, unchecked (COLUMBA_SELF_CHECK=0)"
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "force")
    checks.answer = WRONG
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        columba.compile(total.fn)(*call())
    assert runs("triton") == (
        f"triton kernels on cpu, which fail their check on {there}: RGCNConv out_kernel: on a graph with hubs, out is nan in row 3"
    )
    assert runs("cpp") == "cpp kernels on cpu"
    monkeypatch.setattr(triton, "__version__", "3.4.0")
    assert runs().startswith('PyTorch, operation by operation: backend="triton" needs Triton 3.5 or newer')


def test_the_doctor_heeds_no_warning_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(backend: str, device: torch.device) -> Any:
        warnings.warn("an array of NumPy's", DeprecationWarning, stacklevel=1)
        return doctor.RIGHT

    gpu_stand_in.choose(monkeypatch)
    monkeypatch.setattr(doctor, "_tiny_program", program)
    assert _kernels_on(torch.device("cpu"), gpu_stand_in.NAME).found == "checked and run"


def test_the_doctor_says_whether_kernels_are_right(checks: Checks, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_stand_in.choose(monkeypatch)
    gpu_stand_in.install_interpreted(monkeypatch)
    warnings.simplefilter("ignore")

    def found() -> Finding:
        monkeypatch.setattr(verdicts, "_known", {})
        monkeypatch.setattr(warn, "_warned", set())
        return _kernels_on(torch.device("cpu"), gpu_stand_in.NAME)

    assert (found().found, found().ok) == ("checked and run", True)
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "0")
    assert found().found == "run unchecked (COLUMBA_SELF_CHECK=0)"
    monkeypatch.setenv("COLUMBA_SELF_CHECK", "force")
    checks.answer = WRONG
    assert (found().found, found().ok, found().needed) == ("not used", False, False)
    assert "out is nan in row 3" in found().advice
    monkeypatch.setattr(triton, "__version__", "3.4.0")
    assert "kernels need Triton 3.5 or newer" in found().advice


def test_cpp_kernels_run_on_a_cpu(checks: Checks) -> None:
    graph, x = call()
    torch.testing.assert_close(total(graph, x), total.fn(graph, x))
    specialization, _ = CompiledFunction.specialize(total, graph, x)
    (kernels,) = specialization.kernels
    kinds: list[Any] = [type(r.executable).__name__ for r in kernels.runnables.values()]
    assert kinds == ["CppExecutable"]
    assert not checks.jobs
