"""Draw the pictures of docs/editing.md with a release that was trained on OpenMoji.

    python -m benchmarks.editing_sheet RELEASE docs/images/editing.png
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from glideslope import GlidePipeline
from glideslope.models.drawing.options import DrawOptions
from glideslope.pictures.sheets import captioned_sheet

SIDE = 240
YELLOW, RED, BLUE, GREEN, GREY = (252, 234, 43), (210, 47, 39), (30, 80, 170), (92, 158, 49), (160, 160, 160)
COLUMNS, SCALE = 6, 4
Cell = tuple[Image.Image, str]
Draw = Callable[[ImageDraw.ImageDraw], None]


def picture(draw: Draw, *, mode: str = "RGB", ground: str = "white") -> Image.Image:
    image = Image.new(mode, (SIDE, SIDE), ground)
    draw(ImageDraw.Draw(image))
    return image


def face(draw: ImageDraw.ImageDraw, fill: tuple[int, int, int] | None = YELLOW) -> None:
    draw.ellipse((25, 25, 215, 215), fill=fill, outline="black", width=10)
    draw.ellipse((75, 85, 95, 105), fill="black")
    draw.ellipse((145, 85, 165, 105), fill="black")
    draw.arc((75, 100, 165, 175), 20, 160, fill="black", width=10)


def flag(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((15, 60, 225, 180), fill=RED, outline="black", width=10)
    draw.rectangle((25, 70, 215, 119), fill=BLUE)


def strokes(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((50, 70, 190, 210), fill=RED)
    draw.line((120, 70, 140, 30), fill=GREEN, width=18)


def mask(*box: int) -> Image.Image:
    """White in the box: drawn anew."""
    return picture(lambda draw: draw.rectangle(box, fill=255), mode="L", ground="black")


def hidden(image: Image.Image, where: Image.Image) -> Image.Image:
    """The picture with grey where it is drawn anew."""
    shown = image.copy()
    shown.paste(GREY, mask=where)
    return shown


def inpainting(pipe: GlidePipeline, options: DrawOptions, image: Image.Image, where: Image.Image, prompt: str) -> list[Cell]:
    drawn = pipe.inpaint(prompt, image, where, options=options).images
    return [(image, "picture"), (hidden(image, where), "grey: mask"), *((result, f"“{prompt}”") for result in drawn)]


def variations(pipe: GlidePipeline, options: DrawOptions, image: Image.Image, prompt: str) -> list[Cell]:
    cells: list[Cell] = [(image, f"“{prompt}”")]
    for strength in (0.4, 0.55, 0.7, 0.85, 1.0):
        cells.append((pipe.vary(image, prompt, strength, options=options).images[0], f"strength {strength}"))
    return cells


def in_turn(pipe: GlidePipeline, options: DrawOptions, image: Image.Image, edits: list[tuple[str, Image.Image]]) -> list[Cell]:
    cells: list[Cell] = [(image, "picture")]
    for prompt, where in edits:
        size = image.size
        image = pipe.inpaint(prompt, image, where.resize(size, Image.Resampling.NEAREST), options=options).images[0]
        cells.append((image, f"then “{prompt}”"))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pipe = GlidePipeline.from_pretrained(arguments.release, device="cpu")
    one = DrawOptions(num_steps=arguments.steps, seed=arguments.seed, sampler="ddim")
    four = DrawOptions(num_steps=arguments.steps, seed=arguments.seed, sampler="ddim", num_images=4)
    mouth, eyes, lower, outside = mask(55, 130, 185, 195), mask(45, 65, 195, 125), mask(0, 120, 239, 239), mask(150, 0, 239, 100)
    rows = [
        inpainting(pipe, four, picture(face), mouth, "grinning face"),
        inpainting(pipe, four, picture(flag), lower, "flag: Russia"),
        variations(pipe, one, picture(lambda draw: face(draw, None)), "grinning face"),
        variations(pipe, one, picture(strokes), "red apple"),
        in_turn(pipe, one, picture(face), [("smiling face with sunglasses", eyes), ("face with tongue", mouth), ("thinking face", outside)]),
    ]
    blank = Image.new("RGB", (pipe.networks.base.config.image_size,) * 2, "white")
    cells = [cell for row in rows for cell in row + [(blank, "")] * (COLUMNS - len(row))]
    small = [image.convert("RGB").resize(blank.size, Image.Resampling.LANCZOS) for image, _ in cells]
    sheet = captioned_sheet(small, [text for _, text in cells], num_columns=COLUMNS, scale=SCALE)
    sheet.quantize(128).save(arguments.out, optimize=True)
    print(f"wrote {arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
