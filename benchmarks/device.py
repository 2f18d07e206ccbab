"""What differs between a CPU and a GPU in measuring: waiting, memory, limits, and what the machine is."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from columba.runtime.build import cpu
from columba.runtime.triton.functions import version

DEVICES = ("cpu", "cuda")
"""As PyTorch calls them: ``cuda`` is a ROCm device, too, where PyTorch was built for one."""


class NoDevice(RuntimeError):
    """There is no such device on this machine."""


def require(device: str) -> None:
    """Nothing, if PyTorch can use the device.

    Raises:
        NoDevice: it cannot; the message says what there is.
    """
    if device == "cpu" or torch.cuda.is_available():
        return
    built = (
        f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"ROCm {torch.version.hip}"
        if torch.version.hip
        else "no GPU"
    )
    raise NoDevice(f"no GPU: PyTorch {torch.__version__}, which is built for {built}, finds no CUDA or ROCm device")


def wait_for(device: str) -> None:
    """Until the device has done all that it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def backend_of(device: str) -> str:
    """Columba's backend there."""
    return "cpp" if device == "cpu" else "triton"


def growth(step: Callable[[], object]) -> int:
    """How many bytes of GPU memory tensors take at most during a step, beyond those that there are before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def environment(device: str) -> dict[str, Any]:
    """The device, its driver, versions and the date, for a record."""
    require(device)
    about: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device,
        "processor": cpu().splitlines()[0].partition(":")[2].strip() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version() or "none",
    }
    if device != "cpu":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        about |= {
            "gpu": properties.name,
            "architecture": architecture(),
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
            "driver": driver(),
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
        }
    return about


def machine(device: str) -> str:
    """The same in a line."""
    about = environment(device)
    versions = f"PyTorch {about['torch']}, Python {about['python']}"
    if device == "cpu":
        return f"{about['processor']}, {about['threads']} threads, {versions}"
    runtime = f"CUDA {about['cuda']}" if about["cuda"] else f"ROCm {about['hip']}"
    return f"{about['gpu']} ({about['architecture']}), driver {about['driver']}, {runtime}, Triton {about['triton']}, {versions}"


def architecture() -> str:
    """Of the current GPU: as in sm_90 or gfx942."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    if torch.version.hip:
        return properties.gcnArchName.partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def driver() -> str:
    """The version of the GPU's driver, or that it is not known."""
    if torch.version.hip:
        file = Path("/sys/module/amdgpu/version")
        return file.read_text().strip() if file.exists() else "unknown"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    asked = subprocess.run(
        [tool, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return asked.stdout.splitlines()[0].strip() if asked.returncode == 0 and asked.stdout.strip() else "unknown"
