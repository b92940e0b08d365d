"""Golden samples: pictures drawn once from the trained models, and drawn again to see that a release behaves the same.

Prompt, seed and every option are kept with the picture. On a machine of the same class (kind of device, processor, torch) the
picture, which is drawn with one thread, must come out the same to the byte; elsewhere sums are rounded in another order, and the
policy states for each kind of device how far pixel values may lie apart on average. Other weights give other pictures, far outside.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import GlideslopeError, ReleaseError
from ...pictures import png
from ...pictures.decode import read_image, to_rgb
from ...pictures.refusals import Refusal
from ...recipe.policy import GoldenDemands
from ...recipe.recipe import Recipe
from ...store.digests import sha256_bytes
from ...store.records import Record, read_record, run_stage
from ...store.run_layout import GOLDEN
from ...store.strict_json import load_lines, load_object
from ...store.whole_files import write_bytes, write_json
from .contents import Release, need
from .plan import evaluated_networks, required_inputs

if TYPE_CHECKING:
    from PIL import Image

    from ...models.diffusion.samplers import SampleState
    from ...models.drawing.pipeline import GlidePipeline

GOLDEN_PATH = "evidence/golden/golden.json"
GOLDEN_FORMAT = "glideslope.golden/1"
NUM_STEPS = 12
SAMPLER = "ddim"
GUIDANCE_SCALE = 3.0
CLIP_GUIDANCE_SCALE = 0.01  # of every other picture, so that the noised CLIP is seen too; more leaves black and white after so few steps
MAX_SIDE = 1024
# Whoever writes a release says what is drawn again on the machine of whoever checks it: no more than pack ever draws.
MAX_PICTURES, MAX_PROMPT_LENGTH = 64, 10_000
MAX_SECONDS_OF_PICTURE = 1_800
FACTS = {"file": str, "prompt": str, "seed": int, "num_steps": int, "sampler": str, "guidance_scale": float, "clip_guidance_scale": float,
         "sha256": str}


@dataclass(frozen=True)
class Comparison:
    """One golden picture against the one that was drawn again.

    Attributes:
        file: name of the golden picture.
        is_exact: whether every pixel is the same.
        mean_difference, max_difference: of pixel values, 0 to 255, over all pixels and colours.
        is_same_machine: whether it was made on a machine of this class.
        device: kind of the device that drew again: `cpu`, `cuda` or `mps`.
    """

    file: str
    is_exact: bool
    mean_difference: float
    max_difference: int
    is_same_machine: bool
    device: str


def draw_golden(run_dir: Path, recipe: Recipe) -> Record | None:
    """Run the stage `golden`: draw the first prompts of the evaluation, every other one with CLIP guidance.

    The pictures are drawn once a run, so that packing it again anywhere gives the same bytes.

    Args:
        run_dir: the run, with models trained and evaluated.
        recipe: the run's recipe; `release.golden_prompts` says how many pictures.

    Returns:
        The record, new or found; none when the recipe asks for no pictures.

    Raises:
        StageError: a stage has not finished, or the pictures were changed since.
    """
    if recipe.release.golden_prompts == 0:
        return None
    inputs = {stage: read_record(run_dir / stage).digest for stage in required_inputs(GOLDEN, recipe)}
    config = {"num_pictures": recipe.release.golden_prompts, "num_steps": NUM_STEPS, "sampler": SAMPLER, "guidance_scale": GUIDANCE_SCALE,
              "clip_guidance_scale": CLIP_GUIDANCE_SCALE, "seed": recipe.seed}

    def work(partial: Path) -> Mapping[str, Any]:
        from ...models.drawing.pipeline import GlidePipeline

        pipe = GlidePipeline.from_training(run_dir / "training", evaluated_networks(recipe))
        pairs = load_lines((run_dir / "evaluation/pairs.jsonl").read_bytes())
        pictures = [_draw_first(pipe, number, pairs[number % len(pairs)]["prompt"], recipe.seed + number, partial)
                    for number in range(recipe.release.golden_prompts)]
        write_json(partial / "golden.json", {"format": GOLDEN_FORMAT, "machine": machine_class("cpu"), "pictures": pictures})
        return {"num_pictures": len(pictures)}

    return run_stage(run_dir / GOLDEN, stage=GOLDEN, config=config, inputs=inputs, work=work)


def _draw_first(pipe: "GlidePipeline", number: int, prompt: str, seed: int, directory: Path) -> dict[str, Any]:
    from ...pictures.sheets import png_bytes

    facts = {"file": f"picture_{number:02d}.png", "prompt": prompt, "seed": seed, "num_steps": NUM_STEPS, "sampler": SAMPLER,
             "guidance_scale": GUIDANCE_SCALE, "clip_guidance_scale": CLIP_GUIDANCE_SCALE if number % 2 else 0.0}
    image = _draw(pipe, facts)
    write_bytes(directory / str(facts["file"]), png_bytes(image))
    return facts | {"sha256": sha256_bytes(np.asarray(image).tobytes())}


def _draw(pipe: "GlidePipeline", facts: Mapping[str, Any]) -> "Image.Image":
    from ...device.processor import threads
    from ...models.drawing.options import DrawOptions

    options = DrawOptions(guidance_scale=facts["guidance_scale"], clip_guidance_scale=facts["clip_guidance_scale"],
                          num_steps=facts["num_steps"], sampler=facts["sampler"], seed=facts["seed"], cut_long_prompts=True)
    deadline = time.monotonic() + MAX_SECONDS_OF_PICTURE

    def refuse_late(state: "SampleState") -> None:
        if time.monotonic() > deadline:
            raise ReleaseError(f"{GOLDEN_PATH}: {facts['file']} is not drawn after {MAX_SECONDS_OF_PICTURE} s, in step {state.step}; use a "
                               "faster machine")

    with threads(1):  # sums over several are rounded in another order
        return pipe.draw(facts["prompt"], options, preview=refuse_late).images[0]


def machine_class(device: str) -> dict[str, Any]:
    """What decides in which order a machine rounds: kind of device, the instructions that are really used or its model, torch."""
    import torch

    from ...device.processor import instruction_set, processor_name

    model = torch.cuda.get_device_name() if device == "cuda" else instruction_set()
    return {"device": device, "model": model, "processor": processor_name(), "torch": torch.__version__}


def self_test(release: Release, *, device: str = "cpu") -> list[Comparison]:
    """Draw every golden picture of a release again and compare.

    Args:
        release: the release; its files are checked against the manifest before they are loaded.
        device: where to draw: `cpu`, `cuda` or `mps`, with an index where there are several.

    Returns:
        One comparison a picture, in order.

    Raises:
        ReleaseError: the golden samples are missing or malformed, or this machine has no such device.
        GlideslopeError: the release does not load, or its files are not those of the manifest.
    """
    from ...models.drawing.pipeline import GlidePipeline

    golden = read_golden(release)
    kind = device_kind(device)
    is_same = golden["machine"] == machine_class(kind)
    beside = [name for name in evaluated_networks(release.recipe) if name != "base"]
    pipe = GlidePipeline.from_release(release.opened, device=device, components=beside)
    side = max(network.config.image_size for network in (pipe.networks.base, *pipe.networks.companions.values()))
    if side > MAX_SIDE:
        raise ReleaseError(f"{GOLDEN_PATH}: the model draws {side} pixels a side, at most {MAX_SIDE} are drawn again")
    found = []
    for facts in golden["pictures"]:
        before = read_picture(release, facts)
        after = np.asarray(_draw(pipe, facts))
        if after.shape != before.shape:
            raise ReleaseError(f"{GOLDEN_PATH}: {facts['file']} has the shape {before.shape}, the model draws {after.shape}; pack again")
        apart = np.abs(before.astype(np.int16) - after.astype(np.int16))
        found.append(Comparison(facts["file"], not apart.any(), float(apart.mean()), int(apart.max()), is_same, kind))
    return found


def device_kind(device: str) -> str:
    """`cpu`, `cuda` or `mps`, of a device such as `cuda:1`.

    Raises:
        ReleaseError: this machine has no such device.
    """
    import torch

    kind = device.split(":", maxsplit=1)[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind, False):
        raise ReleaseError(f"device {device!r}: not there; this machine has {', '.join(name for name, is_there in there.items() if is_there)}")
    return kind


def find_drift(release: Release, demands: GoldenDemands, *, device: str = "cpu") -> list[str]:
    """One sentence for every golden picture that comes out otherwise than the policy allows, or for too few of them."""
    where = "golden samples"
    if not (release.directory / GOLDEN_PATH).is_file():
        return [f"{where}: there are none, the policy asks for {demands.min_pictures}; set release.golden_prompts in the recipe and pack "
                "again, or leave the gate out openly (unsafe_skip in the policy, with the reason)"]
    try:
        compared = self_test(release, device=device)
    except ReleaseError:
        raise
    except GlideslopeError as error:
        return [f"{where}: the release cannot be drawn from ({error})"]
    problems = []
    if len(compared) < demands.min_pictures:
        problems.append(f"{where}: {len(compared)} pictures, the policy asks for at least {demands.min_pictures}; set release.golden_prompts "
                        "in the recipe and pack again")
    for one in compared:
        limit = demands.max_mean_difference.get(one.device)  # type: ignore[call-overload]  # another device is none of the policy's
        if limit is None:
            problems.append(f"{where}: the policy states no tolerance for {one.device}; add golden.max_mean_difference.{one.device}")
        elif one.is_same_machine and demands.exact_on_same_machine and not one.is_exact:
            problems.append(f"{where}: {one.file} comes out otherwise (up to {one.max_difference} of 255 apart) on a machine of the class that "
                            "drew it, where it must be the same; these are not the weights or not the code that was released")
        elif not one.mean_difference <= limit:
            problems.append(f"{where}: {one.file} lies {one.mean_difference:.2f} of 255 from what was drawn at release, the policy allows "
                            f"{limit:g} on {one.device}; these are not the weights or not the code that was released")
    return problems


def check_golden(release: Release) -> list[str]:
    """As many golden pictures are there as the recipe says, and each is the one that is described; nothing is drawn."""
    wanted = release.recipe.release.golden_prompts
    if wanted == 0 and not (release.directory / GOLDEN_PATH).exists():
        return []
    pictures = read_golden(release)["pictures"]
    for facts in pictures:
        read_picture(release, facts)
    return [] if len(pictures) == wanted else [f"{GOLDEN_PATH}: holds {len(pictures)} pictures, the recipe says {wanted}; pack again"]


def read_golden(release: Release) -> dict[str, Any]:
    """The golden samples' description, checked.

    Raises:
        ReleaseError: missing or malformed.
    """
    golden = release.read(GOLDEN_PATH, load_object)
    if golden.get("format") != GOLDEN_FORMAT or set(golden) != {"format", "machine", "pictures"}:
        raise ReleaseError(f"{GOLDEN_PATH}: format is {golden.get('format')!r:.60}, expected {GOLDEN_FORMAT!r}; pack the release again")
    pictures = need(golden, "pictures", where=GOLDEN_PATH)
    sound = isinstance(pictures, list) and all(isinstance(one, dict) and set(one) == set(FACTS) and
                                               all(type(one[key]) is kind for key, kind in FACTS.items()) for one in pictures)
    if not sound or [one["file"] for one in pictures] != [f"picture_{number:02d}.png" for number in range(len(pictures))]:
        raise ReleaseError(f"{GOLDEN_PATH}: pictures are malformed; pack the release again")
    if len(pictures) > MAX_PICTURES or any(one["num_steps"] != NUM_STEPS or one["sampler"] != SAMPLER or len(one["prompt"]) > MAX_PROMPT_LENGTH
                                           for one in pictures):
        raise ReleaseError(f"{GOLDEN_PATH}: expected at most {MAX_PICTURES} pictures, each drawn with {NUM_STEPS} steps of {SAMPLER} from a "
                           f"prompt of at most {MAX_PROMPT_LENGTH} characters; pack the release again")
    return golden


def read_picture(release: Release, facts: Mapping[str, Any]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The pixels of a golden picture, (H, W, 3).

    Raises:
        ReleaseError: missing, no picture, too large, or not the one that golden.json describes.
    """
    where = f"evidence/golden/{facts['file']}"
    try:
        data = release.path(where).read_bytes()
        if not data.startswith(png.MAGIC):
            raise ReleaseError(f"{where}: is no PNG; pack the release again")
        image = read_image(data, max_pixels=MAX_SIDE**2)
    except OSError as error:
        raise ReleaseError(f"{where}: cannot be read ({error}); pack the release again") from error
    except Refusal as refusal:
        raise ReleaseError(f"{where}: {refusal}; pack the release again") from refusal
    if image.mode != "RGB" or max(image.size) > MAX_SIDE:
        raise ReleaseError(f"{where}: expected an RGB picture of at most {MAX_SIDE} pixels a side; pack the release again")
    pixels = to_rgb(image)
    if sha256_bytes(pixels.tobytes()) != facts["sha256"]:
        raise ReleaseError(f"{where}: is not the picture that {GOLDEN_PATH} describes; pack the release again")
    return pixels
