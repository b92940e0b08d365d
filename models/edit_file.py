"""Edit a picture file with a release into a PNG that remembers how it was made."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..decode import Refusal, decode_image
from ..errors import RequestError
from ..manifest import MANIFEST_NAME, canonical_json, sha256_bytes, sha256_file, write_bytes
from .companions import held_models
from .editing import UpsampleOptions, check_strength
from .masks import read_mask, read_picture
from .options import DrawOptions, check_prompts
from .pipeline import GlideOutput, GlidePipeline
from .pixels import contact_sheet
from .samplers import SampleState

MAX_PIXELS = 50_000_000
MAX_FILE_BYTES = 500_000_000
DEFAULT_STRENGTH = 0.6
SHEET_COLUMNS = 4
SMALLEST_SIDE = 128
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class PictureFile:
    """A picture that was read whole: what it shows, and the digest of its bytes."""

    image: Image.Image
    sha256: str


@dataclass(frozen=True)
class Edit:
    """What to do with a picture.

    Attributes:
        prompt: what the result shall show.
        image: file of the picture, of any common format.
        mask: file of the mask, white is drawn anew; none: image-to-image.
        strength: of image-to-image; none takes 0.6. Not with a mask.
        upsample: enlarge the results with the release's upsampler.
    """

    prompt: str
    image: Path
    mask: Path | None = None
    strength: float | None = None
    upsample: bool = False


def edit_to_file(release: Path, edit: Edit, path: Path, options: DrawOptions, *, progress: Progress | None = None) -> None:
    """Load a release, edit a picture, and write one PNG: the result, or a sheet of several, small ones enlarged.

    The PNG's text holds prompt, options, strength, and the digests of the release's manifest, the picture and the mask.

    Raises:
        RequestError: a prompt, file or option that cannot be used, a path that is no PNG, or a component that the
            release does not hold; all before weights are read, but a mask that is empty at the model's size.
        StorageError: the path cannot be written.
        VerificationError, CheckpointError: the release is refused.
    """
    if path.suffix.lower() != ".png":
        raise RequestError(f"--out {path}: pictures are written as PNG; end the name with .png")
    check_prompts(edit.prompt)
    strength = choose_strength(edit)
    image = read_picture_file(edit.image, "--image")
    mask = None if edit.mask is None else read_picture_file(edit.mask, "--mask")
    pixels = read_picture(image.image)
    if mask is not None:
        read_mask(mask.image, size=(pixels.shape[1], pixels.shape[0]))
    pipe = GlidePipeline.from_pretrained(release, components=choose_models(release, edit, options))

    def preview(state: SampleState) -> None:
        if progress is not None:
            progress(state.step, state.num_steps, "steps")

    if mask is not None:
        output = pipe.inpaint(edit.prompt, image.image, mask.image, options=options, preview=preview)
    else:
        output = pipe.vary(image.image, edit.prompt, strength, options=options, preview=preview)
    if edit.upsample:
        source, drawn = (None, None) if mask is None else (image.image, mask.image)
        enlarging = UpsampleOptions(seed=options.seed, cut_long_prompts=options.cut_long_prompts)
        output = pipe.upsample(output.images, edit.prompt, source=source, mask=drawn, options=enlarging, preview=preview)
    manifest = release / MANIFEST_NAME
    write_result(path, output, {
        "prompt": edit.prompt, "options": options.to_json(), "strength": None if mask is not None else strength, "upsample": edit.upsample,
        "image_sha256": image.sha256, "mask_sha256": None if mask is None else mask.sha256,
        "manifest_sha256": sha256_file(manifest) if manifest.exists() else None})


def choose_strength(edit: Edit) -> float:
    """The strength of image-to-image.

    Raises:
        RequestError: out of range, or given beside a mask.
    """
    if edit.strength is None:
        return DEFAULT_STRENGTH
    check_strength(edit.strength)
    if edit.mask is not None:
        raise RequestError(f"--strength {edit.strength} beside --mask {edit.mask}: the white of a mask is always drawn wholly anew; "
                           "give one of the two")
    return edit.strength


def choose_models(release: Path, edit: Edit, options: DrawOptions) -> list[str]:
    """Which of a release's optional models an edit needs, or can use and finds.

    Raises:
        RequestError: an upsampler is needed, and the release holds none.
        CheckpointError: no release.
    """
    held = held_models(release)
    wanted = ["noised_clip"] if options.clip_guidance_scale else []
    if edit.mask is not None and "base_inpaint" in held:
        wanted.append("base_inpaint")
    if edit.upsample:
        inpaint = edit.mask is not None and "upsampler_inpaint" in held
        wanted.append("upsampler_inpaint" if inpaint else "upsampler")
    return wanted


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
        decode_image(data, max_pixels=MAX_PIXELS)
    except Refusal as refusal:
        raise RequestError(f"{option} {path}: {refusal}") from refusal
    image = Image.open(io.BytesIO(data))
    image.load()
    return PictureFile(image, sha256_bytes(data))


def write_result(path: Path, output: GlideOutput, facts: dict[str, Any]) -> None:
    """Write pictures as one PNG whose text holds the facts."""
    info = PngInfo()
    info.add_text("glideslope", canonical_json(facts))
    images = output.images
    scale = max(1, SMALLEST_SIDE // images[0].width)
    sheet = images[0] if len(images) == 1 else contact_sheet(images, num_columns=SHEET_COLUMNS, scale=scale)
    file = io.BytesIO()
    sheet.save(file, format="png", pnginfo=info)
    write_bytes(path, file.getvalue())
