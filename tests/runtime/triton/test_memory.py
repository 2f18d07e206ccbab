"""Triton kernels touch nothing outside their tensors and write all of their outputs, in the interpreter, on all degenerate graphs.

Every tensor that a kernel is given (inputs, index arrays, outputs, temporaries, parts between two launches) stands between guards of its
own, so that two tensors are never side by side, and the interpreter says where each lane reads and writes: an address outside the tensors
of the launch is an error even where what is read there is not used. Guards and new tensors are full of NaN (integers: of a number that
is no index); guards have to stay so, and of new tensors nothing may be left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from triton.runtime.interpreter import InterpreterBuilder
from triton_matrix import (
    INTERPRETED,
    PASSES,
    PROGRAMS,
    SCHEDULES,
    TINY,
    Pair,
    graphs,
    scheduled,
    tensors_of,
)

import columba
from columba.codegen.triton import Launch
from columba.runtime.triton.launch import PlanRunner, _Call

pytestmark = [
    pytest.mark.filterwarnings("ignore:columba. backend=.triton. runs on CPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter"),
]

GUARD = 64
"""Elements before and after every tensor."""


def poison_of(dtype: torch.dtype) -> float | int | bool:
    if dtype.is_floating_point:
        return float("nan")
    return True if dtype is torch.bool else torch.iinfo(dtype).max // 2


def is_poison(t: Tensor) -> Tensor:
    return t.isnan() if t.is_floating_point() else t == poison_of(t.dtype)


class Guards:
    """All tensors of the plans that run, and where their kernels went wrong."""

    def __init__(self) -> None:
        self.guards: list[Tensor] = []
        self.made: list[Tensor] = []
        self.given: list[tuple[int, int]] = []
        self.running = ""
        self.launches = 0

    def around(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        size = int(torch.Size(shape).numel())
        whole = torch.full((size + 2 * GUARD,), poison_of(dtype), dtype=dtype)
        self.guards += [whole[:GUARD], whole[GUARD + size :]]
        return whole[GUARD : GUARD + size].view(tuple(shape))

    def copy(self, t: Tensor) -> Tensor:
        return self.around(t.shape, t.dtype).copy_(t)

    def look(self, pointers: Any, mask: Any) -> None:
        addresses = pointers.data if mask is None else pointers.data[mask.data]
        addresses = addresses.astype("int64")
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        inside = addresses < 0
        for low, high in self.given:
            inside |= (addresses >= low) & (addresses + size <= high)
        if not inside.all():  # before the interpreter follows the address
            raise AssertionError(f"{self.running} goes outside its tensors")

    def check(self) -> None:
        """AssertionError where a guard was written, or something new was not."""
        assert all(is_poison(g).all() for g in self.guards), "a guard was written"
        unwritten = [tuple(t.shape) for t in self.made if t.dtype is not torch.bool and is_poison(t).any()]
        assert not unwritten, f"not all written: tensors of shapes {unwritten}"
        self.guards.clear()
        self.made.clear()


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Guards:
    found = Guards()
    run, argument, launch = PlanRunner.run, _Call._argument, _Call._launch

    def guarded_run(self: PlanRunner, inputs: Sequence[Tensor], index: Sequence[Tensor], *rest: Any) -> list[Tensor]:
        return run(self, [found.copy(x) for x in inputs], [found.copy(x) for x in index], *rest)

    def allocate(self: _Call, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        made = found.around(shape, dtype)
        found.made.append(made)
        return made

    def note_argument(self: _Call, *args: Any) -> Any:
        value = argument(self, *args)
        if isinstance(value, Tensor):
            found.given.append((value.data_ptr(), value.data_ptr() + value.numel() * value.element_size()))
        return value

    def note_launch(self: _Call, launched: Launch, *args: Any, **options: Any) -> None:
        found.given.clear()
        found.running = launched.function
        found.launches += 1
        launch(self, launched, *args, **options)

    monkeypatch.setattr(PlanRunner, "run", guarded_run)
    monkeypatch.setattr(_Call, "allocate", allocate)
    monkeypatch.setattr(_Call, "_argument", note_argument)
    monkeypatch.setattr(_Call, "_launch", note_launch)
    for name, mask_at in (
        ("create_masked_load", 1),
        ("create_masked_store", 2),
        ("create_atomic_rmw", 3),
        ("create_atomic_cas", None),
    ):
        monkeypatch.setattr(InterpreterBuilder, name, _watched(found, getattr(InterpreterBuilder, name), name, mask_at))
    return found


def _watched(found: Guards, original: Any, name: str, mask_at: int | None) -> Any:
    def watched(self: Any, *args: Any, **options: Any) -> Any:
        pointers = args[1] if name == "create_atomic_rmw" else args[0]
        found.look(pointers, None if mask_at is None else args[mask_at])
        return original(self, *args, **options)

    return watched


def check_memory(
    guards: Guards, program: str, size: int, heads: int, schedule: str, names: Sequence[str] = TINY
) -> None:
    pair = Pair(PROGRAMS[program], size, heads, torch.float32, INTERPRETED)
    with scheduled(SCHEDULES[schedule], INTERPRETED.target):
        compiled = columba.compile(pair.layer, backend="triton", passes=PASSES[0])
        for name in names:
            ours, _ = pair.arguments(graphs()[name])
            results = tensors_of(compiled(*ours))
            sum(r.sum() for r in results if r.requires_grad).backward()
            guards.check()
    assert guards.launches


@pytest.mark.parametrize("program", [p if p == "rgcn" else pytest.param(p, marks=pytest.mark.slow) for p in PROGRAMS])
def test_default_schedules(program: str, guards: Guards) -> None:
    check_memory(guards, program, 7, 3, "default")


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_wide_rows(program: str, guards: Guards) -> None:
    check_memory(guards, program, 100, 1, "default", ["random", "one_node", "no_edges", "hub"])


@pytest.mark.slow
def test_wide_rows_in_pieces(guards: Guards) -> None:
    """100 rows of a weight in two pieces of 64 lanes: the second piece goes past the end."""
    check_memory(guards, "source_attention", 100, 1, "rows in pieces", ["random"])


def test_hubs(guards: Guards) -> None:
    check_memory(guards, "source_attention", 7, 3, "hubs", ["hub"])


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_several_tiles(program: str, guards: Guards) -> None:
    check_memory(guards, program, 7, 3, "default", ["tiles"])


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s != "default"])
@pytest.mark.parametrize("program", ["rgcn", "rgat", "hgt", "relation_pooling"])
def test_all_schedules(program: str, schedule: str, guards: Guards) -> None:
    check_memory(guards, program, 16, 3, schedule)


# ------------------------------------------------------------------------------------------------ the test sees what is wrong


@pytest.fixture
def wrong_counts(monkeypatch: pytest.MonkeyPatch, guards: Guards) -> None:
    """Kernels are told of one row more than there is in every space."""
    argument = _Call._argument

    def one_more(self: _Call, *args: Any) -> Any:
        value = argument(self, *args)
        return value if isinstance(value, Tensor) else value + 1

    monkeypatch.setattr(_Call, "_argument", one_more)


@pytest.mark.usefixtures("wrong_counts")
def test_a_row_too_many_is_seen(guards: Guards) -> None:
    with pytest.raises(Exception, match="goes outside its tensors"):  # as the interpreter hands it on
        check_memory(guards, "rgcn", 7, 1, "default", ["random"])


def test_an_unwritten_row_is_seen(guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids are cut short by a program."""
    size = _Call._size
    monkeypatch.setattr(_Call, "_size", lambda self, of: max(1, size(self, of) - 1))
    with pytest.raises(AssertionError, match="not all written"):
        check_memory(guards, "rgat", 7, 3, "owners", ["random"])
