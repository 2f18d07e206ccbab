"""Caches: what a call keeps in attributes for those that follow, as ``GCNConv(cached=True)`` keeps its normalization.

A function that looks whether an attribute has anything, and puts a tensor there if not, is traced a second time once it has. What it keeps
of structure has values while it is traced, and is kept. Anything else is kept by the call itself, with its gradient, which therefore runs
in Python: those that follow are traced.
"""

from __future__ import annotations

from columba.frontend.errors import FillsCache, location
from columba.frontend.observe import Observer
from columba.frontend.record import Recorder
from columba.frontend.recorded import Symbol
from columba.frontend.trees import leaves, mapped


def fill_caches(recorder: Recorder, observer: Observer) -> None:
    """Gives attributes that were empty the tensors that symbolic ones stand for.

    Raises:
        FillsCache: they have no values while the function is traced.
    """
    values = recorder.structure.values
    for owner, name, value in observer.filled():
        symbols = [x for x in leaves(value) if isinstance(x, Symbol)]
        if not symbols:
            continue
        attributes = object.__getattribute__(owner, "__dict__")
        if all(getattr(x, "record", None) in values for x in symbols):
            attributes[name] = mapped(lambda x: values[x.record] if isinstance(x, Symbol) else x, value)
        else:
            attributes[name] = None
            raise FillsCache(
                f"{location()}: {type(owner).__name__}.{name} is empty, and this call keeps what it computes there, with its gradient, so "
                "that it runs in Python; those that follow are traced"
            )
