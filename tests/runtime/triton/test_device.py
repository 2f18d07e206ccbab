"""What only a GPU can show, by ``--device=cuda``: see ``device_checks.py``."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import device_checks
from triton_matrix import PROGRAMS, Device


@pytest.fixture(autouse=True)
def _only_on_a_gpu(device: Device) -> None:
    if not device.is_gpu:
        pytest.skip("runs on a GPU: --device=cuda")


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_synchronization(program: str, device: Device) -> None:
    device_checks.check_no_synchronization(program, device)


@pytest.mark.parametrize("program", PROGRAMS)
def test_cuda_graphs(program: str, device: Device) -> None:
    device_checks.check_cuda_graphs(program, device)


@pytest.mark.parametrize("program", PROGRAMS)
def test_replays(program: str, device: Device) -> None:
    device_checks.check_replays(program, device)


def test_streams(device: Device) -> None:
    device_checks.check_streams("rgat", device)


def test_the_second_device(device: Device) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    device_checks.check_the_second_device("rgat", device)
