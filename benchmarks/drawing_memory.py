"""What drawing takes above the weights: `python -m benchmarks.drawing_memory`.

Four images with classifier-free guidance, so that eight go through the network at once. The peak of the resident memory
(on a GPU: of allocated memory) during drawing is compared with what is held before the first pass, once the weights are there.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.step import DTYPES, build
from glideslope.models.drawing.options import DrawOptions
from glideslope.models.drawing.pipeline import GlidePipeline
from glideslope.models.loading.loaded_networks import Networks
from glideslope.models.tokenizer import CaptionTokenizer

MIB = 1 << 20


def resident(device: torch.device, name: str) -> int:
    """Bytes: on a CPU the line `name` of the kernel's status (VmRSS now, VmHWM at most), on a GPU what is or was allocated."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if name == "VmHWM" else torch.cuda.memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def forget_peak(device: torch.device) -> None:
    """Count the peak anew from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="glide-base-64")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--sampler", default="dpm++")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    network = build(options.preset, DTYPES[options.dtype], device)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    pipe = GlidePipeline(Networks(network, CaptionTokenizer.train(["a red apple on a table"], vocab_size=300)))
    before = resident(device, "VmRSS")
    forget_peak(device)
    pipe.draw(["a red apple"] * options.images, DrawOptions(num_steps=options.steps, sampler=options.sampler))
    above = resident(device, "VmHWM") - before
    print(f"{options.preset} {options.dtype} on {device.type}: weights {weights / MIB:,.0f} MiB; {options.images} images with guidance take "
          f"{above / MIB:,.0f} MiB above what is held before, at most")


if __name__ == "__main__":
    main()
