"""Hashes that are computed once: of small immutable objects that stand as keys in many dictionaries."""

from __future__ import annotations

from typing import Any, TypeVar

C = TypeVar("C", bound=type[Any])


def hash_once(cls: C) -> C:
    """For frozen dataclasses: the hash of an object's fields is kept with it.

    It is not pickled or copied: that of a string is another in every process.
    """
    computed: Any = cls.__hash__

    def __hash__(self: Any) -> int:
        found: int | None = self.__dict__.get("_hash")
        if found is None:
            found = self.__dict__["_hash"] = computed(self)
        return found

    def __getstate__(self: Any) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    vars_of: Any = cls
    vars_of.__hash__, vars_of.__getstate__ = __hash__, __getstate__
    return cls
