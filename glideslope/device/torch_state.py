"""Torch's settings of the whole process, put aside while the models compute: what a caller has set changes no result.

A default type, a default device, deterministic algorithms, other roundings of float32 products, other kernels and autocast are
settings of a process or of a block around a call. A seed gives one picture, and a training its weights, whatever they are.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

KEPT = ("none", "ieee")  # products of float32 numbers are computed in float32
AUTOCAST_DEVICES = ("cpu", "cuda", "mps")
# What a fresh process has, but for the precision of products, of which any that keeps float32 will do.
FRESH: dict[str, Any] = {
    "dtype": torch.float32, "deterministic": False, "warns_only": False, "mkldnn": True, "mkldnn_deterministic": False, "cudnn": True,
    "cudnn_deterministic": False, "cudnn_benchmark": False, "flash": True, "memory_efficient": True, "plain_attention": True,
    "cudnn_attention": True, "half_sums": False}


class PlainTorch:
    """A block or function in which torch computes as in a fresh process; what was set before is set again behind it.

    Attributes:
        gradients: whether operations in the block are recorded for gradients.
    """

    def __init__(self, *, gradients: bool = False) -> None:
        """Nothing is set before the block begins."""
        self.gradients = gradients
        self.left: list[contextlib.ExitStack] = []

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make every call of a function such a block."""

        @functools.wraps(function)
        def plain(*args: P.args, **kwargs: P.kwargs) -> R:
            with PlainTorch(gradients=self.gradients):
                return function(*args, **kwargs)

        return plain

    def __enter__(self) -> None:
        """Put the caller's settings aside."""
        with contextlib.ExitStack() as stack:
            before = read_settings()
            if before != FRESH:
                stack.callback(apply_settings, before)
                apply_settings(FRESH)
            for products, usual in float32_products():
                if products.fp32_precision not in usual:
                    stack.callback(restore_products, products, products.fp32_precision)
                    products.fp32_precision = usual[-1]
            for device in AUTOCAST_DEVICES:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(self.gradients))
            self.left.append(stack.pop_all())

    def __exit__(self, *_: object) -> None:
        """Set again what was put aside."""
        self.left.pop().close()


def float32_products() -> tuple[tuple[Any, tuple[str, ...]], ...]:
    """Where torch keeps how it computes products of float32 numbers, and the values that change nothing."""
    backends: Any = torch.backends
    return ((backends.mkldnn.matmul, KEPT), (backends.mkldnn.conv, KEPT), (backends.cuda.matmul, KEPT),
            (backends.cudnn.conv, ("tf32",)))  # convolutions on a GPU: torch's own default


def restore_products(products: Any, before: str) -> None:
    """Give the precision of products back; a value that came from the setting above it follows that setting again."""
    products.fp32_precision = "none"
    if products.fp32_precision != before:
        products.fp32_precision = before


def read_settings() -> dict[str, Any]:
    """Torch's settings as they are, by the names of `FRESH`."""
    backends: Any = torch.backends
    return {"dtype": torch.get_default_dtype(), "deterministic": torch.are_deterministic_algorithms_enabled(),
            "warns_only": torch.is_deterministic_algorithms_warn_only_enabled(), "mkldnn": backends.mkldnn.enabled,
            "mkldnn_deterministic": backends.mkldnn.deterministic, "cudnn": backends.cudnn.enabled,
            "cudnn_deterministic": backends.cudnn.deterministic, "cudnn_benchmark": backends.cudnn.benchmark,
            "flash": backends.cuda.flash_sdp_enabled(), "memory_efficient": backends.cuda.mem_efficient_sdp_enabled(),
            "plain_attention": backends.cuda.math_sdp_enabled(), "cudnn_attention": backends.cuda.cudnn_sdp_enabled(),
            "half_sums": backends.cuda.fp16_bf16_reduction_math_sdp_allowed()}


def apply_settings(settings: dict[str, Any]) -> None:
    """Set what `read_settings` reads."""
    backends: Any = torch.backends
    torch.set_default_dtype(settings["dtype"])
    torch.use_deterministic_algorithms(settings["deterministic"], warn_only=settings["warns_only"])
    backends.mkldnn.enabled = settings["mkldnn"]
    backends.mkldnn.deterministic = settings["mkldnn_deterministic"]
    backends.cudnn.enabled = settings["cudnn"]
    backends.cudnn.deterministic = settings["cudnn_deterministic"]
    backends.cudnn.benchmark = settings["cudnn_benchmark"]
    backends.cuda.enable_flash_sdp(settings["flash"])
    backends.cuda.enable_mem_efficient_sdp(settings["memory_efficient"])
    backends.cuda.enable_math_sdp(settings["plain_attention"])
    backends.cuda.enable_cudnn_sdp(settings["cudnn_attention"])
    backends.cuda.allow_fp16_bf16_reduction_math_sdp(settings["half_sums"])
