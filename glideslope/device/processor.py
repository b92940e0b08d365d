"""What the device computes fast, found by asking it: whether bfloat16 pays, and which instructions are really used."""

import contextlib
import logging
import os
import platform
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .torch_state import PlainTorch

FULL, HALF = "float32", "bfloat16"
FAST_FACTOR = 0.9  # bfloat16 is taken where the same step takes at most this share of its time in float32
NUM_TIMINGS = 3  # the first makes the kernels too
CUDA_CAPABILITY = (8, 0)  # the first with bfloat16 in its matrix units
# Both libraries obey these, and then work as an older processor would, or round float32 products.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "DNNL_CPU_ISA_HINTS",
          "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
VECTOR_FLAGS = ("avx", "amx", "fma", "sve", "asimd", "bf16", "f16c", "sse4")

log = logging.getLogger(__name__)


def choose_precision(asked: str, device: torch.device) -> str:
    """The precision that a training takes on a device.

    Args:
        asked: `auto`, `float32` or `bfloat16`.
        device: where it computes.

    Returns:
        `bfloat16` or `float32`. `auto` takes bfloat16 only where the device computes it faster; what was asked for by name is taken
        as it is, with a warning where it is slower.
    """
    if asked == "auto":
        return HALF if is_fast(device) else FULL
    if asked == HALF:
        warn_of_slow_type(torch.bfloat16, device, "precision: auto or float32")
    return asked


def is_fast(device: torch.device) -> bool:
    """Whether a device computes bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= CUDA_CAPABILITY
    if device.type != "cpu":
        return False
    mkldnn: Any = torch.ops.mkldnn
    # Without oneDNN's own support products are emulated: no timing is needed. With it they still may be (AVX-512 of the first kind).
    supported = platform.machine().lower() not in ("x86_64", "amd64") or bool(mkldnn._is_mkldnn_bf16_supported())
    return supported and half_factor(torch.bfloat16) <= FAST_FACTOR


def warn_of_slow_type(dtype: torch.dtype, device: torch.device, instead: str) -> None:
    """Say with the measured factor where a processor only emulates a 16-bit type.

    Args:
        dtype: float16 or bfloat16; of others nothing is said.
        device: where it is used; of a GPU nothing is said.
        instead: what to use, as the caller spells it.
    """
    if device.type == "cpu" and dtype in (torch.bfloat16, torch.float16) and (factor := half_factor(dtype)) > 1:
        log.warning("%s is emulated by this processor: measured just now, it takes %.1f times as long as float32; use %s",
                    str(dtype).removeprefix("torch."), factor, instead)


@cache
def half_factor(dtype: torch.dtype) -> float:
    """How many times as long as in float32 a processor takes for the same work in a 16-bit type.

    The work is a convolution and a matrix product forward and backward, on one thread, timed by the thread's own clock, so that other
    processes hardly count. The quickest of a few rounds is taken.
    """
    with torch.random.fork_rng(devices=[]), PlainTorch(gradients=True), threads(1):
        torch.manual_seed(0)
        full, half = (min(_time_work(kind) for _ in range(NUM_TIMINGS)) for kind in (torch.float32, dtype))
    return half / full


def _time_work(dtype: torch.dtype) -> float:
    convolution, product = nn.Conv2d(64, 64, 3, padding=1).to(dtype), nn.Linear(256, 512).to(dtype)
    images, rows = torch.randn(2, 64, 24, 24).to(dtype), torch.randn(256, 256).to(dtype)
    started = time.thread_time()
    torch.autograd.backward([convolution(images).sum(), product(rows).sum()])
    return max(time.thread_time() - started, 1e-6)


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute with so many threads: sums over more or fewer are rounded in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def instruction_set() -> str:
    """The instructions that torch's kernels use, with all that decides them: equal texts, equal roundings.

    The name of a processor does not tell: machines of one name differ, and both libraries can be told to work as an older one does.
    """
    mkldnn: Any = torch.ops.mkldnn
    parts = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    parts += [name for name, there in (("bf16", mkldnn._is_mkldnn_bf16_supported()), ("fp16", mkldnn._is_mkldnn_fp16_supported())) if there]
    parts += [f"{name}={os.environ[name].upper()}" for name in LIMITS if os.environ.get(name)]
    flags = sorted(flag for flag in cpu_information("flags", "Features").split() if flag.startswith(VECTOR_FLAGS) or "bf16" in flag)
    return " ".join([*parts, *flags])


def processor_name() -> str:
    """The processor's own name."""
    return cpu_information("model name") or platform.processor()


def cpu_information(*names: str) -> str:
    """A field of /proc/cpuinfo under any of its names; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() in names and ":" in line), "")
