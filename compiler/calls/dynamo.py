"""Calls of compiled functions inside of what ``torch.compile`` compiles: each becomes one operator of its graph.

Dynamo, which reads the code around, comes to :func:`call`. There it asks :func:`planned`, which it takes for a constant: the call is
specialized as any other one, for tensors that stand for Dynamo's, and a function is written that fetches what the specialization reads,
passes it to ``columba::call``, and puts together what is returned. Dynamo reads that function like the code around, so that parameters,
buffers and graphs are inputs of its own graph. What the trace depends on beside becomes a guard of Dynamo's.

Dynamo has no interface for this; what is used of its insides stands in :class:`_Frame`. Where that fails, as it may in another version of
PyTorch, or where a call cannot be an operator, the call is a graph break with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from columba.calls.flat import NotFlat
from columba.calls.region_code import RegionCode
from columba.frontend import TraceError
from columba.runtime.graphs.from_tensors import TensorGraph
from columba.runtime.graphs.graph import Graph
from columba.runtime.modes import random_states_kept, without_transforms


def call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of a compiled function, as Dynamo reads it."""
    return getattr(function.regions, planned())(args, kwargs)


def planned() -> str:
    """The attribute of ``function.regions`` that makes the call for which Dynamo asks."""
    frame = _Frame()
    function = frame.function
    try:
        with without_transforms(), random_states_kept():
            return RegionCode(frame).name
    except Exception as e:  # a mistake in the call comes up again when it runs
        kind = "" if isinstance(e, (NotFlat, TraceError)) else f"{type(e).__name__}: "
        reason = f"columba: {function!r} does not become an operator of torch.compile's graph: {kind}{e}"
        return _left_to_python(function, reason)


planned._dynamo_marked_constant = True  # type: ignore[attr-defined] # torch.compiler.assume_constant_result, which would load Dynamo


def _left_to_python(function: Any, reason: str) -> str:
    regions = function.regions
    name = f"left_{len(vars(regions))}"

    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    setattr(regions, name, torch._dynamo.disable(run, reason=reason))  # type: ignore[no-untyped-call]
    return name


# ------------------------------------------------------------------------------------------------ Dynamo's insides


class _Frame:
    """The call that Dynamo reads at the moment: its arguments, as Dynamo knows them."""

    def __init__(self) -> None:
        from torch._dynamo import guards, source, variables
        from torch._dynamo.symbolic_convert import InstructionTranslator

        self.guards, self.sources, self.variables = guards, source, variables
        self.output = InstructionTranslator.current_tx().output
        self.tx = self.output.current_tx
        variables_here = self.tx.symbolic_locals
        self.variable = self.real(variables_here["function"])
        self.function = self.variable.value
        self.args, self.kwargs = self.real(variables_here["args"]), self.real(variables_here["kwargs"])

    def real(self, variable: Any) -> Any:
        return variable.realize() if hasattr(variable, "realize") else variable

    def value(self, variable: Any, path: tuple[Any, ...], leaf: Callable[[Any, tuple[Any, ...]], Any]) -> Any:
        """What a variable stands for: ``leaf`` says it of tensors and graphs."""
        variable, v = self.real(variable), self.variables
        if isinstance(variable, v.TensorVariable):
            return leaf(variable.as_proxy().node.meta["example_value"], path)
        if isinstance(variable, v.SymNodeVariable):
            return variable.evaluate_expr(self.output)
        if isinstance(variable, (v.TupleVariable, v.ListVariable)) and variable.python_type() in (tuple, list):
            return variable.python_type()(self.value(x, (*path, n), leaf) for n, x in enumerate(variable.items))
        if isinstance(variable, v.ConstDictVariable) and variable.python_type() is dict:
            keys = [(key.vt.as_python_constant(), x) for key, x in variable.items.items()]
            return {key: self.value(x, (*path, key), leaf) for key, x in keys}
        if not isinstance(variable, v.UserDefinedObjectVariable):
            return variable.as_python_constant()
        value = variable.value
        if isinstance(value, TensorGraph):
            return leaf(self._tensor_graph(variable), path)
        if isinstance(value, Graph):
            if variable.source is None:
                raise NotFlat("a columba.Graph is made inside; make it of tensors by columba.as_graph(...), or outside")
            return leaf(value, path)
        if variable.source is None:
            raise NotFlat(f"an argument is a {type(value).__name__} that is made inside")
        self.guards.install_guard(variable.make_guard(self.guards.GuardBuilder.ID_MATCH))
        return value

    def _tensor_graph(self, variable: Any) -> TensorGraph:
        """A graph that is made inside: its tensors as they are fake, its sizes as they are."""

        def field(x: Any) -> Any:
            x = self.real(x)
            if isinstance(x, self.variables.TensorVariable):
                return x.as_proxy().node.meta["example_value"]
            if isinstance(x, self.variables.SymNodeVariable):
                return x.sym_num
            return tuple(map(field, x.items)) if isinstance(x, self.variables.TupleVariable) else x.as_python_constant()

        return TensorGraph(**{name: field(variable.var_getattr(self.tx, name)) for name in TensorGraph.FIELDS})

    def changed(self) -> dict[int, tuple[Any, str]]:
        """The objects, by identity, of which Dynamo knows that an attribute has been set, and Python does not yet; tensors do not count."""
        found: dict[int, tuple[Any, str]] = {}
        for variable, attributes in self.output.side_effects.store_attr_mutations.items():
            for name, value in attributes.items():
                if hasattr(variable, "value") and not isinstance(self.real(value), self.variables.TensorVariable):
                    found[id(variable.value)] = variable.value, name
        return found

    def guard(self, *names: str) -> None:
        """Guards that an attribute of an attribute ... of the function stays true, whatever computes it."""
        source = self.variable.source
        if source is None:
            raise NotFlat("the compiled function itself is made inside")
        for name in names:
            source = self.sources.AttrSource(source, name)
        self.guards.install_guard(source.make_guard(self.guards.GuardBuilder.CONSTANT_MATCH))
