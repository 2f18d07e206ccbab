"""The functions of emitted Triton modules, and how they are compiled and launched."""

from __future__ import annotations

import functools
import hashlib
import inspect
import linecache
import threading
from types import ModuleType
from typing import Any

import torch

from columba.codegen.triton import Launch, Variant
from columba.ir.types import DType

LEAST_VERSION = (3, 5)
"""Older versions of Triton fail to compile small products."""


class TritonNotFound(RuntimeError):
    """Triton is not installed, or is too old."""


def version() -> str | None:
    """Triton's, by whatever name its distribution goes (``pytorch-triton-rocm``, say); None where it cannot be imported."""
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def missing() -> str | None:
    """What has to be installed for Triton kernels to run, and how, to follow "needs"; None if it is there."""
    try:
        import triton
    except ImportError as e:
        return f"Triton, which cannot be imported ({e}); pip install 'columba[triton]'"
    if tuple(map(int, triton.__version__.split(".")[:2])) < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        return f"Triton {least} or newer, this is {triton.__version__}; pip install 'triton>={least}'"
    return None


def launch_options(variant: Variant, *, nvidia: bool, rounded: bool) -> dict[str, int | bool]:
    """How Triton compiles a variant, for an NVIDIA GPU or for another one. ``rounded``: products are, before they are added.

    AMD's GPUs have 64 KiB of shared memory, which two stages of loads under way fit, and copy to it through registers: more hide little.
    """
    options: dict[str, int | bool] = {
        "num_warps": variant.warps,
        "num_stages": variant.stages if nvidia else min(variant.stages, 2),
        "enable_fp_fusion": not rounded,
    }
    return options | {"maxnreg": variant.registers} if nvidia else options


def is_tf32_allowed() -> bool:
    """Whether PyTorch lets products of float32 round their operands to TF32 on a GPU, by whichever of its interfaces that was said."""
    return bool(_precision_of_products() == "tf32")


def _precision_of_products() -> str:
    return str(torch.backends.cuda.matmul.fp32_precision)


if hasattr(torch._C, "_get_fp32_precision_getter"):  # what the property asks, at a sixth of the time, in every call
    _precision_of_products = functools.partial(torch._C._get_fp32_precision_getter, "cuda", "matmul")


def settled_precision(asked: str | None) -> str:
    """How products of float32 are computed: as asked, by a name in :data:`columba.runtime.backends.PRECISIONS`; None: as PyTorch's
    settings say."""
    return asked or ("tf32" if is_tf32_allowed() else "ieee")


def dot_constants(
    launch: Launch, *, interpreted: bool, precision: str | None = None, nvidia: bool = True
) -> dict[str, Any]:
    """How a matrix product multiplies operands of float32: as :func:`settled_precision` says.

    AMD's matrix units multiply float32 as it is, so that there is nothing to make up of three products there. The interpreter holds
    bfloat16 as bits, which it cannot multiply; operands, rounded before, are given to it as float32.
    """
    if launch.dot is None:
        return {}
    import triton.language as tl

    settled = settled_precision(precision) if launch.dot is DType.F32 else "ieee"
    if settled == "tf32x3" and not nvidia:
        settled = "ieee"
    types = {DType.F64: tl.float64, DType.F32: tl.float32, DType.BF16: tl.bfloat16, DType.F16: tl.float16}
    operand = tl.float32 if interpreted and launch.dot is DType.BF16 else types[launch.dot]
    return {"PRECISION": settled, "OPERAND": operand}


interpreter_lock = threading.RLock()
"""Triton's interpreter patches ``triton.language`` while it runs: one thread at a time."""

_loaded: dict[tuple[str, bool], ModuleType] = {}


def load_functions(source: str, *, interpreted: bool) -> ModuleType:
    """The module of emitted ``source``, its functions compiled for a GPU on their first launch, or interpreted."""
    key = (source, interpreted)
    if key not in _loaded:
        with interpreter_lock:
            if key not in _loaded:
                _loaded[key] = _import(source, interpreted)
    return _loaded[key]


def _import(source: str, interpreted: bool) -> ModuleType:
    lack = missing()
    if lack is not None:
        raise TritonNotFound(f"backend='triton' needs {lack}")
    from triton import knobs

    _parse_one_at_a_time()
    name = f"columba_kernels_{hashlib.sha256(source.encode()).hexdigest()[:32]}"
    file = f"<{name}>"
    # Triton reads the source of functions again, from where tracebacks find it, too; no file on a disk is trusted.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = ModuleType(name)
    with knobs.runtime.scope():
        knobs.runtime.interpret = interpreted
        exec(compile(source, file, "exec", dont_inherit=True), vars(module))
    if interpreted:
        _simplify_helpers(module)
    return module


_parsing = threading.RLock()


def _parse_one_at_a_time() -> None:
    """Triton parses the source of what it compiles, in several threads of ours. CPython counts how deep a tree is in one place for all
    threads, so that one of them fails where another comes between ("AST constructor recursion depth mismatch", seen in 3.11)."""
    from triton.runtime.jit import JITFunction

    parse = JITFunction.parse
    if hasattr(parse, "__wrapped__"):
        return

    @functools.wraps(parse)
    def locked(self: Any) -> Any:
        with _parsing:
            return parse(self)

    JITFunction.parse = locked


def _simplify_helpers(module: ModuleType) -> None:
    """Functions that kernels call become plain Python: the interpreter would patch its language again at every call of one."""
    for name, function in list(vars(module).items()):
        if hasattr(function, "rewrite") and "_ptr" not in "".join(inspect.signature(function.fn).parameters):
            setattr(module, name, function.rewrite())
