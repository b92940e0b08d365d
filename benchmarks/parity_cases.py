"""What a parity directory may ask, and how each question is answered: the largest error, or what does not fit at all."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glideslope.models.diffusion.guidance import GradientGuidance
from glideslope.models.diffusion.process import (
    NUM_TRAIN_TIMESTEPS,
    GaussianDiffusion,
    fast27_timesteps,
    make_betas,
    space_timesteps,
    strided_timesteps,
)
from glideslope.models.diffusion.samplers import Prediction, ddim, ddpm, run
from glideslope.models.networks.components import expected_tensors
from glideslope.models.networks.noised_clip import ImageEncoder, NoisedClipConfig, TextEncoder
from glideslope.models.networks.presets import GPT2_VOCAB, NOISED_CLIP_PRESETS, UNET_PRESETS
from glideslope.models.networks.unet import TextConditionedUNet, UNetConfig, condition_input
from glideslope.models.tokenizer import CaptionTokenizer

from .closed_form import with_closed_form_weights

UNET_INPUTS = {"x", "timesteps", "tokens", "mask", "low_res", "inpaint_image", "inpaint_mask"}
IMAGE_SIDE = {"image_size": 4, "patch_size": 4, "n_head_image": 1, "n_head_state_image": 8, "n_xf_blocks_image": 1}
TEXT_SIDE = {"n_vocab": 1, "max_text_len": 2, "n_head_text": 1, "n_head_state_text": 8, "n_xf_blocks_text": 1}
# Published spelling: image size -> channel multipliers where the options leave them empty.
DEFAULT_CHANNEL_MULT = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}
FIXED_OPTIONS = {"num_heads": 1, "num_heads_upsample": -1, "xf_final_ln": True, "xf_padding": True, "use_scale_shift_norm": True,
                 "resblock_updown": True}
TRAJECTORY = re.compile(r"(?P<schedule>[a-z0-9_]+)\.(?P<spacing>[a-z0-9,]+)\."
                        r"(?P<sampler>ddpm|ddim)(?:_eta(?P<eta>[0-9.]+))?(?P<guided>_guided)?")
PADDED = re.compile(r"(padded|mask|length)_([0-9]+)")


class Misfit(Exception):
    """A case that cannot be compared, or whose exact parts (names, shapes, counts, token ids) differ."""


@dataclass(frozen=True)
class RecordedNoise:
    """Hands out recorded draws one after the other, as a sampler's source of noise."""

    draws: list[Tensor]

    def draw(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """The next draw."""
        if not self.draws:
            raise Misfit("the sampler draws more often than there is recorded noise")
        return self.draws.pop(0)


def network_error(case: Mapping[str, Any], tensors: Mapping[str, Tensor], *, seed: int, device: torch.device) -> float:
    """Largest absolute difference between a network's output and the recorded one.

    Args:
        case: configuration, names and shapes of the parameters, and names of the inputs, from index.json.
        tensors: `input.*` and `output`.
        seed: of the closed-form weights.
        device: where to compute.

    Raises:
        Misfit: another architecture, other parameters, inputs that are missing or of no known kind.
    """
    inputs = {name.removeprefix("input."): tensor for name, tensor in tensors.items() if name.startswith("input.")}
    if set(inputs) != set(case["inputs"]) or "output" not in tensors:
        raise Misfit(f"the file holds the inputs {sorted(inputs)}, the index says {sorted(case['inputs'])}, and an output belongs to them")
    model, forward = build_case(case["config"], inputs)
    check_layout({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, case["shapes"])
    with_closed_form_weights(model, seed=seed).to(device)
    with torch.no_grad():
        output = forward({name: tensor.to(device) for name, tensor in inputs.items()})
    return largest_difference(output.cpu(), tensors["output"])


def build_case(config: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> tuple[nn.Module, Callable[[Mapping[str, Tensor]], Tensor]]:
    """The network of a case on the meta device, and how it is called; which kind it is shows in its inputs."""
    with torch.device("meta"):
        if {"x", "timesteps", "tokens", "mask"} <= set(inputs) <= UNET_INPUTS:
            told = {"image_size": inputs["x"].shape[-1], "super_res": "low_res" in inputs, "inpaint": "inpaint_mask" in inputs}
            unet = TextConditionedUNet(UNetConfig.model_validate({**told, **config}))
            return unet, lambda given: run_unet(unet, given)
        if set(inputs) == {"image_0_255", "timesteps"}:
            image_encoder = ImageEncoder(NoisedClipConfig.model_validate({**TEXT_SIDE, **config}))
            return image_encoder, lambda given: image_encoder(given["image_0_255"], given["timesteps"])
        if set(inputs) == {"tokens", "lengths"}:
            text_encoder = TextEncoder(NoisedClipConfig.model_validate({**IMAGE_SIDE, **config}))
            return text_encoder, lambda given: text_encoder(given["tokens"], given["lengths"])
    raise Misfit(f"inputs {sorted(inputs)} belong to no known kind of network")


def run_unet(unet: TextConditionedUNet, given: Mapping[str, Tensor]) -> Tensor:
    """Call a U-Net with whatever conditions it takes."""
    x = condition_input(given["x"], inpaint_image=given.get("inpaint_image"), inpaint_mask=given.get("inpaint_mask"),
                        low_res=given.get("low_res"))
    return torch.as_tensor(unet(x, given["timesteps"], given["tokens"], given["mask"]))


def check_layout(found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> None:
    """Refuse parameters that differ in name, order or shape."""
    ours, theirs = [(name, list(shape)) for name, shape in found.items()], [(name, list(shape)) for name, shape in expected.items()]
    if ours != theirs:
        different = [pair for pair in theirs if pair not in ours] or [pair for pair in ours if pair not in theirs]
        what = f"{different[0][0]} {different[0][1]} on one side only, {len(different)} in all" if different else "their order"
        raise Misfit(f"parameters differ: {what}; {len(ours)} here, {len(theirs)} expected")


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; what is not a number counts as infinite."""
    if found.shape != expected.shape:
        raise Misfit(f"output has shape {list(found.shape)}, expected {list(expected.shape)}")
    difference = (found.double() - expected.double()).abs()
    return float("inf") if difference.isnan().any() else float(difference.max()) if difference.numel() else 0.0


def betas_error(schedule: str, count: str, expected: Sequence[float]) -> float:
    """Largest relative difference of every n // 20-th beta of a schedule with n steps."""
    if not count.isdecimal() or int(count) < 1:
        raise Misfit(f"{count!r} is no number of steps")
    found = make_betas(schedule, int(count))[::max(1, int(count) // 20)]
    if len(found) != len(expected):
        raise Misfit(f"{len(expected)} betas, expected {len(found)}")
    return float(np.max(np.abs(found / np.asarray(expected, dtype=np.float64) - 1)))


def timesteps_of(spelling: str) -> list[int]:
    """The timesteps that a published spelling of respacing visits: `27`, `10,10,10`, `ddim25` or `fast27`."""
    if spelling == "fast27":
        return fast27_timesteps()
    if re.fullmatch(r"ddim[0-9]+", spelling):
        return strided_timesteps(int(spelling.removeprefix("ddim")))
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", spelling):
        raise Misfit(f"respacing {spelling!r} is not known")
    return space_timesteps(*map(int, spelling.split(",")))


def check_respacing(spelling: str, expected: Sequence[int]) -> None:
    """Refuse other timesteps than those expected."""
    found = timesteps_of(spelling)
    if found != list(expected):
        wrong = [step for step in found if step not in expected]
        raise Misfit(f"visits {len(found)} timesteps, expected {len(expected)}; first difference: {wrong[:1] or 'one is missing'}")


def analytic_model(x: Tensor, timesteps: Tensor) -> Prediction:
    """The closed-form denoiser of the recorded trajectories."""
    s = (timesteps.float() / NUM_TRAIN_TIMESTEPS).view(-1, 1, 1, 1)
    return Prediction(torch.tanh(0.7 * x + 0.1) * (0.2 + 0.8 * s), torch.sin(0.5 * x + s))


def trajectory_error(name: str, tensors: Mapping[str, Tensor]) -> float:
    """Largest difference at the end of a whole sampling run.

    Args:
        name: `<schedule>.<spacing>.<sampler>[_eta<eta>][_guided]`.
        tensors: that, `x_T`, and `<schedule>.<spacing>.noise`.
    """
    parts = TRAJECTORY.fullmatch(name)
    if parts is None or (parts["sampler"] == "ddpm" and parts["eta"]):
        raise Misfit("is no known kind of sampling run")
    noise = tensors.get(f"{parts['schedule']}.{parts['spacing']}.noise")
    if noise is None or "x_T" not in tensors:
        raise Misfit("its noise or x_T is missing")
    diffusion = GaussianDiffusion.create(parts["schedule"], timesteps_of(parts["spacing"]))
    denoiser = GradientGuidance(analytic_model, lambda x, timesteps: 0.3 * torch.cos(x)) if parts["guided"] else analytic_model
    source = RecordedNoise(list(noise))
    states = (ddpm(denoiser, tensors["x_T"], diffusion, source) if parts["sampler"] == "ddpm"
              else ddim(denoiser, tensors["x_T"], diffusion, source, eta=float(parts["eta"] or 0)))
    return largest_difference(run(states), tensors[name])


def check_tokens(tokenizer: CaptionTokenizer, case: Mapping[str, Any]) -> None:
    """Refuse token ids, paddings, masks or lengths that differ from a recorded caption's."""
    text = case["text"]
    unknown = [key for key in case if key not in ("text", "tokens") and not PADDED.fullmatch(key)]
    if unknown:
        raise Misfit(f"{text!r:.60}: {unknown[0]} is not known")
    found: dict[str, Any] = {"tokens": tokenizer.encode(text, 1_000_000)}
    for length in {int(match[2]) for key in case if (match := PADDED.fullmatch(key))}:
        if tokenizer.start_token is None:
            tokens, mask = tokenizer.encode_padded([text], length)
            found |= {f"padded_{length}": tokens[0].tolist(), f"mask_{length}": mask[0].tolist()}
        else:
            tokens, lengths = tokenizer.encode_delimited([text], length)
            found |= {f"padded_{length}": tokens[0].tolist(), f"length_{length}": int(lengths[0])}
    for key, expected in case.items():
        if key != "text" and found.get(key) != expected:
            raise Misfit(f"{text!r:.60}: {key} is {found.get(key)!s:.100}, expected {expected!s:.100}")


def check_tokenizer(tokenizer: CaptionTokenizer, section: Mapping[str, Any]) -> None:
    """Refuse other special tokens, another size, or any caption that is encoded otherwise."""
    facts = {"n_vocab": tokenizer.vocab_size, "end_token": tokenizer.end_token, "start_token": tokenizer.start_token, "lowercase": True}
    for key, expected in section.items():
        if key != "cases" and facts.get(key) != expected:
            raise Misfit(f"{key} is {facts.get(key)!r}, expected {expected!r}")
    for case in section["cases"]:
        check_tokens(tokenizer, case)


def check_released(entry: Mapping[str, Any]) -> str:
    """Compare a published checkpoint's names, shapes and count with the architecture of its options, on the meta device.

    Returns:
        Which preset this is, or that it is none.
    """
    shapes = {name: tuple(shape) for name, shape in entry["shapes"].items()}
    if "n_xf_blocks_image" in entry["options"]:
        clip = NoisedClipConfig(**{key: value for key, value in entry["options"].items() if key != "beta_schedule"})
        side = "text_encoder." if "blocks.input.w_voc" in shapes else "image_encoder."
        expected = {name.removeprefix(side): shape for name, shape in expected_tensors("NoisedClip", clip).items() if name.startswith(side)}
        preset = next((name for name, config in NOISED_CLIP_PRESETS.items() if config == clip), None)
    else:
        unet = unet_of_options(entry["options"])
        expected = expected_tensors("TextConditionedUNet", unet)
        preset = next((name for name, config in UNET_PRESETS.items() if config == unet), None)
    check_layout(expected, shapes)
    total = sum(int(np.prod(shape)) for shape in expected.values())
    if entry.get("num_parameters", total) != total:
        raise Misfit(f"{total} parameters, expected {entry['num_parameters']}")
    return f"{total:,} parameters, " + (f"preset {preset}" if preset else "no preset")


def unet_of_options(options: Mapping[str, Any]) -> UNetConfig:
    """Our configuration for the published spelling of a U-Net's options."""
    for key, value in FIXED_OPTIONS.items():
        if options.get(key, value) != value:
            raise Misfit(f"option {key} is {options[key]!r}; every published model has {value!r}")
    size, mult = options["image_size"], options["channel_mult"]
    if not mult and size not in DEFAULT_CHANNEL_MULT:
        raise Misfit(f"channel_mult is empty, and image_size {size} has no usual one")
    return UNetConfig(
        image_size=size, model_channels=options["num_channels"], num_res_blocks=options["num_res_blocks"],
        channel_mult=tuple(map(int, mult.split(","))) if mult else DEFAULT_CHANNEL_MULT[size],
        attention_downsample=tuple(sorted(size // int(side) for side in options["attention_resolutions"].split(","))),
        num_head_channels=options["num_head_channels"], text_ctx=options["text_ctx"], xf_width=options["xf_width"],
        xf_layers=options["xf_layers"], xf_heads=options["xf_heads"], n_vocab=GPT2_VOCAB, dropout=options["dropout"],
        super_res=options["super_res"], inpaint=options["inpaint"])


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        Misfit: missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise Misfit(f"{path.name}: not a readable safetensors file ({error})") from error
