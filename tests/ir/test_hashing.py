"""Hashes that are kept: equal for equal objects, kept for good, and not pickled."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest

import columba
from columba.ir.indices import Lookup, Order, Segments
from columba.ir.plan.kernels import Buffer
from columba.ir.spaces import Space, index_map
from columba.ir.types import DType, TensorType

OBJECTS = [
    index_map("dst", Space.EDGE),
    Segments(index_map("dst", Space.EDGE)),
    Order(index_map("dst", Space.EDGE), index_map("src", Space.EDGE)),
    Lookup(index_map("src", Space.EDGE)),
    TensorType(Space.NODE, (3,), DType.F32),
    Buffer("x", TensorType(Space.NODE, (3,), DType.F32), "input"),
]


@pytest.mark.parametrize("one", OBJECTS, ids=lambda one: type(one).__name__)
def test_equal_objects_have_one_hash(one: object) -> None:
    other = copy.copy(one)
    assert other is not one
    assert other == one
    assert hash(one) == hash(other) == hash(one)
    assert "_hash" not in copy.copy(one).__dict__


def test_another_process_computes_its_own() -> None:
    """Strings have other hashes there."""
    for one in OBJECTS:
        hash(one)
    text = f"""
import pickle, sys, types
package = sys.modules["columba"] = types.ModuleType("columba")  # without PyTorch, of which the IR has no need
package.__path__ = {list(columba.__path__)!r}
objects = pickle.loads({pickle.dumps(OBJECTS)!r})
again = pickle.loads({pickle.dumps([copy.deepcopy(one) for one in OBJECTS])!r})
assert all({{a: 1}}[b] for a, b in zip(objects, again))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", text], check=True, env=environment)


def test_spaces_and_types_are_their_names() -> None:
    assert {Space.EDGE: 1}["edge"] == 1
    assert {DType.F32: 1}["f32"] == 1
