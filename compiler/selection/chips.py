"""GPUs by name: the published figures that bound how fast a kernel can run on them.

Rates are peaks of dense arithmetic, in operations a second, as the vendors print them; where a data sheet gives rates "with sparsity" for
matrix units, half of it stands here. Products of fp16 and bf16 are those with fp32 accumulation. No measurement is among these figures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from columba.ir.types import DType

LAUNCH = 3e-6
"""Seconds between the starts of two small kernels of a stream that is kept full. An assumption, the same for all: no vendor publishes
it. CUDA graphs do better; a host that prepares each launch in Python does worse."""

STEP = 0.5e-6
"""Seconds of a step of a loop in a program: an index is read, then the row that it leads to, and what comes of it is added up. An
assumption, the same for all: about the latency of two dependent reads of memory, some of it hidden."""

HOST = 10e-6
"""Seconds of the host for a launch from Python, while the device works on those before. An assumption, the same for all; the stand-in for a
driver takes 9 to 15."""

TERA, GIGA, MEGA = 1e12, 1e9, 2**20


@dataclass(frozen=True)
class Chip:
    """A GPU.

    Attributes:
        name: as its maker writes it; ``architecture`` is what its kernels are compiled for.
        fp64, fp32: operations a second outside matrix units; ``tf32``, ``half`` (fp16 and bf16): in matrix units.
        bandwidth: bytes a second of its memory. ``memory``: its bytes.
        cache: bytes of the last cache that all processors share.
        source: the documents that print these figures.
        pattern: what PyTorch calls it: a regular expression for the whole of the name.
    """

    name: str
    architecture: str
    fp64: float
    fp32: float
    tf32: float
    half: float
    bandwidth: float
    memory: float
    cache: float
    source: str
    pattern: str
    launch: float = LAUNCH
    step: float = STEP
    host: float = HOST

    def vector_rate(self, dtype: DType) -> float:
        """Of arithmetic outside matrix units; fp16 and bf16 are computed in fp32."""
        return self.fp64 if dtype is DType.F64 else self.fp32

    def product_rate(self, dtype: DType, precision: str = "ieee") -> float:
        """Of matrix products as the kernels do them: fp64 outside matrix units, and fp32 too where ``precision`` is ``"ieee"``.

        ``"tf32x3"`` takes three products of the rate of ``"tf32"``, on AMD's chips none (see :func:`columba.compile`).
        """
        if dtype in (DType.F16, DType.BF16):
            return self.half
        rates = {"tf32": self.tf32, "tf32x3": self.fp32 if self.architecture.startswith("gfx") else self.tf32 / 3}
        return rates.get(precision, self.fp32) if dtype is DType.F32 else self.vector_rate(dtype)


CHIPS = {
    "a100": Chip(
        "A100 SXM 80 GB", "sm_80", 9.7 * TERA, 19.5 * TERA, 156 * TERA, 312 * TERA, 2039 * GIGA, 80 * GIGA, 40 * MEGA,
        "NVIDIA A100 Tensor Core GPU data sheet (A100 80GB SXM); cache: NVIDIA A100 Tensor Core GPU Architecture white paper",
        "NVIDIA A100-SXM4?-80GB",
    ),
    "h100": Chip(
        "H100 SXM", "sm_90", 34 * TERA, 67 * TERA, 494.5 * TERA, 989.5 * TERA, 3350 * GIGA, 80 * GIGA, 50 * MEGA,
        "NVIDIA H100 Tensor Core GPU data sheet (H100 SXM); cache: NVIDIA H100 Tensor Core GPU Architecture white paper",
        "NVIDIA H100 80GB HBM3",
    ),
    "h200": Chip(
        "H200 SXM", "sm_90", 34 * TERA, 67 * TERA, 494.5 * TERA, 989.5 * TERA, 4800 * GIGA, 141 * GIGA, 50 * MEGA,
        "NVIDIA H200 Tensor Core GPU data sheet (H200 SXM); cache: as H100, whose die it has",
        "NVIDIA H200",
    ),
    "b200": Chip(
        "B200", "sm_100", 40 * TERA, 80 * TERA, 1100 * TERA, 2250 * TERA, 8000 * GIGA, 180 * GIGA, 126 * MEGA,
        "NVIDIA Blackwell Architecture Technical Brief (HGX B200, one GPU); memory: NVIDIA DGX B200 data sheet, an eighth; "
        "cache: NVIDIA Blackwell Tuning Guide",
        "NVIDIA B200",
    ),
    "mi300x": Chip(
        "MI300X", "gfx942", 81.7 * TERA, 163.4 * TERA, 653.7 * TERA, 1307.4 * TERA, 5300 * GIGA, 192 * GIGA, 256 * MEGA,
        "AMD Instinct MI300X Accelerator data sheet; the cache is its Infinity Cache",
        "AMD Instinct MI300X",
    ),
    "rtx4090": Chip(
        "GeForce RTX 4090", "sm_89", 1.29 * TERA, 82.6 * TERA, 82.6 * TERA, 165.2 * TERA, 1008 * GIGA, 24 * GIGA, 72 * MEGA,
        "NVIDIA Ada GPU Architecture white paper, appendix A",
        "NVIDIA GeForce RTX 4090",
    ),
}  # fmt: skip
"""By what ``--chip`` takes."""


class UnknownChip(ValueError):
    """No chip has this name."""


def chip(name: str) -> Chip:
    """The chip called ``name``, whatever its case.

    >>> chip("H100").architecture
    'sm_90'
    """
    try:
        return CHIPS[name.lower().replace("-", "").replace(" ", "")]
    except KeyError:
        raise UnknownChip(f"no chip {name!r} is known; one of {', '.join(CHIPS)}") from None


def chip_of(name: str) -> Chip | None:
    """The chip that PyTorch calls ``name``; None where its figures are not known.

    >>> chip_of("NVIDIA H200").name
    'H200 SXM'
    """
    return next((chip for chip in CHIPS.values() if re.fullmatch(chip.pattern, name)), None)
