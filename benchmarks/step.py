"""How fast one denoising step is, as a share of what the machine's matrix products reach: `python -m benchmarks.step`.

One step is two images with classifier-free guidance (a batch of four where the prompt's context is shared by the steps).
Products and steps take turns in one run, so that a busy machine slows both.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from glideslope.models.networks.components import build_on_meta
from glideslope.models.networks.presets import UNET_PRESETS, unet_preset
from glideslope.models.networks.unet import TextConditionedUNet

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build(preset: str, dtype: torch.dtype, device: torch.device) -> TextConditionedUNet:
    """A network with random weights everywhere, also where training starts with zeros."""
    torch.manual_seed(0)
    network = TextConditionedUNet(unet_preset(preset))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.02)
    return network.to(device, dtype).eval()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Print the share of the matrix-product rate for each dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="glide-base-64")
    parser.add_argument("--batch", type=int, default=4, help="images in one pass; two images with guidance make 4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=2048, help="side of the square matrices")
    parser.add_argument("--dtype", choices=sorted(DTYPES), action="append")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--count", action="store_true", help="count the operations of every preset instead, without computing anything")
    options = parser.parse_args()
    if options.count:
        for preset in UNET_PRESETS:
            print(count(preset))
        return
    device = torch.device(options.device)
    for name in options.dtype or sorted(DTYPES, reverse=True):
        measure(name, options, device)


def count(preset: str) -> str:
    """A preset's line: parameters, and operations for one image forward alone and in training."""
    config = unet_preset(preset)
    network = build_on_meta("TextConditionedUNet", config)
    with torch.device("meta"):
        x, times = torch.empty(1, config.in_channels, config.image_size, config.image_size), torch.empty(1)
        tokens = torch.empty(1, config.text_ctx, dtype=torch.int64)
        mask = torch.empty(1, config.text_ctx, dtype=torch.bool)
    with FlopCounterMode(display=False) as forward:
        output = network(x, times, tokens, mask)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    flops = forward.get_total_flops()
    return (f"{preset}: {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters, {flops / 1e9:.2f} GFLOP an image, "
            f"{(flops + backward.get_total_flops()) / 1e9:.2f} in training")


@torch.inference_mode()
def measure(name: str, options: argparse.Namespace, device: torch.device) -> None:
    """Print one dtype's line."""
    dtype = DTYPES[name]
    network = build(options.preset, dtype, device)
    config = network.config
    x = torch.randn(options.batch, config.in_channels, config.image_size, config.image_size, device=device, dtype=dtype)
    times = torch.full((options.batch,), 500, device=device)
    tokens = torch.zeros(options.batch, config.text_ctx, dtype=torch.int64, device=device)
    context = network.encode_text(tokens, torch.ones_like(tokens, dtype=torch.bool))
    matrix = torch.randn(options.size, options.size, device=device, dtype=dtype)

    def step() -> Tensor:
        return network.denoise(x, times, context)

    def product() -> Tensor:
        return matrix @ matrix

    with FlopCounterMode(display=False) as counter:
        step()
    flop = counter.get_total_flops()
    product()
    num_products = max(1, round(flop / (2 * options.size**3) / 4))
    shares, rates = [], []
    for _ in range(options.repeats):
        before = seconds(lambda: [product() for _ in range(num_products)], device)
        spent = seconds(step, device)
        after = seconds(lambda: [product() for _ in range(num_products)], device)
        rate = 2 * num_products * 2 * options.size**3 / (before + after)
        shares.append(flop / spent / rate)
        rates.append(rate)
    print(f"{options.preset} {name} on {device.type}, {torch.get_num_threads()} threads: {flop / 1e9:.0f} GFLOP a step of {options.batch} "
          f"images; matrix products {median(rates) / 1e9:.0f} GFLOP/s; a step runs at {median(shares):.2f} of that rate "
          f"({min(shares):.2f} to {max(shares):.2f})")


if __name__ == "__main__":
    main()
