"""Static analysis of code objects: what Python code names, and which code is of libraries that a program does not change."""

from __future__ import annotations

import dis
import functools
import importlib.util
import re
import sys
import sysconfig
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from columba import codegen, ir, runtime
from columba.frontend import errors

_LIBRARIES = ("torch", "torch_geometric", "columba", "numpy", "builtins")
_DATA = ("argparse", "types", "collections", "configparser", "string", "optparse")
"""Modules of the standard library with classes whose objects hold what a program puts there."""

_PLACES = (
    str(Path(errors.__file__).parent.parent) + "/",
    *(str(Path(str(m.__file__)).parent) + "/" for m in (torch, runtime, ir, codegen, np)),
)
_PYG = importlib.util.find_spec("torch_geometric")
_PLACES += tuple(f"{folder}/" for folder in ((_PYG and _PYG.submodule_search_locations) or ()))
_OWN = tuple(str(Path(str(m.__file__)).parent) + "/" for m in (runtime, errors))
_LOWERINGS = str(Path(errors.__file__).parent / "pyg") + "/"
_STANDARD = tuple({sysconfig.get_path("stdlib") + "/", sysconfig.get_path("platstdlib") + "/"})
_ACCOUNTS = {
    "/torch/nn/parallel/distributed.py": "DistributedDataParallel",
    "/torch/nn/parallel/": "DataParallel",
    "/torch/distributed/fsdp/": "torch.distributed.fsdp",
}
_GENERATED = ("<frozen ", "<columba ", "<__array_function__ ", "<torch")

_MESSAGE_PASSING = re.compile(re.escape(tempfile.gettempdir()) + r".*[/\\\\][\w.]+_(propagate|edge_updater)_\w+\.py$")
"""Files that PyG writes for classes of layers, programs' own among them: how arguments go to ``message``, ``aggregate`` and ``update``."""


@dataclass(frozen=True)
class CodeNames:
    """What code names: global variables, attributes, modules that it imports, and texts that may be names of attributes."""

    variables: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    def __or__(self, other: CodeNames) -> CodeNames:
        return CodeNames(
            self.variables | other.variables,
            self.read | other.read,
            self.imports | other.imports,
            self.texts | other.texts,
        )


@functools.lru_cache(maxsize=4096)
def names_of(code: types.CodeType) -> CodeNames:
    """What this code names; not what code inside it does, which is entered for itself."""
    variables, imports = set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(str(instruction.argval))
        elif instruction.opname == "IMPORT_NAME":
            imports.add(str(instruction.argval))
    texts = {c for c in code.co_consts if isinstance(c, str) and c.isidentifier()}
    return CodeNames(frozenset(variables), frozenset(code.co_names), frozenset(imports), frozenset(texts))


@functools.lru_cache(maxsize=4096)
def start_of(code: types.CodeType) -> int:
    """The last instruction of a generator that has not started."""
    return next((i.offset for i in dis.get_instructions(code) if i.opname == "RESUME"), -1)


@functools.lru_cache(maxsize=4096)
def is_library(filename: str) -> bool:
    """Whether code of a file is PyTorch's, PyG's, NumPy's, Columba's or the standard library's."""
    if filename.startswith((*_PLACES, *_GENERATED)) or _MESSAGE_PASSING.search(filename):
        return True
    return filename.startswith(_STANDARD) and "-packages/" not in filename


@functools.lru_cache(maxsize=4096)
def is_own(filename: str) -> bool:
    """Whether code of a file is Columba's, calls no code of a user's, and is not what observes. Lowerings read modules as users do."""
    if filename.startswith(_LOWERINGS):
        return False
    return filename.startswith(_OWN) and not filename.endswith(
        ("/frontend/observe.py", "/frontend/patches.py", "/frontend/hooks.py")
    )


@functools.lru_cache(maxsize=4096)
def disables(code: types.CodeType) -> str | None:
    """What ``torch.compiler.disable`` wraps around a function has this code: ``"all"`` that is called within is disabled, or that
    ``"one"``; None: it is other code."""
    if code.co_name == "_fn" and code.co_filename.endswith("/torch/_dynamo/eval_frame.py"):
        return "all"
    return "one" if code.co_name == "nonrecursive_disable_wrapper" else None


@functools.lru_cache(maxsize=4096)
def keeps_account(filename: str) -> str | None:
    """What of PyTorch's has its code in this file, if that has to run at every call, to exchange gradients or to gather weights."""
    return next((name for folder, name in _ACCOUNTS.items() if folder in filename), None)


@functools.lru_cache(maxsize=4096)
def is_of_torch_compile(code: types.CodeType) -> bool:
    """Whether ``torch.compile`` puts this code in the place of what it is given."""
    return code.co_name == "compile_wrapper" and code.co_filename.endswith("/torch/_dynamo/eval_frame.py")


@functools.lru_cache(maxsize=4096)
def is_library_module(name: str | None, classes: bool = False) -> bool:
    """Whether a module belongs to a library; of ``classes``, PyG's, whose methods
    programs replace, and those of the standard library that only hold data, do not count."""
    root = (name or "").split(".")[0]
    if root in _LIBRARIES:
        return not (classes and root == "torch_geometric")
    return root in sys.stdlib_module_names and not (root == "__main__" or (classes and root in _DATA))
