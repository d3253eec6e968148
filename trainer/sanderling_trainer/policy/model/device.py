"""Where networks and language models run: `--device auto|cpu|cuda`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from sanderling.errors import SanderlingError

if TYPE_CHECKING:
    import torch


class Device(StrEnum):
    """`auto` is the GPU where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class DeviceError(SanderlingError):
    """The device asked for is not there."""


def torch_device(name: str = Device.auto) -> torch.device:
    """Return torch's device; raise `DeviceError` for cuda where torch finds no GPU."""
    import torch  # here, so that commands can be listed without it

    if name == Device.cpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if name == Device.cuda:
        raise DeviceError(
            f"--device: expected a GPU that torch {torch.__version__} can use, found none; install"
            " a torch with CUDA and its driver, or take --device cpu"
        )
    return torch.device("cpu")
