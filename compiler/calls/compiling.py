"""``columba.compile``: from a function or a module to one that runs compiled."""

from __future__ import annotations

import copyreg
import functools
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from columba.calls.shortcut import MISSED, Shortcut, shortcut_to
from columba.frontend import Bound, Trace, TraceError, hooks, is_tracing, trace
from columba.gradient.distinct import shares_memory
from columba.gradient.saving import Saving
from columba.passes.recipes import Recipe
from columba.runtime.build import BuildError, CompilerNotFound
from columba.runtime.dtypes import ir_dtype
from columba.runtime.graphs.graph import Graph
from columba.runtime.graphs.sorts import start_building_sorts
from columba.runtime.modes import without_transforms
from columba.runtime.program import Runnable
from columba.runtime.reference import evaluate
from columba.selection.variants import Variants, parse_choices, recipes_for
from columba.tuning.lookup import Recorded
from columba.tuning.records import RecordsError

BACKENDS = ("auto", "cpp", "triton", "torch")

MOST_TRACES = 64
"""Traces that a function, or a module, keeps: those used last. A Python argument that never repeats would make them grow for ever."""

MANY_TRACES = 16
"""Traces after which a warning says what keeps changing."""

FALLING_BACK = ' Falling back to backend="torch", which is slower.'

_VariantsKey = tuple[tuple[str, ...], tuple[int, ...] | None]
"""The inputs that want gradients, and, where memory is limited, the rows of the graph's spaces."""

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Options:
    """What ``columba.compile`` was asked for."""

    backend: str = "auto"
    passes: str = ""
    memory_budget: int | None = None
    recipe: Recipe | None = None
    autotune: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"unknown backend {self.backend!r}; one of {', '.join(BACKENDS)}")
        if self.memory_budget is not None and self.memory_budget < 0:
            raise ValueError(f"memory_budget must not be negative, got {self.memory_budget}")
        if self.passes and self.recipe is not None:
            raise ValueError("give passes or a recipe, not both: a recipe lists all passes")
        if self.autotune and not self.is_open:
            raise ValueError("autotune=True chooses what runs: give it without passes, recipe and memory_budget")
        parse_choices(self.passes)

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


@overload
def compile(
    target: M,
    *,
    backend: str = ...,
    passes: str = ...,
    memory_budget: int | None = ...,
    recipe: Recipe | None = ...,
    autotune: bool = ...,
) -> M: ...
@overload
def compile(
    target: F,
    *,
    backend: str = ...,
    passes: str = ...,
    memory_budget: int | None = ...,
    recipe: Recipe | None = ...,
    autotune: bool = ...,
) -> F: ...
@overload
def compile(
    target: None = ...,
    *,
    backend: str = ...,
    passes: str = ...,
    memory_budget: int | None = ...,
    recipe: Recipe | None = ...,
    autotune: bool = ...,
) -> Callable[[F], F]: ...


def compile(
    target: Any = None,
    *,
    backend: str = "auto",
    passes: str = "",
    memory_budget: int | None = None,
    recipe: Recipe | None = None,
    autotune: bool = False,
) -> Any:
    """Compiles a function, a method, a module class, or a module, written in Columba's language.

    Args:
        target: what to compile. A function or ``forward`` method (as a decorator) takes a :class:`columba.Graph` (or the tensors that
            a shipped layer builds one from) beside tensors. A module *class* gets a compiled ``forward``. A module *instance* is
            returned as a compiled module that shares parameters, buffers and submodules with the original: same ``state_dict``,
            same ``train()``/``eval()`` state; the original stays as it is. Left out, the call returns a decorator.
        backend: ``"cpp"``: generated C++ kernels, for tensors on the CPU. ``"triton"``: generated Triton kernels, for tensors on a GPU (on
            the CPU they run in Triton's interpreter, for debugging). ``"torch"``: the traced program run by PyTorch, operation by
            operation. ``"auto"``: ``cpp`` where it can run; where it cannot (no C++ compiler, a dtype or a device it has no kernels
            for) ``torch``, with a warning that says why.
        passes: passes to force and to forbid, as in ``"aggregate_first,-reorder_linear"``. What is left open is chosen by the cost model,
            for each graph: whether to aggregate before the products, and whether to compute once for each (node, relation) pair.
        memory_budget: the most bytes that the forward pass may save for the backward one beside inputs and results; what does not fit is
            computed again. None: whatever is fastest.
        recipe: instead of ``passes``, all passes in order (:class:`columba.passes.recipes.Recipe`).
        autotune: where no tuning record exists for a program and graphs of this size, candidates are measured at the first call, for about
            half a minute, and the winner is recorded (see :func:`columba.tune`).

    What was tuned before on this machine (``columba tune``) is used, in place of the cost model's choice, unless ``passes``, a
    ``recipe`` or a ``memory_budget`` is given.

    The target is traced on its first call, and again when something that the trace depended on has changed: feature shapes, dtypes,
    training mode, attributes that were read. New graphs do not retrace. See ``docs/language.md`` for what can be traced.

    Raises:
        columba.TraceError: at the first call, where the target does something that cannot be compiled; names the line.

    >>> import torch, columba
    >>> @columba.compile
    ... def neighbour_sum(g, h):
    ...     return g.edges.sum(g.edges.src(h))
    >>> g = columba.Graph(torch.tensor([[0, 1, 2], [1, 2, 2]]))
    >>> neighbour_sum(g, torch.tensor([[1.0], [2.0], [4.0]])).tolist()
    [[0.0], [1.0], [6.0]]
    """
    options = Options(backend, passes, memory_budget, recipe, autotune)
    if target is None:
        return functools.partial(
            compile, backend=backend, passes=passes, memory_budget=memory_budget, recipe=recipe, autotune=autotune
        )
    if isinstance(target, nn.Module):
        return _compiled_module(target, options)
    if isinstance(target, type):
        if not issubclass(target, nn.Module):
            raise TypeError(
                f"columba.compile takes functions, methods, and nn.Module classes or instances, not the class {target.__name__}"
            )
        forward = CompiledFunction(getattr(target.forward, "fn", target.forward), options)
        forward.__set_name__(target, "forward")
        target.forward = forward  # type: ignore[method-assign, assignment]
        return target
    if isinstance(target, CompiledFunction):
        return CompiledFunction(target.fn, options)
    if callable(target):
        return CompiledFunction(target, options)
    raise TypeError(
        f"columba.compile takes functions, methods, and nn.Module classes or instances, not {type(target).__name__}"
    )


class CompiledFunction:
    """A function, or a method of a module, that runs compiled. Call it as the original, which is ``fn``.

    Pickled as functions are, by the name that it has taken over from ``fn``; where another object has that name (``fast =
    columba.compile(f)``, a bound method), as ``fn`` and the options. What was traced and built is never pickled.
    """

    def __init__(self, fn: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.options = options
        self.is_method = False
        self._reset()

    def _reset(self) -> None:
        self._own: list[_Specialization] = []
        self._of_modules: weakref.WeakKeyDictionary[Any, list[_Specialization]] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()

    def __set_name__(self, owner: type, name: str) -> None:
        self.is_method = True
        if not _has_its_name(self):  # an inherited forward that is compiled for a subclass is found there
            self.__module__, self.__qualname__ = owner.__module__, f"{owner.__qualname__}.{name}"

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else types.MethodType(self, owner)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__qualname__ if _has_its_name(self) else super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_own", "_of_modules", "_lock", "fn", "__wrapped__")
        # A bound method is pickled as "its name, looked up on the object", which by then is this very function.
        parts = (self.fn.__func__, self.fn.__self__) if isinstance(self.fn, types.MethodType) else (self.fn,)
        return {**{k: v for k, v in self.__dict__.items() if k not in left_out}, "fn": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        parts = state["fn"]
        self.fn = self.__wrapped__ = types.MethodType(*parts) if len(parts) == 2 else parts[0]
        self._reset()

    def __repr__(self) -> str:
        return f"<columba.compile({getattr(self.fn, '__qualname__', self.fn)}), backend={self.options.backend!r}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # torch.compile would trace what traces, and look into what is kept
            return torch._dynamo.disable(self.__call__)(*args, **kwargs)  # type: ignore[no-untyped-call]
        if is_tracing():  # part of a larger compiled function
            return self.current()(*args, **kwargs)
        owner, rest = self._split(args)
        for known in self._own if owner is None else self._of_modules.get(owner, ()):
            shortcut = known.shortcut
            if shortcut is not None:
                result = shortcut(owner, rest, kwargs)
                if result is not MISSED:
                    return result
        with hooks.meeting() as met:
            try:
                specialization, bound = self.specialize(*args, **kwargs)
            except Exception:
                if not met:
                    raise
                return self._first_of_hooks(None, met, args, kwargs)
        if unknown := hooks.unsettled(specialization.trace.phases):
            return self._first_of_hooks((specialization, bound), unknown, args, kwargs)
        return specialization(bound, owner)

    def _first_of_hooks(
        self,
        found: tuple[_Specialization, Bound] | None,
        met: list[hooks.Met],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The call as it is, not compiled: shows which hooks of inner modules return something, and so belong to the program."""
        with hooks.noting():
            result = self.current()(*args, **kwargs)
        hooks.settle(met)
        if found is not None:
            found[0].trace.check_unchanged(found[1])
        self.specialize(*args, **kwargs)  # what cannot be compiled is an error at this call, not at the next
        return result

    def specialize(self, *args: Any, **kwargs: Any) -> tuple[_Specialization, Bound]:
        """The specialization that a call with these arguments runs, traced now if there is none yet, and the call bound to it."""
        owner, rest = self._split(args)
        with self._lock:
            known = self._own if owner is None else self._of_modules.setdefault(owner, [])
            for n, candidate in enumerate(known):
                bound = candidate.trace.match(rest, kwargs)
                if bound is not None:
                    if n:
                        known.insert(0, known.pop(n))
                    return candidate, bound
            fn = self.current() if owner is None else types.MethodType(self.current(), owner)
            for attempt in range(
                2
            ):  # in the second run there is what the first only sets up: a cache, a module that is built late
                with without_transforms():  # a trace serves calls outside of them too
                    made = _Specialization(trace(fn, owner, rest, kwargs, self.following(owner)), self.options)
                bound = made.trace.match(rest, kwargs)
                if bound is not None:
                    break
                if attempt:
                    raise TraceError(
                        f"{_name_of(self)} changes, while it runs, something that its own result depends on: "
                        f"{made.trace.difference(rest, kwargs)}. That would happen once, where it is traced, and not at every call; do it "
                        "outside the compiled function"
                    )
            assert bound is not None
            if len(known) == MANY_TRACES:
                _warn_many_traces(self, known[0].trace.difference(rest, kwargs))
            known.insert(0, made)
            del known[MOST_TRACES:]
            return made, bound

    def current(self) -> Callable[..., Any]:
        """The function as it is to be traced now."""
        return self.fn

    def following(self, owner: nn.Module | None) -> tuple[type, nn.Module | None] | None:
        """For a compiled instance: the class whose ``forward`` counts, and the module that it was made of."""
        return None

    def _split(self, args: tuple[Any, ...]) -> tuple[nn.Module | None, tuple[Any, ...]]:
        """The module whose method this is, if any, and the remaining arguments."""
        if self.is_method and args and isinstance(args[0], nn.Module):
            return args[0], args[1:]
        return None, args


def _has_its_name(function: CompiledFunction) -> bool:
    """Whether the function's module and qualified name lead to it, so that another process finds it by them."""
    found: Any = sys.modules.get(function.__module__)
    for part in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is function


class _Specialization:
    """One trace, and what was compiled of it: for each set of inputs that want gradients, the variants that graphs chose."""

    def __init__(self, traced: Trace, options: Options) -> None:
        self.trace = traced
        self.options = options
        self.variants: dict[_VariantsKey, Variants] = {}
        self.runnables: dict[tuple[_VariantsKey, str, torch.dtype, str], Runnable] = {}
        self.recorded: dict[tuple[str, str], Recorded] = {}
        self.lock = threading.RLock()
        self.shortcut: Shortcut | None = None
        self.patience = _Patience()
        self.is_unbuildable = False

    def __call__(self, bound: Bound, owner: nn.Module | None) -> Any:
        backend = self._backend(bound.graph, bound.inputs)
        runnable = None if backend == "torch" else self._runnable(bound.graph, bound.inputs, backend)
        if runnable is None:
            results = evaluate(self.trace.program, bound.inputs, bound.graph.structure)
            shared = shares_memory(self.trace.program)
            return self.trace.rebuild(bound, [x.clone() if s else x for x, s in zip(results, shared, strict=True)])
        results = runnable(bound.inputs, bound.graph)
        if self.patience.is_over(bound.graph) and runnable.planned.results:
            places = runnable.planned.places
            self.shortcut = shortcut_to(self.trace, bound, owner, runnable.on(bound.graph), places)
        return self.trace.rebuild(bound, results)

    def _runnable(self, graph: Graph, inputs: Sequence[Tensor], backend: str) -> Runnable | None:
        """What runs the call; None where the C++ backend was not asked for by name, and there is no compiler, or it failed."""
        if self.is_unbuildable and self.options.backend == "auto":
            return None
        try:
            return self.runnable(graph, inputs, backend)
        except (CompilerNotFound, BuildError) as e:
            if self.options.backend != "auto":
                raise
            self.is_unbuildable = isinstance(e, BuildError)  # which takes long to find out
            _warn_once(f"columba: {e}{FALLING_BACK}")
            return None

    def _backend(self, graph: Graph, inputs: Sequence[Tensor]) -> str:
        """The backend that runs this call; RuntimeError where the one asked for cannot."""
        if self.options.backend in ("torch", "triton"):
            return self.options.backend
        obstacle = _obstacle(graph, inputs)
        if obstacle is None:
            return "cpp"
        if self.options.backend == "cpp":
            raise RuntimeError(f'backend="cpp" {obstacle}; use backend="torch" (or "auto") for such inputs')
        _warn_once(f'columba: backend="cpp" {obstacle}.{FALLING_BACK}')
        return "torch"

    def runnable(self, graph: Graph, inputs: Sequence[Tensor], backend: str = "cpp") -> Runnable:
        """The kernels for these inputs' gradients that are best for this graph, built now if they are not yet."""
        with self.lock:
            key, variants = self._variants(graph, inputs)
            if backend == "cpp" and not variants.is_known:
                start_building_sorts()  # the graph will need them
            name = self.choice(graph, variants, backend)
            found = (key, name, graph.index_dtype, backend)
            if found not in self.runnables:
                self.runnables[found] = Runnable(variants.planned(name), ir_dtype(graph.index_dtype), backend)
            return self.runnables[found]

    def explain(self, graph: Graph, inputs: Sequence[Tensor]) -> tuple[str, Variants]:
        """The name of the variant that this call runs, and all variants."""
        with self.lock:
            _, variants = self._variants(graph, inputs)
            backend = "triton" if self.options.backend == "triton" else "cpp"
            return self.choice(graph, variants, backend), variants

    def variants_for(self, graph: Graph, inputs: Sequence[Tensor]) -> Variants:
        """All variants for these inputs' gradients."""
        with self.lock:
            return self._variants(graph, inputs)[1]

    def choice(self, graph: Graph, variants: Variants, backend: str) -> str:
        """The variant for a graph, which the graph remembers."""
        chosen: str = graph.keep(f"{variants.key} {backend}", lambda: self._choose(graph, variants, backend))
        return chosen

    def _choose(self, graph: Graph, variants: Variants, backend: str) -> str:
        """What was tuned for graphs of this size; else the only variant, or the one that the cost model finds cheapest."""
        if self.options.is_open:
            recorded = self.recorded.setdefault((variants.key, backend), Recorded(variants, backend))
            name = recorded.choice(graph)
            if name is None and self.options.autotune:
                from columba.tuning.search import tune_variants  # which most processes never need

                try:
                    tune_variants(variants, graph, backend)
                except RecordsError as e:
                    _warn_once(f"columba: {e}; nothing is tuned")
                recorded.forget()
                name = recorded.choice(graph)
            if name is not None:
                return name
        names = variants.names()
        return names[0] if len(names) == 1 else variants.choose(graph.counts())

    def _variants(self, graph: Graph, inputs: Sequence[Tensor]) -> tuple[_VariantsKey, Variants]:
        program = self.trace.program
        grad = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        wrt = tuple(i.name for i, x in zip(program.inputs, inputs, strict=True) if grad and x.requires_grad)
        budget = self.options.memory_budget
        sizes = None if budget is None or not wrt else tuple(graph.counts().values())
        key = (wrt, sizes)
        if key not in self.variants:
            saving = None if sizes is None else Saving(graph.counts(), budget)
            self.variants[key] = Variants(program, wrt, self.options.recipes, saving)
        return key, self.variants[key]


class _Patience:
    """Says when a shortcut is worth making: when a graph comes back, and, after each shortcut that later missed, more rarely."""

    def __init__(self) -> None:
        self.graph: weakref.ref[Graph] | None = None
        self.calls, self.wait = 0, 1

    def is_over(self, graph: Graph) -> bool:
        returns = self.graph is not None and self.graph() is graph
        self.graph = weakref.ref(graph)
        self.calls += 1
        if not returns or self.calls <= self.wait:
            return False
        self.calls, self.wait = 0, min(2 * self.wait, 256)
        return True


def _obstacle(graph: Graph, inputs: Sequence[Tensor]) -> str | None:
    """Why the C++ backend cannot run on these inputs, if so."""
    for device in (graph.device, *(x.device for x in inputs)):
        if device.type != "cpu":
            return f"runs on CPU tensors, not on {device}"
    for x in inputs:
        if x.dtype is torch.float16:
            return f"has no kernels for {x.dtype}"
    return None


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=5)


def _name_of(function: CompiledFunction) -> str:
    name: str = getattr(function.fn, "__qualname__", str(function.fn))
    return name


def _warn_many_traces(function: CompiledFunction, difference: str) -> None:
    _warn_once(
        f"columba: {_name_of(function)} has been traced {MANY_TRACES} times, and is traced again because {difference}. Each trace is "
        "compiled, which takes far longer than a call; keep what changes out of the compiled function, or pass it as a tensor."
    )


# ------------------------------------------------------------------------------------------------ modules


class CompiledModule:
    """Mixed into the class of a compiled instance; ``original_type`` is the class it was made from."""

    original_type: type[nn.Module]
    options: Options

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the original class says, but for the class itself, which no name leads to."""
        reduced = super().__reduce_ex__(protocol)
        if isinstance(reduced, str):
            return reduced
        make, args, *rest = reduced
        return _restore, (self.options, *map(self._of_original, (make, *args))), *rest

    def _of_original(self, part: Any) -> Any:
        """The original class for the compiled one, and its class methods."""
        if part is type(self):
            return self.original_type
        bound = isinstance(part, types.MethodType) and part.__self__ is type(self)
        return types.MethodType(part.__func__, self.original_type) if bound else part


_originals: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()
"""The module that each compiled one was made of."""


class _Forward(CompiledFunction):
    """``forward`` of a compiled instance: what the original's class has, as it is at each call."""

    def __init__(self, kind: type[nn.Module], options: Options) -> None:
        self.kind = kind
        super().__init__(self.current(), options)

    def current(self) -> Callable[..., Any]:
        forward: Any = self.kind.forward
        return forward.current() if isinstance(forward, CompiledFunction) else forward  # type: ignore[no-any-return]

    def following(self, owner: nn.Module | None) -> tuple[type, nn.Module | None] | None:
        known = None if owner is None else _originals.get(owner)
        return self.kind, None if known is None else known()

    def specialize(self, *args: Any, **kwargs: Any) -> tuple[_Specialization, Bound]:
        owner, _ = self._split(args)
        known = None if owner is None else _originals.get(owner)
        original = None if known is None else known()
        if original is None or _original_type(original) is self.kind:
            return super().specialize(*args, **kwargs)
        assert owner is not None
        kind: Any = _original_type(original)
        owner.__class__ = _compiled_type(kind, self.options)  # as the original's was swapped
        return type(owner).forward.specialize(*args, **kwargs)  # type: ignore[attr-defined, no-any-return]


def _original_type(module: nn.Module) -> type[nn.Module]:
    return module.original_type if isinstance(module, CompiledModule) else type(module)


@functools.cache
def _compiled_type(original: Any, options: Options) -> type[nn.Module]:
    members = {
        "original_type": original,
        "options": options,
        "forward": _Forward(original, options),
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    return type(original.__name__, (CompiledModule, original), members)


def _compiled_module(module: M, options: Options) -> M:
    """A module of a compiled class that shares the original's state."""
    if "forward" in module.__dict__:
        raise TypeError(
            f"columba.compile: this {type(module).__name__} has a forward of its own, set on the instance; compile the class, or remove it"
        )
    compiled = copyreg.__newobj__(_compiled_type(_original_type(module), options))  # type: ignore[attr-defined, arg-type]
    compiled.__dict__ = module.__dict__
    _originals[compiled] = weakref.ref(module)
    return compiled


def _restore(options: Options, make: Callable[..., nn.Module], *args: Any) -> nn.Module:
    """A compiled module for pickle and copy to fill; ``make(*args)`` gives one of the original class."""
    return _compiled_module(make(*args), options)
