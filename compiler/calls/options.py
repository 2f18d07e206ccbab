"""Compile options: what ``columba.compile`` was asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Any

from columba.passes.recipes import Recipe
from columba.runtime.backends import PRECISIONS, Choice, choice_named
from columba.selection.variants import parse_choices, recipes_for

MODES: dict[str, dict[str, bool]] = {
    "default": {},
    "max-autotune": {"autotune": True},
    "reduce-overhead": {"cuda_graphs": True},
}
"""What modes of ``torch.compile`` stand for here."""


def settings_of(mode: str | None, autotune: bool, cuda_graphs: bool) -> tuple[bool, bool]:
    """``autotune`` and ``cuda_graphs`` as a mode, and they themselves, say."""
    if mode is not None and mode not in MODES:
        names = ", ".join(map(repr, MODES))
        raise ValueError(f"unknown mode {mode!r}; one of {names}")
    asked = MODES[mode or "default"]
    return autotune or asked.get("autotune", False), cuda_graphs or asked.get("cuda_graphs", False)


def check_dynamic(dynamic: bool | None) -> None:
    """ValueError where sizes are asked to be static."""
    if dynamic is not None and not dynamic:
        raise ValueError(
            "dynamic=False: compiled programs serve graphs of every size, so numbers of rows are always dynamic (and feature shapes never "
            "are); leave dynamic away"
        )


@dataclass(frozen=True)
class Options:
    """What ``columba.compile`` was asked for."""

    backend: str = "auto"
    passes: str = ""
    memory_budget: int | None = None
    recipe: Recipe | None = None
    autotune: bool = False
    fp32_precision: str | None = None
    cuda_graphs: bool = False
    fullgraph: bool | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        choice_named(self.backend)
        if self.memory_budget is not None and self.memory_budget < 0:
            raise ValueError(f"memory_budget must not be negative, got {self.memory_budget}")
        if self.passes and self.recipe is not None:
            raise ValueError("give passes or a recipe, not both: a recipe lists all passes")
        if self.autotune and not self.is_open:
            raise ValueError("autotune=True chooses what runs: give it without passes, recipe and memory_budget")
        if self.fp32_precision not in (None, *PRECISIONS):
            names = ", ".join(map(repr, PRECISIONS))
            raise ValueError(
                f"unknown fp32_precision {self.fp32_precision!r}; one of {names}, or None: as PyTorch's settings say"
            )
        parse_choices(self.passes)

    @property
    def choice(self) -> Choice:
        """What ``backend`` leaves to choose."""
        return choice_named(self.backend)

    @property
    def is_open(self) -> bool:
        """Whether everything is left to choose; then what was tuned counts."""
        return not self.passes and self.recipe is None and self.memory_budget is None

    @functools.cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The recipes among which the cost model chooses, by name."""
        return recipes_for(parse_choices(self.passes)) if self.recipe is None else {"given": self.recipe}

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # not what was derived of them
