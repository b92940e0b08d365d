"""Draw from a release into a PNG that remembers how it was made."""

from collections.abc import Callable
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from ..errors import RequestError
from ..manifest import MANIFEST_NAME, canonical_json, sha256_file, storage_error
from .pipeline import GlidePipeline
from .pixels import contact_sheet
from .samplers import SampleState

SHEET_COLUMNS = 4
SMALLEST_SIDE = 128
Progress = Callable[[int, int, str], None]


def draw_to_file(release: Path, prompt: str, path: Path, *, num_images: int, guidance_scale: float, clip_guidance_scale: float,
                 num_steps: int, sampler: str, seed: int, progress: Progress | None = None) -> None:
    """Load a release, draw, and write one PNG: the picture, or a sheet of them, small pictures enlarged.

    The PNG's text holds prompt, seed, options and the digest of the release's manifest.

    Raises:
        RequestError: an option that cannot be drawn from, or a path that is no PNG.
        StorageError: the path cannot be written.
        VerificationError, CheckpointError: the release is refused.
    """
    if path.suffix.lower() != ".png":
        raise RequestError(f"--out {path}: pictures are written as PNG; end the name with .png")
    pipe = GlidePipeline.from_pretrained(release)

    def preview(state: SampleState) -> None:
        if progress is not None:
            progress(state.step, state.num_steps, "steps")

    output = pipe(prompt, num_images=num_images, guidance_scale=guidance_scale, clip_guidance_scale=clip_guidance_scale,
                  num_steps=num_steps, sampler=sampler, seed=seed, preview=preview)
    info = PngInfo()
    manifest = release / MANIFEST_NAME
    info.add_text("glideslope", canonical_json({
        "prompt": prompt, "seeds": output.seeds, "guidance_scale": guidance_scale, "clip_guidance_scale": clip_guidance_scale,
        "num_steps": num_steps, "sampler": sampler, "manifest_sha256": sha256_file(manifest) if manifest.exists() else None}))
    sheet = contact_sheet(output.images, num_columns=SHEET_COLUMNS, scale=max(1, SMALLEST_SIDE // output.images[0].width)) \
        if num_images > 1 else output.images[0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, pnginfo=info)
    except OSError as error:
        raise storage_error(path, error) from error
