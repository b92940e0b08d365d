"""A directory of networks to bring in, as `glideslope release import-openai` writes one, with very small networks."""

from pathlib import Path

import torch

from glideslope.models.networks.components import component_config
from glideslope.models.networks.presets import unet_preset
from glideslope.models.networks.unet import TextConditionedUNet
from glideslope.models.tokenizer import CaptionTokenizer
from glideslope.models.training.checkpoints import save_tensors
from glideslope.recipe.components import model_index, scheduler_config
from glideslope.store.whole_files import write_bytes, write_json
from glideslope.trust.hashed_files import build_manifest

CHANGES = {"upsampler": {"image_size": 32, "super_res": True}, "base_inpaint": {"inpaint": True},
           "upsampler_inpaint": {"image_size": 32, "super_res": True, "inpaint": True}}
SOURCES = {"upsample.pt": {"component": "upsampler", "size_bytes": 12, "sha256": "1" * 64},
           "base.pt": {"component": "base", "size_bytes": 34, "sha256": "2" * 64}}


def write_components(directory: Path, networks: tuple[str, ...] = tuple(CHANGES), *, clip_tokenizer: bytes | None = None) -> Path:
    """Write the networks with lively weights, a base that is not to be brought in, and everything that belongs to them."""
    parts = ["base", *networks, "tokenizer", "scheduler", *(["clip_tokenizer"] if clip_tokenizer else [])]
    for seed, name in enumerate(("base", *networks)):
        torch.manual_seed(seed)
        network = TextConditionedUNet(unet_preset("glide-micro-16").model_copy(update=CHANGES.get(name, {})))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
        save_tensors(directory / name / "diffusion_pytorch_model.safetensors", network.state_dict())
        write_json(directory / name / "config.json", component_config(network))
    (directory / "tokenizer").mkdir()
    CaptionTokenizer.train(["another text", "other words"], 300).save(directory / "tokenizer/tokenizer.json")
    write_json(directory / "scheduler/scheduler_config.json", scheduler_config("scheduler", "sample"))
    if any(name.startswith("upsampler") for name in networks):
        parts.append("upsampler_scheduler")
        write_json(directory / "upsampler_scheduler/scheduler_config.json", scheduler_config("upsampler_scheduler", "sample"))
    if clip_tokenizer:
        write_bytes(directory / "clip_tokenizer/tokenizer.json", clip_tokenizer)
    write_json(directory / "model_index.json", model_index(parts))
    write_json(directory / "evidence/import.json", {"sources": SOURCES})
    seal(directory)
    return directory


def seal(directory: Path) -> None:
    """Write a manifest that fits what is there now."""
    write_bytes(directory / "manifest.json", build_manifest(directory).to_bytes())
