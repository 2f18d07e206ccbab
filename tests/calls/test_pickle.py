"""Copies of compiled functions and of what holds them, in this process and in others."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import columba
from columba.calls.function import CompiledFunction
from columba.calls.options import Options
from columba.passes.recipes import Recipe
from tests import pickled

pytestmark = pytest.mark.unoptimized

G = columba.Graph(torch.tensor([[0, 1, 1], [1, 2, 2]]), num_nodes=3)
H = torch.tensor([[1.0], [10.0], [100.0]])
ONCE = [[0.0], [1.0], [20.0]]
"""The sum of each node's neighbours."""

Copy = Callable[[Any], Any]


def saved(x: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(x, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch.save": saved,
    **{f"pickle {p}": lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in (0, 2, pickle.HIGHEST_PROTOCOL)},
}


@pytest.fixture(params=COPIES)
def copied(request: pytest.FixtureRequest) -> Copy:
    return COPIES[request.param]


def times(factor: float) -> list[list[float]]:
    return [[factor * x for x in row] for row in ONCE]


def test_a_decorated_function_is_found_by_its_name(copied: Copy) -> None:
    assert copied(pickled.decorated) is pickled.decorated
    assert copied(pickled.Inherited.forward) is pickled.Inherited.forward
    assert copied(pickled.Method.forward) is pickled.Method.forward
    assert copied([pickled.decorated])[0] is pickled.decorated


def test_a_function_compiled_beside_the_original_keeps_its_options(copied: Copy) -> None:
    assert pickled.beside(G, H).tolist() == times(3)
    other = copied(pickled.beside)
    assert other is not pickled.beside
    assert other.fn is pickled.plain
    assert other.__wrapped__ is pickled.plain
    assert other.options == Options("torch", passes="-reorder_linear")
    assert other.__name__ == "plain"
    assert other(G, H).tolist() == times(3)


def test_a_bound_method(copied: Copy) -> None:
    other = copied(pickled.Method(5.0).forward)
    assert other(G, H).tolist() == times(5)
    assert other.__func__.compiled is pickled.Method.forward


@pytest.mark.parametrize("kind", [pickled.Inherited, pickled.Method])
def test_instances_of_compiled_classes(kind: type[nn.Module], copied: Copy) -> None:
    module = kind(5.0)
    assert module(G, H).tolist() == times(5)
    other = copied(module)
    assert type(other) is kind
    assert other(G, H).tolist() == times(5)


def test_a_module_that_holds_compiled_functions(copied: Copy) -> None:
    holder = pickled.Holder()
    assert holder(G, H).tolist() == times(5)
    other = copied(holder)
    assert other.function is pickled.decorated
    assert other.more[1]["method"] is pickled.Method.forward
    assert other(G, H).tolist() == times(5)


@pytest.mark.parametrize("kind", [pickled.Eager, pickled.Locked, pickled.Made, pickled.Method, pickled.Holder])
def test_compiled_instances(kind: type[nn.Module], copied: Copy) -> None:
    module = columba.compile(kind() if kind is pickled.Holder else kind(5.0), backend="torch", passes="-reorder_linear")
    assert module(G, H).tolist() == times(5)
    other = copied(module)
    assert isinstance(other, kind)
    assert other.options == Options("torch", passes="-reorder_linear")
    assert type(other) is type(module)
    assert other(G, H).tolist() == times(5)


def test_what_the_class_leaves_out_is_left_out_of_a_compiled_instance() -> None:
    module = columba.compile(pickled.Locked(5.0), backend="torch")
    other = pickle.loads(pickle.dumps(module))
    assert other.lock is not module.lock


def test_a_compiled_instance_beside_its_original_shares_parameters() -> None:
    module = pickled.Eager(5.0)
    fast = columba.compile(module, backend="torch")
    for twin, other in (pickle.loads(pickle.dumps((module, fast))), copy.deepcopy((module, fast))):
        with torch.no_grad():
            twin.factor.fill_(7.0)
        assert other(G, H).tolist() == times(7)
    assert fast(G, H).tolist() == times(5)


def test_a_compiled_forward_set_on_an_instance_follows_its_copy(copied: Copy) -> None:
    module = pickled.Eager(5.0)
    module.forward = columba.compile(module.forward, backend="torch")
    assert module(G, H).tolist() == times(5)
    other = copied(module)
    assert isinstance(other.forward, CompiledFunction)
    if copied is not copy.copy:
        assert other.forward.fn.__self__ is other
        with torch.no_grad():
            other.factor.fill_(7.0)
        assert other(G, H).tolist() == times(7)
    assert module(G, H).tolist() == times(5)


def test_a_bound_method_that_was_compiled(copied: Copy) -> None:
    module = pickled.Eager(5.0)
    module.forward = columba.compile(module.forward, backend="torch")
    other = copied(module.forward)
    assert not isinstance(other.fn, CompiledFunction)
    assert other(G, H).tolist() == times(5)
    fast = columba.compile(pickled.Eager(6.0).forward, backend="torch")
    assert copied(fast)(G, H).tolist() == times(6)


def test_functions_without_a_name_give_the_usual_errors() -> None:
    @columba.compile(backend="torch")
    def local(g: columba.Graph, h: torch.Tensor) -> torch.Tensor:
        return g.edges.sum(g.edges.src(h))

    for function in (local, columba.compile(lambda g, h: g.edges.sum(g.edges.src(h)), backend="torch")):
        with pytest.raises((pickle.PicklingError, AttributeError), match=r"local|lambda"):
            pickle.dumps(function)
        assert copy.deepcopy(function)(G, H).tolist() == ONCE


def test_options_come_back_without_what_follows_from_them() -> None:
    for options in (Options(passes="compact_materialization"), Options(recipe=Recipe("expand_softmax", "fuse"))):
        recipes = options.recipes
        other = pickle.loads(pickle.dumps(options))
        assert other == options
        assert "recipes" not in vars(other)
        assert other.recipes == recipes


@pytest.mark.slow
def test_other_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("COLUMBA_CACHE_DIR", str(tmp_path / "none yet"))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    module = pickled.Eager(5.0)
    module.forward = columba.compile(module.forward, backend="torch")
    together = [pickled.decorated, pickled.beside, columba.compile(pickled.Method(7.0), backend="cpp"), module]
    for n in (0, 1, 3):  # the third is traced and built nowhere but there
        together[n](G, H)
    process = context.Process(target=pickled.workers, args=(queue, together, G, H))
    process.start()
    assert queue.get(timeout=120) == [times(2), times(3), times(7), times(5)]
    process.join()
    assert process.exitcode == 0


def test_workers_of_a_loader() -> None:
    pickled.decorated(G, H)
    loader = torch.utils.data.DataLoader(pickled.Numbers(G), batch_size=None, num_workers=1)
    assert [x.tolist() for x in loader] == [[[0.0], [2.0], [4.0]], [[0.0], [4.0], [8.0]]]
