"""Compiled plans that outlive a process.

The variants of a program, as text, are kept in the cache folder under the hash of everything that they follow from: the program's text,
the inputs that want gradients, the recipes, what may be saved, and the source of the compiler itself. Reading them back takes a tenth of
the time of compiling. What cannot be read is compiled again, never trusted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from columba.driver import Compilation
from columba.gradient.saving import Saving
from columba.ir.plan.parsing import parse_plan
from columba.ir.plan.planned import Planned
from columba.ir.program.program import Program
from columba.passes.recipes import Recipe
from columba.runtime.cache import find, get_or_make, remove
from columba.runtime.fingerprint import fingerprint

Texts = dict[str, dict[str, Any]]
"""By variant: ``plans`` as text, and the other fields of :class:`Planned`."""


def key_of(program: Program, wrt: Sequence[str], recipes: Mapping[str, Recipe], saving: Saving | None) -> str:
    """The name of the entry for these variants."""
    identity = [fingerprint(), str(program), repr(tuple(wrt)), repr(list(recipes.items())), repr(saving)]
    return "plans-" + hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]


def stored(key: str, names: Iterable[str], compile: Callable[[], Mapping[str, Compilation]]) -> Texts:
    """The texts of the variants ``names`` under ``key``: those stored, or those of what ``compile`` returns."""
    text = get_or_make(key, ".json", lambda: json.dumps(to_texts(compile())).encode())
    try:
        found: Texts = json.loads(text)
        if list(found) == list(names) and all(isinstance(t["plans"], list) for t in found.values()):
            return found
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    remove(key, ".json")
    return to_texts(compile())


def is_stored(key: str) -> bool:
    """Whether there is an entry under ``key``."""
    return find(key, ".json") is not None


def to_texts(compiled: Mapping[str, Compilation]) -> Texts:
    """What is stored of compilations."""
    return {
        name: {
            "plans": [str(plan) for plan in c.plans],
            "results": c.results,
            "places": c.places,
            "sources": c.sources,
            "gradients": c.gradients,
        }
        for name, c in compiled.items()
    }


def from_texts(name: str, texts: Mapping[str, Any]) -> Planned:
    """A variant of the program called ``name``; ValueError, TypeError or KeyError if these are no plans."""

    def pairs(found: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(None if pair is None else tuple(pair) for pair in found)

    return Planned(
        name,
        tuple(parse_plan(text) for text in texts["plans"]),
        int(texts["results"]),
        pairs(texts["places"]),
        pairs(texts["sources"]),
        pairs(texts["gradients"]),
        tuple(texts["plans"]),
    )


def stored_choice(key: str, counts: Mapping[Any, int], machine: str, choose: Callable[[], str]) -> str:
    """The variant that ``choose`` chose for a graph with these counts on this machine, in this process or before."""
    identity = [key, json.dumps({str(space): n for space, n in counts.items()}), machine]
    entry = "choice-" + hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]
    text = get_or_make(entry, ".json", lambda: json.dumps(choose()).encode())
    try:
        return str(json.loads(text))
    except (ValueError, RecursionError):
        remove(entry, ".json")
        return choose()
