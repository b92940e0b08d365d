"""Draw from a release into PNGs that remember how they were made, with a contact sheet of all."""

import contextlib
import io
import math
import os
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from ...clip.towers import ImageTextModel
from ...device.dtype_device import choose_device, choose_dtype
from ...errors import RequestError, StorageError
from ...pictures.sheets import captioned_sheet, largest_grid
from ...progress import Progress
from ...store.digests import canonical_json, sha256_file, sha256_json
from ...store.protected_places import write_new
from ...store.weight_files import VARIANTS, find_weights
from ...text.text_files import NotTextError, decode_text, split_lines
from ...trust.opening import OpenRelease, open_release
from ..diffusion.samplers import SampleState
from ..loading.loaded_networks import Architecture
from ..loading.needed_files import held_models
from .editing import UpsampleOptions
from .options import DrawOptions, check_prompts, check_seeds
from .pipeline import DRAW_BATCH, GlidePipeline
from .pixels import to_pil

SHEET_NAME = "sheet.png"
MIN_COLUMNS, MAX_COLUMNS = 4, 16
SMALLEST_SIDE = 128
MAX_PROMPT_FILE_BYTES = 10_000_000
OTHER_PICTURES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True)
class GuidingClip:
    """An ordinary CLIP that shall guide in place of the noised one, loaded once all else was checked.

    Attributes:
        name: what it is called, for the pictures' text.
        pretrained: which weights of it, likewise.
        load: loads it onto a device.
    """

    name: str
    pretrained: str | None
    load: Callable[[torch.device], ImageTextModel]


@dataclass(frozen=True)
class WeightChoice:
    """Which weights are loaded, and how; see `GlidePipeline.from_pretrained`.

    Attributes:
        device: None takes a GPU where there is one.
        dtype: float32, float16 or bfloat16; None keeps what is stored.
        variant: `fp16` or `bf16`; None takes the weights as trained.
    """

    device: str | None = None
    dtype: str | None = None
    variant: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no release could be loaded with here.

        Raises:
            RequestError: an unknown type or variant, or a device that cannot be used.
        """
        choose_dtype(self.dtype)
        choose_device(self.device)
        if self.variant is not None and self.variant not in VARIANTS:
            raise RequestError(f"variant is {self.variant!r:.80}; expected none or one of {', '.join(VARIANTS)}")


@dataclass(frozen=True)
class DrawRequest:
    """What to draw, and where to.

    Attributes:
        prompts: captions.
        out: a name ending in .png: one new file, the picture or a sheet (of very many, several); else a new or empty directory for one file
            per picture and `sheet.png`.
        options: how; picture i of all is drawn from options.seed + i.
        upsample: enlarge with the release's upsampler; None: where it has one.
        previews: new or empty directory for a sheet of the predicted pictures after every step; None: no previews.
        clip: an ordinary CLIP that guides in place of the noised one.
        weights: which are loaded, and how.
    """

    prompts: Sequence[str]
    out: Path
    options: DrawOptions
    upsample: bool | None = None
    previews: Path | None = None
    clip: GuidingClip | None = None
    weights: WeightChoice = WeightChoice()

    @property
    def to_file(self) -> bool:
        """Whether everything goes into one PNG."""
        return self.out.suffix.lower() == ".png"

    @property
    def captions(self) -> list[str]:
        """The prompt of every picture."""
        return [prompt for prompt in self.prompts for _ in range(self.options.num_images)]

    def check(self) -> None:
        """Refuse what can be refused without the release.

        Raises:
            RequestError: a prompt that is empty or no text, or a path that cannot be meant or is taken.
            StorageError: a path that cannot be written; it was tried.
        """
        check_prompts(self.prompts)
        check_seeds(self.options.seed, len(self.captions))
        if self.out.suffix.lower() in OTHER_PICTURES:
            raise RequestError(f"--out {self.out}: pictures are written as PNG; end the name with .png, or name a directory")
        if self.previews is not None and os.path.normpath(self.previews.absolute()) == os.path.normpath(self.out.absolute()):
            raise RequestError(f"--previews {self.previews}: is --out as well; name another directory")
        check_place("--out", self.out, is_file=self.to_file)
        if self.previews is not None:
            check_place("--previews", self.previews, is_file=False)

    def settled(self, held: Collection[str], upsamplers: Collection[str] = ("upsampler",)) -> "DrawRequest":
        """With the decision whether to enlarge, for a release that holds such networks."""
        return self if self.upsample is not None else replace(self, upsample=not set(upsamplers).isdisjoint(held))

    def check_fit(self, release: Architecture) -> None:
        """Refuse what does not fit the models.

        Raises:
            RequestError: a prompt that is longer than one of them reads, and may not be cut.
        """
        if not self.options.cut_long_prompts:
            release.check_lengths(self.prompts)


def check_place(option: str, path: Path, *, is_file: bool) -> None:
    """Refuse a place that is taken, and try whether it can be written; what is made for that is removed again.

    Raises:
        RequestError: a file is there already, or a directory that is not empty.
        StorageError: it cannot be written.
    """
    try:
        if os.path.lexists(path) and (is_file or not path.is_dir() or any(path.iterdir())):
            problem = "is there already and no empty directory" if not is_file else "is a directory" if path.is_dir() else "is there already"
            raise RequestError(f"{option} {path}: {problem}; name a new one, nothing is overwritten")
        try_writing(path if is_file else path / SHEET_NAME)
    except (OSError, ValueError) as error:  # the second is what a name with a null character raises
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{option} {path}: cannot write there ({reason}); name a place that can be written. Nothing was drawn") from error


def try_writing(path: Path) -> None:
    """Make the file that is written before it gets its name, and the folders above, and remove them all."""
    made: list[Path] = []
    try:
        for folder in reversed([folder for folder in path.parents if not folder.exists()]):
            folder.mkdir()
            made.append(folder)
        beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        beside.touch(exist_ok=False)
        beside.unlink()
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def draw_to_files(release: Path | OpenRelease, request: DrawRequest, *, progress: Progress | None = None) -> list[Path]:
    """Load a release, draw, and write the pictures, each batch as soon as it is done.

    Each PNG's text holds prompt, seed, options and what `load_pipeline` tells, a sheet's those of all its pictures.

    Args:
        release: a release that was opened, or the directory of one.
        request: what to draw, and where to.
        progress: told steps done, steps in all, and what is being done.

    Returns:
        The files written: pictures in order, then the sheet, or sheets where there are very many pictures.

    Raises:
        RequestError: a prompt or an option that cannot be drawn from, a component that the release does not hold, or a
            path that cannot be meant; nothing was drawn.
        StorageError: a path cannot be written.
        VerificationError, CheckpointError: the release is refused.
    """
    request.check()
    options = request.options
    opened = release if isinstance(release, OpenRelease) else open_release(release)
    request = request.settled(held_models(opened))
    pipe, shown = load_pipeline(opened, request, needed_models(opened, request), request.check_fit)
    captions = pipe.prompts(request.prompts, options)
    watcher = Watcher(request, progress, len(captions), options.num_steps)
    images: list[Image.Image] = []
    written: list[Path] = []
    for start in range(0, len(captions), DRAW_BATCH):
        part, seed = captions[start:start + DRAW_BATCH], options.seed + start
        drawn = pipe.draw(part, replace(options, num_images=1, seed=seed), upsample=False, preview=watcher).images
        if request.upsample:
            enlarging = UpsampleOptions(seed=seed, cut_long_prompts=options.cut_long_prompts)
            drawn = pipe.upsample(drawn, part, options=enlarging, preview=watcher).images
        images += drawn
        for i, image in enumerate(() if request.to_file else drawn):
            written.append(write_png(request.out / f"{start + i:04d}.png", image, {"prompt": part[i], "seed": seed + i, **shown}))
    return [*written, *write_sheets(request, images, shown)]


def load_pipeline(release: OpenRelease, request: DrawRequest, components: Collection[str],
                  before_weights: Callable[[Architecture], None]) -> tuple[GlidePipeline, dict[str, Any]]:
    """Load what a request needs, the guiding CLIP last.

    Returns:
        The pipeline, and for the pictures' text: the options, whether pictures are enlarged, the guiding CLIP with the digest of its
        weights, the type, variant and device of the release's weights, and what `model_digest` says.

    Raises:
        RequestError, VerificationError, CheckpointError: see `GlidePipeline.from_pretrained`.
    """
    weights, guide = request.weights, request.clip
    pipe = GlidePipeline.from_release(release, dtype=weights.dtype, variant=weights.variant, device=weights.device, components=components,
                                      before_weights=before_weights)
    clip = None
    if guide is not None:
        pipe.guiding_clip = guide.load(pipe.device)
        clip = {"name": guide.name, "pretrained": guide.pretrained, "weights_sha256": weights_sha256(pipe.guiding_clip.model)}
    dtype = str(pipe.networks.dtype).removeprefix("torch.")
    return pipe, {"options": request.options.to_json(), "upsampled": request.upsample, "clip": clip, "dtype": dtype, "variant": weights.variant,
                  "device": pipe.device.type, **model_digest(release)}


def weights_sha256(model: nn.Module) -> str:
    """Hex SHA-256 of a network's weights: of each tensor in the order of the names, name, type, shape and bytes."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def needed_models(release: OpenRelease, request: DrawRequest) -> list[str]:
    """Which of a release's optional models a request needs.

    Raises:
        RequestError: the release does not hold one.
    """
    held, name = held_models(release), release.snapshot.name
    if request.upsample and "upsampler" not in held:
        raise RequestError(f"--upsample: {name} has no upsampler; draw without it, or from a release that has one")
    by_noised_clip = request.options.clip_guidance_scale > 0 and request.clip is None
    if by_noised_clip and "noised_clip" not in held:
        raise RequestError(f"--guidance: {name} has no noised_clip to guide; use cfg, or name an ordinary CLIP with --clip")
    return [name for name, needed in (("noised_clip", by_noised_clip), ("upsampler", request.upsample)) if needed]


def write_sheets(request: DrawRequest, images: Sequence[Image.Image], shown: dict[str, Any]) -> list[Path]:
    """Write sheets of all pictures with their prompts, as many as it takes; where one file is wanted of one picture, that picture."""
    path = request.out if request.to_file else request.out / SHEET_NAME
    captions, seed = request.captions, request.options.seed
    if request.to_file and len(images) == 1:
        return [write_png(path, images[0], {"prompt": captions[0], "seed": seed, **shown})]
    written, num_per_sheet = [], math.prod(largest_grid(images[0], scale=enlargement(images[0]), max_columns=MAX_COLUMNS))
    for start in range(0, len(images), num_per_sheet):
        some = slice(start, start + num_per_sheet)
        seeds = list(range(seed, seed + len(images)))[some]
        written.append(write_png(path, lay_out(images[some], captions[some]), {"prompts": captions[some], "seeds": seeds, **shown}))
    return written


def lay_out(images: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """A sheet about as wide as high, small pictures enlarged."""
    scale = enlargement(images[0])
    max_columns, max_rows = largest_grid(images[0], scale=scale, max_columns=MAX_COLUMNS)
    num_columns = min(max_columns, max(MIN_COLUMNS, math.isqrt(len(images) - 1) + 1, -(-len(images) // max_rows)))
    return captioned_sheet(images, captions, num_columns=num_columns, scale=scale)


def enlargement(image: Image.Image) -> int:
    """How often each pixel of a small picture is repeated on a sheet."""
    return max(1, SMALLEST_SIDE // image.width)


class Watcher:
    """Counts steps over all batches for the progress, and writes previews."""

    def __init__(self, request: DrawRequest, progress: Progress | None, num_pictures: int, num_steps: int) -> None:
        """Expect the steps of all batches; upsampling is counted in as it comes."""
        self.request, self.progress = request, progress
        self.done, self.total = 0, -(-num_pictures // DRAW_BATCH) * num_steps

    def __call__(self, state: SampleState) -> None:
        """After a step."""
        self.done += 1
        self.total = max(self.total, self.done + state.num_steps - state.step)
        if self.progress is not None:
            self.progress(self.done, self.total, "steps")
        if self.request.previews is not None:
            pictures = to_pil(state.preview)
            write_png(self.request.previews / f"{self.done:05d}.png", lay_out(pictures, [""] * len(pictures)),
                      {"step": state.step, "num_steps": state.num_steps})


def model_digest(release: OpenRelease) -> dict[str, str | None]:
    """The digest of a release's manifest, which holds those of all its files, and where on the Hub it came from.

    Without a manifest, the digest of the base's weights instead (of shards, that of the list of their digests).
    """
    snapshot = release.snapshot
    origin = {} if snapshot.repo is None else {"repository": snapshot.repo, "commit": snapshot.sha}
    if release.manifest_sha256 is not None:
        return {"manifest_sha256": release.manifest_sha256, **origin}
    digests = [sha256_file(path) for path in find_weights(snapshot.path / "base").files]
    return {"manifest_sha256": None, "base_sha256": digests[0] if len(digests) == 1 else sha256_json(digests), **origin}


def write_png(path: Path, image: Image.Image, facts: dict[str, Any]) -> Path:
    """Write a picture whose text holds facts as JSON under the key `glideslope`.

    Returns:
        Where it lies: the path, or its next free name where another process has just taken it.

    Raises:
        StorageError: the disk is full, or the directory cannot be written any more.
    """
    info = PngInfo()
    info.add_text("glideslope", canonical_json(facts))
    file = io.BytesIO()
    image.save(file, format="png", pnginfo=info)
    try:
        return write_new(path, file.getvalue())
    except StorageError as error:
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise StorageError(f"cannot write {path}: {reason}; free space or choose another directory, and draw again: pictures written before "
                           "this one stay, this one is lost") from error


def read_prompts(path: Path) -> tuple[list[str], list[int]]:
    """Read prompts from a UTF-8 file, one per line.

    Returns:
        The prompts, and the numbers of the blank lines that were skipped.

    Raises:
        RequestError: cannot be read, is not UTF-8, is too large, or holds no prompt.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROMPT_FILE_BYTES + 1)
        if len(data) > MAX_PROMPT_FILE_BYTES:
            raise RequestError(f"--prompt-file {path}: more than {MAX_PROMPT_FILE_BYTES} bytes, which are not read; split it")
        lines = split_lines(decode_text(data))
    except OSError as error:
        raise RequestError(f"--prompt-file {path}: {error.strerror}") from error
    except NotTextError as error:
        raise RequestError(f"--prompt-file {path}: {error}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise RequestError(f"--prompt-file {path}: holds no prompt; write one per line")
    return prompts, [number for number, line in enumerate(lines, start=1) if not line.strip()]
