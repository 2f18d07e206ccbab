"""The memory that programs share: pieces of blocks, what comes back, and what is returned to the system."""

from __future__ import annotations

import gc
import mmap
import os
import random
import threading

import pytest
import torch

from columba.runtime.cpp.memory import Block, Piece, Pooled, Scratch

pytestmark = pytest.mark.unoptimized


PAGE = mmap.PAGESIZE


def pages(pool: Pooled) -> list[tuple[int, list[tuple[int, int]]]]:
    """The blocks of a pool, in pages, and their gaps."""
    return [(r.block.size // PAGE, [(g.start // PAGE, g.stop // PAGE) for g in r.gaps]) for r in pool._regions]


def test_a_large_piece_serves_for_several_small_ones() -> None:
    pool = Pooled(limit=2**30)
    whole = pool.take(10 * PAGE)
    pool.give(whole)
    parts = [pool.take(n * PAGE) for n in (2, 3, 4)]
    assert pages(pool) == [(10, [(9, 10)])]
    assert [p.base for p in parts] == [whole.base, whole.base + 2 * PAGE, whole.base + 5 * PAGE]
    pool.give(parts[0])
    pool.give(parts[2])
    assert pages(pool) == [(10, [(0, 2), (5, 10)])]
    assert pool.take(PAGE).base == whole.base  # the smallest gap
    pool.give(parts[1])
    assert pages(pool) == [(10, [(1, 10)])]


def test_what_is_too_small_goes_before_a_block_is_made() -> None:
    pool = Pooled(limit=2**30)
    pool.give(pool.take(5 * PAGE))
    held = pool.take(2 * PAGE)
    larger = pool.take(4 * PAGE)
    assert pages(pool) == [(5, [(2, 5)]), (4, [])]
    assert pool.kept == 0  # the gap beside what is held has no pages any more
    pool.give(held)
    pool.give(larger)
    assert pool.kept == 9 * PAGE
    pool.take(6 * PAGE)
    assert pages(pool) == [(6, [])]


def test_a_cycle_of_calls_soon_maps_nothing() -> None:
    pool = Pooled(limit=2**30)
    generator = random.Random(3)
    steps = [(generator.random() < 0.5, generator.randrange(1, 40)) for _ in range(60)]
    seen = []
    for _ in range(12):
        held = []
        for gives, n in steps:
            if gives and held:
                pool.give(held.pop(0))
            held.append(pool.take(n * PAGE))
        for piece in held:
            pool.give(piece)
        seen.append(tuple(r.block.base for r in pool._regions))
    assert seen[-1] == seen[-2] == seen[-3]


def test_pieces_never_overlap() -> None:
    pool = Pooled(limit=2**30)
    generator = random.Random(5)
    held: list[Piece] = []
    for _ in range(2000):
        if held and generator.random() < 0.5:
            pool.give(held.pop(generator.randrange(len(held))))
        else:
            held.append(pool.take(generator.randrange(1, 20) * PAGE - 7))
        spans = sorted((p.base, p.base + p.size) for p in held)
        assert all(stop <= start for (_, stop), (start, _) in zip(spans, spans[1:], strict=False))
    for piece in held:
        pool.give(piece)
    assert all(r.is_free for r in pool._regions)


def test_memory_beyond_the_limit_is_returned() -> None:
    pool = Pooled(limit=3 * PAGE)
    one, two = pool.take(2 * PAGE), pool.take(2 * PAGE)
    pool.give(one)
    assert pool.kept == 2 * PAGE
    pool.give(two)
    assert pool.kept == 0
    assert not pool._regions


def test_what_is_given_back_while_memory_is_taken_is_not_lost() -> None:
    """A finalizer may run in the middle of :meth:`Pooled.take`, in the same thread."""
    pool = Pooled(limit=2**30)
    piece = pool.take(3 * PAGE)
    with pool._lock:
        pool.give(piece)
        assert pool._returned
    assert pool.kept == 3 * PAGE


def test_threads_take_and_give() -> None:
    pool = Pooled(limit=2**30)
    wrong: list[str] = []

    def work(mark: int) -> None:
        generator = random.Random(mark)
        for _ in range(300):
            value = pool.empty((generator.randrange(1, 20) * 2**16,), torch.int32)
            value.fill_(mark)
            if not bool((value == mark).all()):
                wrong.append(f"{mark}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    gc.collect()
    assert all(r.is_free for r in pool._regions)


def test_large_temporaries_and_tensors_use_the_same_memory() -> None:
    pool = Pooled(limit=2**30)
    scratch = Scratch(2**20, pool)
    block = scratch.take(4 * Pooled.SMALL)
    scratch.give(block)
    tensor = pool.empty((Pooled.SMALL,), torch.uint8)
    assert tensor.data_ptr() == block.base
    assert isinstance(scratch.take(100), Block)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_memory_of_its_own() -> None:
    value = Pooled(limit=2**30).empty((2**19,), torch.uint8)
    value.zero_()
    child = os.fork()
    if not child:
        value[0] = 1
        os._exit(int(value[0]))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert value[0] == 0
