"""Pictures of a known positive as it may turn up in the wild: cropped, tiny in a scene, turned, in a collage, as a sticker."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

MAX_SIDE = 512
MIN_PAGE = 48
FLAT_TOLERANCE = 24
FLAT_SHARE = 0.95
OUTLINE = "white"
PAGE, BAR, TEXT = "#ffffff", "#dfe3e8", "#b8c0cc"

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Subject:
    """A picture and where its subject is.

    Attributes:
        image: RGB, no side longer than `MAX_SIDE`.
        mask: uint8 L image of the same size, 255 where the subject is; everywhere when the background is not flat.
        box: left, top, right, bottom of the mask in pixels.
    """

    image: Image.Image
    mask: Image.Image
    box: Box


@dataclass(frozen=True)
class Planted:
    """A mutated picture.

    Attributes:
        image: RGB.
        box: where the subject is now, in pixels; it may reach beyond the picture.
        jpeg_quality: None: stored without loss.
    """

    image: Image.Image
    box: Box
    jpeg_quality: int | None = None

    @property
    def area_share(self) -> float:
        """Share of the picture's area that the subject's box takes."""
        width, height = self.image.size
        left, top, right, bottom = self.box
        inside = max(0.0, min(right, width) - max(left, 0)) * max(0.0, min(bottom, height) - max(top, 0))
        return inside / (width * height)

    def encode(self) -> bytes:
        """The file's bytes: JPEG at the quality, else PNG."""
        sink = io.BytesIO()
        if self.jpeg_quality is None:
            self.image.save(sink, format="PNG", compress_level=1)
        else:
            self.image.save(sink, format="JPEG", quality=self.jpeg_quality)
        return sink.getvalue()


Mutation = Callable[[Subject, Sequence[Image.Image], np.random.Generator], Planted]


def find_subject(pixels: NDArray[np.uint8]) -> Subject:
    """Find the subject of a picture with a flat background; elsewhere the whole picture counts as the subject.

    The background is what is connected to the border and has its colour.

    Args:
        pixels: uint8 (height, width, 3).
    """
    from scipy import ndimage

    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    values = np.asarray(image).astype(np.int16)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    is_flat = np.abs(values - np.median(border, axis=0)).max(axis=2) <= FLAT_TOLERANCE
    on_border = np.concatenate([is_flat[0], is_flat[-1], is_flat[:, 0], is_flat[:, -1]])
    whole: Box = (0, 0, image.width, image.height)
    if on_border.mean() < FLAT_SHARE:
        return Subject(image, Image.new("L", image.size, 255), whole)
    regions, _ = ndimage.label(is_flat)
    outside = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    mask = Image.fromarray(np.where(np.isin(regions, outside[outside > 0]), 0, 255).astype(np.uint8))
    box = mask.getbbox()
    if box is None:
        return Subject(image, Image.new("L", image.size, 255), whole)
    return Subject(image, mask, box)


def unchanged(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
    """The picture as it is: what the pipeline says of it again must be what it said at first."""
    return Planted(subject.image, subject.box)


def crop(share: float) -> Mutation:
    """Keep a window with this share of the picture's area, at random but with its centre on the subject."""
    def mutate(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
        width, height = subject.image.size
        side = share**0.5
        window = max(1, round(width * side)), max(1, round(height * side))
        left, top = (int(np.clip(generator.uniform(low, high) - length / 2, 0, room - length)) for low, high, length, room in (
            (subject.box[0], subject.box[2], window[0], width), (subject.box[1], subject.box[3], window[1], height)))
        image = subject.image.crop((left, top, left + window[0], top + window[1]))
        return Planted(image, moved(subject.box, -left, -top))
    return mutate


def tiny(scale: float) -> Mutation:
    """Paste the subject into another picture, at this share of its side, at a random place."""
    def mutate(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
        scene = fill_frame(pick(others, generator), subject.image.size)
        return paste(scene, subject.image, subject.mask, subject.box, scale, generator)
    return mutate


def sticker(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
    """Cut the subject out with a white outline, turn it a little, and stick it on another picture at half its size."""
    from PIL import ImageFilter

    width, height = subject.image.size
    margin = max(2, round(0.03 * max(width, height)))
    canvas = Image.new("RGB", (width + 2 * margin, height + 2 * margin), OUTLINE)
    mask = Image.new("L", canvas.size, 0)
    mask.paste(subject.mask, (margin, margin))
    canvas.paste(subject.image, (margin, margin), subject.mask)
    outline = mask.filter(ImageFilter.MaxFilter(2 * margin + 1))
    angle = float(generator.uniform(-15, 15))
    turned, shape = (layer.rotate(angle, Image.Resampling.BICUBIC, expand=True) for layer in (canvas, outline))
    box = shape.getbbox() or (0, 0, *shape.size)
    scene = fill_frame(pick(others, generator), (width, height))
    return paste(scene, turned, shape, box, 0.5 * width / turned.width, generator)


def rotate(angle: float) -> Mutation:
    """Turn the picture by this angle in degrees; corners take the border's colour."""
    def mutate(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
        turned = angle if angle % 90 == 0 else angle * float(generator.choice([-1, 1]))
        fill = tuple(int(value) for value in np.median(np.asarray(subject.image)[0], axis=0))
        image = subject.image.rotate(turned, Image.Resampling.BICUBIC, expand=True, fillcolor=fill)
        where = subject.mask.rotate(turned, expand=True).getbbox() or (0, 0, *image.size)
        return Planted(image, where)
    return mutate


def mirror(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
    """Swap left and right."""
    left, top, right, bottom = subject.box
    return Planted(ImageOps.mirror(subject.image), (subject.image.width - right, top, subject.image.width - left, bottom))


def grey(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
    """Take the colours away."""
    return Planted(subject.image.convert("L").convert("RGB"), subject.box)


def invert(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
    """Turn light into dark and back."""
    return Planted(ImageOps.invert(subject.image), subject.box)


def jpeg(quality: int) -> Mutation:
    """Store it as JPEG at a low quality."""
    def mutate(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
        return Planted(subject.image, subject.box, quality)
    return mutate


def collage(num_side: int) -> Mutation:
    """One cell of a square collage; the other cells show other pictures."""
    def mutate(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
        width, height = subject.image.size
        cell = max(1, width // num_side), max(1, height // num_side)
        image = Image.new("RGB", (cell[0] * num_side, cell[1] * num_side), PAGE)
        cell_number = int(generator.integers(num_side**2))
        for number in range(num_side**2):
            picture = subject.image if number == cell_number else pick(others, generator)
            image.paste(fill_frame(picture, cell), (number % num_side * cell[0], number // num_side * cell[1]))
        box = moved(scaled(subject.box, cell[0] / width, cell[1] / height), cell_number % num_side * cell[0], cell_number // num_side * cell[1])
        return Planted(image, box)
    return mutate


def screenshot(subject: Subject, others: Sequence[Image.Image], generator: np.random.Generator) -> Planted:
    """Show the picture on a page in a window: a title bar above, lines of text beside and below."""
    width, height = (max(MIN_PAGE, side) for side in subject.image.size)
    image = Image.new("RGB", (width, height), PAGE)
    draw = ImageDraw.Draw(image)
    bar = max(4, height // 10)
    draw.rectangle((0, 0, width, bar), fill=BAR)
    for number, colour in enumerate(("#ee6a5f", "#f5bd4f", "#61c454")):
        draw.ellipse((bar * (0.4 + number), bar * 0.3, bar * (0.8 + number), bar * 0.7), fill=colour)
    if width > 5 * bar:
        draw.rounded_rectangle((bar * 4, bar * 0.25, width - bar * 0.5, bar * 0.75), radius=bar * 0.2, fill=PAGE)
    scale = 0.55
    size = max(1, round(subject.image.width * scale)), max(1, round(subject.image.height * scale))
    picture = subject.image.resize(size, Image.Resampling.BICUBIC)
    left, top = round(width * 0.06), round(bar + height * 0.05)
    image.paste(picture, (left, top))
    for number in range(14):
        y = top + number * height * 0.06
        x = left + picture.width + width * 0.05 if y < top + picture.height + height * 0.02 else left
        draw.line((x, y, x + (width * 0.94 - x) * float(generator.uniform(0.55, 1)), y), fill=TEXT, width=max(1, height // 60))
    return Planted(image, moved(scaled(subject.box, scale, scale), left, top))


MUTATIONS: Mapping[str, Mutation] = {
    "unchanged": unchanged, "crop_75": crop(0.75), "crop_50": crop(0.5), "crop_25": crop(0.25),
    "tiny_1_2": tiny(1 / 2), "tiny_1_4": tiny(1 / 4), "tiny_1_8": tiny(1 / 8),
    "rotated_15": rotate(15), "rotated_90": rotate(90), "rotated_180": rotate(180), "mirrored": mirror, "grey": grey, "inverted": invert,
    "jpeg_10": jpeg(10), "collage_2x2": collage(2), "collage_3x3": collage(3), "sticker": sticker, "screenshot": screenshot,
}

TITLES: Mapping[str, str] = {
    "unchanged": "as it was", "crop_75": "cropped to 3/4", "crop_50": "cropped to 1/2", "crop_25": "cropped to 1/4",
    "tiny_1_2": "in a scene, at 1/2", "tiny_1_4": "in a scene, at 1/4", "tiny_1_8": "in a scene, at 1/8",
    "rotated_15": "turned by 15°", "rotated_90": "turned by 90°", "rotated_180": "upside down", "mirrored": "mirrored", "grey": "in grey",
    "inverted": "as a negative", "jpeg_10": "JPEG, quality 10", "collage_2x2": "in a 2 x 2 collage", "collage_3x3": "in a 3 x 3 collage",
    "sticker": "as a sticker", "screenshot": "in a screenshot",
}


def moved(box: Box, right: float, down: float) -> Box:
    """A box elsewhere."""
    return box[0] + right, box[1] + down, box[2] + right, box[3] + down


def scaled(box: Box, across: float, down: float) -> Box:
    """A box in a picture of another size."""
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def pick(others: Sequence[Image.Image], generator: np.random.Generator) -> Image.Image:
    """One of the other pictures."""
    return others[int(generator.integers(len(others)))]


def fill_frame(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale and crop a picture so that it fills a frame."""
    return ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def paste(scene: Image.Image, image: Image.Image, mask: Image.Image, box: Box, scale: float, generator: np.random.Generator) -> Planted:
    """Paste what lies under the mask, scaled, at a random place where its box is wholly inside the scene."""
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small, shape = image.resize(size, Image.Resampling.BICUBIC), mask.resize(size, Image.Resampling.BICUBIC)
    inner = scaled(box, size[0] / image.width, size[1] / image.height)
    left = int(generator.uniform(-inner[0], max(-inner[0], scene.width - inner[2])))
    top = int(generator.uniform(-inner[1], max(-inner[1], scene.height - inner[3])))
    scene.paste(small, (left, top), shape)
    return Planted(scene, moved(inner, left, top))
