"""Numbers of nodes that PyG's functions take from integers: ``int(index.max()) + 1`` stays the number of each call.

Python's ``int`` gives a plain number, on which a trace then depends: the number of graphs of a batch, that is, or of nodes. While a
function is traced, PyG's modules therefore see an ``int`` that leaves what stands for a number as it is, and does to all else what
Python's does.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any

from columba.frontend.counts import RowCount
from columba.frontend.recorded import is_symbol

_PARTS = ("torch_geometric.utils.", "torch_geometric.nn.aggr.", "torch_geometric.nn.norm.", "torch_geometric.nn.pool.")


class _Kind(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, builtins.int)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, builtins.int)


class _Int(builtins.int, metaclass=_Kind):
    def __new__(cls, value: Any = 0, *base: Any) -> Any:
        if is_symbol(value):
            return value.item()
        return value if isinstance(value, RowCount) else builtins.int(value, *base)


_Int.__name__ = _Int.__qualname__ = "int"
_lock = threading.Lock()
_users = 0
_changed: list[dict[str, Any]] = []


@functools.lru_cache(maxsize=1)
def _namespaces(count: int) -> tuple[dict[str, Any], ...]:
    """Of PyG's modules, as long as there are so many modules: looking through all of them takes longer than many a trace."""
    return tuple(module.__dict__ for name, module in list(sys.modules.items()) if name.startswith(_PARTS))


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within, PyG's ``int`` keeps what stands for a number."""
    global _users
    with _lock:
        _users += 1
        if _users == 1 and "torch_geometric" in sys.modules:
            for names in _namespaces(len(sys.modules)):
                if "int" not in names:
                    names["int"] = _Int
                    _changed.append(names)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                for names in _changed:
                    names.pop("int", None)
                _changed.clear()
