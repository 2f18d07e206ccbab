"""Variant selection: ways to compile one program, among which the cost model chooses for a graph."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from columba.driver import Compilation, compile_program
from columba.gradient.saving import Saving
from columba.ir.counts import Counts
from columba.ir.plan.planned import Planned
from columba.ir.program.program import Program
from columba.passes.pipeline import discover
from columba.passes.program.merge_linears import MergeLinears
from columba.passes.recipes import LEVEL_1, LEVEL_2, Recipe
from columba.runtime.logs import logger
from columba.selection import plan_cache
from columba.selection.cost import LinearCosts
from columba.selection.rates import CPU, Rates, known_rates, machine_rates, rates_key, typical_rates
from columba.selection.work import plan_formula, united

LOG, TRACES = logger("variants"), logger("traces")

REQUIRED = ("expand_softmax", "legalize_linear")
"""What lowering relies on; these passes cannot be forbidden."""

AFTER = "merge_reductions"
"""Where aggregation is pulled before the products."""

ALTERNATIVES: tuple[Mapping[str, bool], ...] = (
    {"aggregate_first": False, "compact_materialization": True},
    {"aggregate_first": True, "compact_materialization": True},
    {"aggregate_first": False, "compact_materialization": False},
)
"""Passes whose worth depends on the graph, in the combinations that are considered."""


def parse_choices(text: str) -> dict[str, bool]:
    """Passes to force (``name`` or ``+name``) and to forbid (``-name``), separated by commas.

    >>> parse_choices("aggregate_first,-reorder_linear")
    {'aggregate_first': True, 'reorder_linear': False}
    """
    choices: dict[str, bool] = {}
    for word in filter(None, (w.strip() for w in text.split(","))):
        name = word.lstrip("+-")
        if name not in discover():
            raise ValueError(f"unknown pass {name!r}; there are {', '.join(sorted(discover()))}")
        if word.startswith("-") and name in REQUIRED:
            raise ValueError(f"pass {name} cannot be left out: lowering relies on it")
        choices[name] = not word.startswith("-")
    return choices


def recipe_of(choices: Mapping[str, bool], *, verify: bool = False) -> Recipe:
    """The standard recipe with some passes forced or left out.

    ``compact_materialization=False`` still hoists what reads one endpoint alone to that endpoint, but makes no rows for pairs;
    ``merge_linears=True`` merges products of any width, where the standard recipe merges narrow ones.
    """
    settled = {name: discover()[name]() for name in choices}
    level1, level2 = LEVEL_1, LEVEL_2
    if choices.get("aggregate_first", False):
        level1 = level1.after(AFTER, settled["aggregate_first"])
    if choices.get("merge_linears", False):
        level1 = level1.configured("merge_linears", wide=True)
    elif "merge_linears" in choices:
        level1 = level1.without(MergeLinears(wide=False))
    if not choices.get("compact_materialization", True):
        level1 = level1.configured("compact_materialization", pairs=False)
    forbidden = [settled[name] for name, on in choices.items() if not on]
    level1, level2 = level1.without(*forbidden), level2.without(*forbidden)
    extra = [settled[name] for name, on in choices.items() if on and settled[name] not in (*level1, *level2)]
    return Recipe(level1.plus(*extra), level2, verify)


MARGIN = 0.1
"""By how much an alternative must be predicted to beat the first one: predictions are no better than that."""

WORTH = 1e-3
"""Seconds a call that make a choice worth measuring the machine for."""

GPU_WORTH = 2e-5
"""The same on a GPU, whose calls are shorter."""

_numbers = itertools.count()


@dataclass
class Variants:
    """The variants of one program for one set of gradients, compiled down to plans, or read from the plan cache, when they are first
    considered.

    ``recipes`` maps the variants' names to what makes them; ``key`` is under which graphs keep their choice. ``origins`` says of
    variants that no recipe made where they come from.
    """

    program: Program
    wrt: Sequence[str]
    recipes: Mapping[str, Recipe]
    saving: Saving | None = None
    compiled: dict[str, Compilation] = field(default_factory=dict)
    parsed: dict[str, Planned] = field(default_factory=dict)
    has_chosen: bool = False
    key: str = field(default_factory=lambda: f"variant of program {next(_numbers)}")
    origins: dict[str, str] = field(default_factory=dict)
    costed: dict[Rates, LinearCosts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        TRACES.debug("with gradients of %s:\n%s", ", ".join(self.wrt) or "nothing", self.program)

    def compilation(self, name: str) -> Compilation:
        if name not in self.compiled:
            self.compiled[name] = compile_program(self.program, self.wrt, self.recipes[name], self.saving)
        return self.compiled[name]

    def adopt(self, name: str, compilation: Compilation, origin: str) -> None:
        """Adds a variant that is compiled already. It is no alternative for the cost model."""
        self.compiled[name] = compilation
        self.origins[name] = origin

    @property
    def is_known(self) -> bool:
        """Whether the variants have been compiled, in this process or before."""
        return "_texts" in self.__dict__ or bool(self.compiled) or plan_cache.is_stored(self.stored_key)

    @functools.cached_property
    def stored_key(self) -> str:
        """The name of the entry of the plan cache."""
        return plan_cache.key_of(self.program, self.wrt, self.recipes, self.saving)

    @functools.cached_property
    def _texts(self) -> plan_cache.Texts:
        def compile() -> dict[str, Compilation]:
            return {name: self.compilation(name) for name in self.recipes}

        return plan_cache.stored(self.stored_key, self.recipes, compile)

    def planned(self, name: str) -> Planned:
        """A variant as far as it is needed to run it."""
        if name in self.compiled:
            return self.compiled[name].planned
        if name not in self.parsed:
            try:
                planned = plan_cache.from_texts(self.program.name, self._texts[name])
                self.parsed[name] = replace(planned, program=self.program)
            except (ValueError, TypeError, KeyError):  # stored by a broken process: what it says is worth nothing
                return self.compilation(name).planned
            if name in self.compiled:  # just now, to be stored
                del self.parsed[name]
                return self.compiled[name].planned
        return self.parsed[name]

    def names(self) -> list[str]:
        """The variants that differ: where two recipes give the same plans, the first."""
        return self._names

    @functools.cached_property
    def _names(self) -> list[str]:
        texts: dict[str, str] = {}
        for name, text in self._texts.items():
            texts.setdefault("\n".join(text["plans"]), name)
        return list(texts.values())

    def costs(self, counts: Counts, rates: Rates) -> dict[str, float]:
        """Predicted seconds, forward and backward together."""
        found = self.costed.get(rates)
        if found is None:
            formulas = {name: united(map(plan_formula, self.planned(name).plans)) for name in self.names()}
            found = self.costed[rates] = LinearCosts(formulas, rates)
        return found.seconds(counts)

    def choose(self, counts: Counts, device: torch.device = CPU) -> str:
        """The best variant on this machine, or on a GPU of it. The first choice is kept in the plan cache, for graphs of the same counts.

        Measuring the machine takes a while: it is put off while the variants are, at typical rates, apart by less than :data:`WORTH`.
        """
        names = self.names()
        if len(names) == 1:
            return names[0]
        if self.has_chosen:
            return self.best(counts, self._rates(counts, device))
        self.has_chosen = True

        def choose() -> str:
            return self.best(counts, self._rates(counts, device))

        chosen = plan_cache.stored_choice(self.stored_key, counts, rates_key(device), choose)
        LOG.info("%s: %s is chosen of %s", self.program.name, chosen, "; ".join(names))
        return chosen if chosen in names else choose()

    def _rates(self, counts: Counts, device: torch.device) -> Rates:
        """The device's rates, or typical ones where the difference is not worth measuring it, or it cannot be measured now."""
        known = known_rates(device)
        if known is not None:
            return known
        typical = typical_rates(device)
        costs = self.costs(counts, typical).values()
        worth = WORTH if device.type == "cpu" else GPU_WORTH
        if max(costs) - min(costs) < worth or (device.type != "cpu" and torch.cuda.is_current_stream_capturing()):
            return typical
        return machine_rates(device)

    def best(self, counts: Counts, rates: Rates) -> str:
        """The variant that is predicted to be the fastest; one of the later ones only if it promises :data:`MARGIN`."""
        costs = self.costs(counts, rates)
        LOG.debug("%s is predicted to take %s", self.program.name, costs)
        first = next(iter(costs))
        fastest = min(costs, key=costs.__getitem__)
        return fastest if costs[fastest] < (1 - MARGIN) * costs[first] else first


def recipes_for(choices: Mapping[str, bool], *, verify: bool = False) -> dict[str, Recipe]:
    """The recipes that are left to choose from when ``choices`` are settled, by the alternative passes that they run."""
    found: dict[str, Recipe] = {}
    for alternative in ALTERNATIVES:
        merged = {**alternative, **choices}
        if any(merged[name] != on for name, on in alternative.items()) and not set(alternative) <= set(choices):
            continue  # another alternative agrees with the choices
        named = ",".join(name for name in alternative if merged[name]) or "plain"
        found.setdefault(named, recipe_of(merged, verify=verify))
    return found
