"""Edit a picture file with a release into PNGs that remember how they were made."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from ...errors import RequestError
from ...pictures.decode import read_image
from ...pictures.refusals import Refusal, TooLarge
from ...progress import Progress
from ...store.digests import sha256_bytes
from ...trust.opening import OpenRelease, open_release
from ..diffusion.process import NUM_TRAIN_TIMESTEPS
from ..loading.loaded_networks import Architecture
from ..loading.needed_files import held_models
from ..networks.unet import UNetConfig
from .editing import UpsampleOptions, check_strength
from .files import DrawRequest, Watcher, load_pipeline, needed_models, write_png, write_sheets
from .masks import fit_mask, read_mask, read_picture
from .pipeline import GlideOutput, GlidePipeline

MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 500_000_000
DEFAULT_STRENGTH = 0.6


@dataclass(frozen=True)
class PictureFile:
    """A picture that was read whole: what it shows, and the digest of its bytes."""

    image: Image.Image
    sha256: str


@dataclass(frozen=True)
class Edit:
    """What to do with a picture.

    Attributes:
        request: prompt, options, and where to write.
        image: file of the picture, of any common format.
        mask: file of the mask, white is drawn anew; None: image-to-image.
        strength: of image-to-image; None takes 0.6. Not with a mask.
    """

    request: DrawRequest
    image: Path
    mask: Path | None = None
    strength: float | None = None

    def check(self) -> None:
        """Refuse what can be refused without the release.

        Raises:
            RequestError: prompt, path or strength that cannot be meant, or a strength beside a mask.
            StorageError: a path that cannot be written; it was tried.
        """
        for option, path in (("--image", self.image), ("--mask", self.mask)):
            if path is not None and os.path.normpath(path.absolute()) == os.path.normpath(self.request.out.absolute()):
                raise RequestError(f"--out {self.request.out}: is the file of {option}; name a new one, nothing is overwritten")
        self.request.check()
        if self.strength is not None:
            check_strength(self.strength)
            if self.mask is not None:
                raise RequestError(f"--strength {self.strength} beside --mask {self.mask}: the white of a mask is always drawn wholly "
                                   "anew; give one of the two")


def edit_to_files(release: Path | OpenRelease, edit: Edit, *, progress: Progress | None = None) -> list[Path]:
    """Load a release, edit a picture, and write the results as drawing does (see `drawing.DrawRequest.out`).

    Each PNG's text holds what a drawn one's does, strength, and the digests of the picture and the mask.

    Returns:
        The files written: pictures in order, then the sheet or sheets.

    Raises:
        RequestError: a prompt, file or option that cannot be used, or a component that the release does not hold; all
            before weights are read.
        StorageError: a path cannot be written.
        VerificationError, CheckpointError: the release is refused.
    """
    edit.check()
    request, strength = edit.request, check_strength(DEFAULT_STRENGTH if edit.strength is None else edit.strength)
    image = read_picture_file(edit.image, "--image")
    mask = None if edit.mask is None else read_picture_file(edit.mask, "--mask")
    pixels = read_picture(image.image)
    draw = None if mask is None else read_mask(mask.image, size=(pixels.shape[1], pixels.shape[0]))

    def check_fit(release: Architecture) -> None:
        request.check_fit(release)
        base = release.configs["base"]
        if draw is not None and isinstance(base, UNetConfig):
            fit_mask(draw, base.image_size)

    opened = release if isinstance(release, OpenRelease) else open_release(release)
    upsamplers = ("upsampler",) if mask is None else ("upsampler", "upsampler_inpaint")
    request = request.settled(held_models(opened), upsamplers)
    edit = replace(edit, request=request)
    pipe, shown = load_pipeline(opened, request, choose_models(opened, edit), check_fit)
    num_steps = request.options.num_steps
    if mask is None:
        num_steps = min(num_steps, max(1, round(strength * NUM_TRAIN_TIMESTEPS)))
    watcher = Watcher(request, progress, len(pipe.prompts(request.prompts, request.options)), num_steps)
    if mask is not None:
        output = pipe.inpaint(request.prompts, image.image, mask.image, options=request.options, preview=watcher)
    else:
        output = pipe.vary(image.image, request.prompts, strength, options=request.options, preview=watcher)
    if request.upsample:
        output = enlarge(pipe, request, output, image, mask, watcher)
    shown |= {"strength": None if mask is not None else strength, "image_sha256": image.sha256,
              "mask_sha256": None if mask is None else mask.sha256}
    written: list[Path] = []
    for i, result in enumerate(() if request.to_file else output.images):
        facts = {"prompt": request.captions[i], "seed": output.seeds[i], **shown}
        written.append(write_png(request.out / f"{i:04d}.png", result, facts))
    return [*written, *write_sheets(request, output.images, shown)]


def enlarge(pipe: GlidePipeline, request: DrawRequest, output: GlideOutput, image: PictureFile, mask: PictureFile | None,
            watcher: Watcher) -> GlideOutput:
    """Upsample results, the kept part of an inpainted picture from the picture itself."""
    source, drawn = (None, None) if mask is None else (image.image, mask.image)
    options = UpsampleOptions(seed=request.options.seed, cut_long_prompts=request.options.cut_long_prompts)
    return pipe.upsample(output.images, request.captions, source=source, mask=drawn, options=options, preview=watcher)


def choose_models(release: OpenRelease, edit: Edit) -> list[str]:
    """Which of a release's optional models an edit needs, or can use and finds.

    Raises:
        RequestError: one is needed that the release does not hold.
    """
    held = held_models(release)
    if edit.mask is None:
        return needed_models(release, edit.request)
    wanted = ["base_inpaint"] if "base_inpaint" in held else []
    if edit.request.upsample and "upsampler_inpaint" in held:
        return [*wanted, "upsampler_inpaint", *needed_models(release, replace(edit.request, upsample=False))]
    return [*wanted, *needed_models(release, edit.request)]


def read_picture_file(path: Path, option: str) -> PictureFile:
    """Read a picture whole, refusing damaged, animated and gigantic ones before they are decoded.

    Raises:
        RequestError: naming the option and the file.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise RequestError(f"{option} {path}: {path.stat().st_size} bytes, at most {MAX_FILE_BYTES} are read; give a smaller picture")
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{option} {path}: {error.strerror}") from error
    try:
        return PictureFile(read_image(data, max_pixels=MAX_PIXELS), sha256_bytes(data))
    except TooLarge as refusal:
        raise RequestError(f"{option} {path}: {refusal}; give a smaller picture") from refusal
    except Refusal as refusal:
        raise RequestError(f"{option} {path}: {refusal}") from refusal
