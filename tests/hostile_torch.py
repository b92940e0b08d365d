"""What a program may have set in torch before it calls us, each as a block that puts it back."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


def setting(change: Callable[[], Any], back: Callable[[], Any]) -> Callable[[], AbstractContextManager[None]]:
    """A block in which something is set for the whole process."""
    @contextmanager
    def block() -> Iterator[None]:
        change()
        try:
            yield
        finally:
            back()
    return block


def set_mkldnn(value: bool) -> None:
    torch.backends.mkldnn.enabled = value


def set_products(value: str) -> None:
    torch.backends.fp32_precision = value


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "a default type": setting(lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
    "a default device": setting(lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    "a device around": lambda: torch.device("meta"),
    "deterministic algorithms": setting(lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False)),
    "coarse products": setting(lambda: torch.set_float32_matmul_precision("medium"), lambda: torch.set_float32_matmul_precision("highest")),
    "coarse products everywhere": setting(lambda: set_products("tf32"), lambda: set_products("none")),
    "no oneDNN": setting(lambda: set_mkldnn(False), lambda: set_mkldnn(True)),
    "plain attention": setting(lambda: torch.backends.cuda.enable_flash_sdp(False), lambda: torch.backends.cuda.enable_flash_sdp(True)),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
}
