"""Draw from a release into a PNG that remembers how it was made."""

import io
from collections.abc import Callable
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from ..errors import RequestError
from ..manifest import MANIFEST_NAME, canonical_json, sha256_file, write_bytes
from .options import DrawOptions, check_prompts
from .pipeline import GlidePipeline
from .pixels import contact_sheet
from .samplers import SampleState

SHEET_COLUMNS = 4
SMALLEST_SIDE = 128
Progress = Callable[[int, int, str], None]


def draw_to_file(release: Path, prompt: str, path: Path, options: DrawOptions, *, progress: Progress | None = None) -> None:
    """Load a release, draw, and write one PNG: the picture, or a sheet of them, small pictures enlarged.

    The PNG's text holds prompt, seed, options and the digest of the release's manifest.

    Raises:
        RequestError: a prompt or an option that cannot be drawn from, or a path that is no PNG.
        StorageError: the path cannot be written.
        VerificationError, CheckpointError: the release is refused.
    """
    if path.suffix.lower() != ".png":
        raise RequestError(f"--out {path}: pictures are written as PNG; end the name with .png")
    check_prompts(prompt)
    pipe = GlidePipeline.from_pretrained(release)

    def preview(state: SampleState) -> None:
        if progress is not None:
            progress(state.step, state.num_steps, "steps")

    images = pipe(prompt, **options.to_json(), preview=preview).images
    info = PngInfo()
    manifest = release / MANIFEST_NAME
    info.add_text("glideslope", canonical_json({"prompt": prompt, "options": options.to_json(),
                                                "manifest_sha256": sha256_file(manifest) if manifest.exists() else None}))
    scale = max(1, SMALLEST_SIDE // images[0].width)
    sheet = images[0] if len(images) == 1 else contact_sheet(images, num_columns=SHEET_COLUMNS, scale=scale)
    file = io.BytesIO()
    sheet.save(file, format="png", pnginfo=info)
    write_bytes(path, file.getvalue())
