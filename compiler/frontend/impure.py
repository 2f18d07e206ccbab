"""Impure calls: what gives something else at every call, and is refused in a traced function, which calls it once."""

from __future__ import annotations

import builtins
import datetime
import importlib
import os
import random
import re
import sys
import time
import types
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import nn

from columba.frontend.code import is_library
from columba.frontend.errors import TraceError, fail

GET_ENVIRONMENT = type(os.environ).__getitem__.__code__
IMPORT_MODULE = importlib.import_module.__code__
CALL_MODULE = nn.Module._call_impl.__code__
RANDOM = random.__file__

_CLOCKS = tuple(
    function
    for name in (
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns", "thread_time",
        "localtime", "gmtime", "ctime", "strftime",
    )
    if (function := getattr(time, name, None)) is not None
)  # fmt: skip
_NUMBERS = (os.urandom,)
_FILES = (open, builtins.input, os.listdir, os.stat, os.getcwd)
NUMPY = (np, np.random)
"""Modules that are watched only for what draws random numbers."""

_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)

__all__ = [
    "CALL_MODULE",
    "GET_ENVIRONMENT",
    "IMPORT_MODULE",
    "NUMPY",
    "RANDOM",
    "ContextVar",
    "check_call",
    "check_read",
    "check_switch",
    "check_value",
]


def check_call(function: Any) -> None:
    """TraceError if a C function that traced code calls gives something else at every call."""
    owner = function.__self__ if isinstance(function, types.BuiltinMethodType) else None
    if isinstance(owner, _GENERATORS) or function in _NUMBERS:
        raise _random(f"{function.__name__} gives another number")
    if function in _CLOCKS:
        raise _refused(f"{function.__name__} reads a clock, {_ONCE}; pass the time as an argument")
    if isinstance(owner, type) and issubclass(owner, datetime.date) and function.__name__ in ("now", "utcnow", "today"):
        raise _refused(f"{owner.__name__}.{function.__name__} reads a clock, {_ONCE}; pass the time as an argument")
    if function in _FILES:
        raise _refused(
            f"{function.__name__} reads from outside of the program, {_ONCE}; read outside, and pass the result in"
        )
    if function is builtins.globals:
        raise _refused("globals() hides which variables the function depends on; name them")


def check_switch(function: Any) -> None:
    """TraceError if a C function, whoever calls it, changes what random numbers or kernels PyTorch takes from then on."""
    if type(getattr(function, "__self__", None)) is torch.Generator:
        if function.__name__ in _OF_SEEDS:
            raise _refused(
                f"torch.Generator.{function.__name__} is called {_ONCE}; seed, and keep states, outside of the compiled function"
            )
    elif function in _SWITCHES:
        raise _refused(
            f"{function.__name__} is called {_ONCE}, and a switch of PyTorch's would stay as it is; set it outside"
        )


_OF_SEEDS = ("manual_seed", "seed", "set_state", "initial_seed")
_SWITCHES = frozenset(
    getattr(module, name)
    for module, names in (
        (torch._C, r"_set_(deterministic|cudnn|cublas|mkldnn|onednn|float32|fp32|sdp)\w*"),
        (torch._C, r"set_(num_\w*threads|anomaly_enabled|flush_denormal)"),
        (torch._C._autograd, "_push_saved_tensors_default_hooks"),
    )
    for name in dir(module)
    if re.fullmatch(names, name)
)  # fmt: skip


def check_value(value: Any, path: str) -> None:
    """TraceError if a value that traced code reads is a generator, or one of random numbers."""
    if isinstance(value, types.GeneratorType):
        raise _refused(f"{path} is a generator, which is run through {_ONCE}; make it inside, or pass what it gives")
    owner = value.__self__ if isinstance(value, types.BuiltinMethodType) else value
    if isinstance(owner, _GENERATORS) and not (owner is not value and isinstance(owner, random.Random)):
        raise _random(f"{path} gives other numbers")


def check_read(module: types.ModuleType, name: str) -> None:
    """TraceError if traced code reads a function of ``numpy.random``."""
    if module is np.random and name in _DRAWS:
        raise _random(f"numpy.random.{name} gives other numbers")


_ONCE = "once where the function is traced, and not at every call"
_DRAWS = frozenset(
    name
    for name in dir(np.random)
    if isinstance(getattr(getattr(np.random, name), "__self__", None), np.random.RandomState) or name == "seed"
)


def _random(what: str) -> Exception:
    return _refused(
        f"{what} at every call, and a traced function runs once; draw outside, and pass the numbers in (F.dropout and nn.Dropout draw anew)"
    )


def _refused(message: str) -> TraceError:
    """A :class:`TraceError` that names the user's line, not that of the standard library's function that it calls."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return fail(message, None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}")
