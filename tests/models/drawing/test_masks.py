import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from glideslope.errors import RequestError
from glideslope.models.drawing.masks import fit_mask, fit_picture, middle_square, read_mask, read_picture


def half_white(mode: str = "L", size: tuple[int, int] = (10, 8)) -> Image.Image:
    """A mask whose right half is white."""
    grey = Image.new("L", size, 0)
    grey.paste(255, (size[0] // 2, 0, *size))
    return grey.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "LA", "CMYK"])
def test_white_is_drawn_however_the_mask_is_stored(mode: str) -> None:
    mask = Image.fromarray(np.asarray(half_white()).astype(np.uint16) * 257) if mode == "I;16" else half_white(mode)
    draw = read_mask(mask, size=(10, 8))
    assert draw.dtype == bool
    assert not draw[:, :5].any()
    assert draw[:, 5:].all()


def with_alpha() -> Image.Image:
    mask = half_white("RGBA")
    mask.putpixel((0, 0), (0, 0, 0, 0))
    return mask


def noisy() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 10), dtype=np.uint8))


@pytest.mark.parametrize(("mask", "told"), [
    (half_white(size=(10, 9)), "mask: 10 x 9 pixels, but the image has 10 x 8"), (half_white(size=(8, 10)), "mask: 8 x 10 pixels, but"),
    (Image.new("L", (10, 8), 0), r"black everywhere \(its brightest level is 0 of 255\), so nothing would be drawn; white is drawn anew, "),
    (Image.new("L", (10, 8), 255), "white everywhere, so nothing would be kept"),
    (Image.new("L", (10, 8), 128), "100% of its pixels are grey, at most 10%"), (noisy(), "of its pixels are grey"),
    (Image.new("RGB", (10, 8), (255, 0, 0)), r"mask: has colours; .*were image and mask exchanged\?"),
    (with_alpha(), "mask: has transparent pixels"), (Image.new("F", (10, 8)), r"mask: floating-point image; .*\(mode F\)"),
    (Image.new("L", (0, 8)), "mask: 0 x 8, which is no pixel"), (np.zeros((8, 10)), "mask: is black everywhere"),
    (None, "mask: expected a PIL.Image.Image or a numpy array, got NoneType"), ("mask.png", "open files with PIL.Image.open")])
def test_what_is_no_mask_is_refused_with_what_to_do(mask: Any, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        read_mask(mask, size=(10, 8))


def test_a_soft_edge_is_cut_in_the_middle() -> None:
    mask = Image.new("L", (40, 40), 0)
    mask.paste(255, (20, 0, 40, 40))
    mask.paste(127, (19, 0, 20, 40))
    mask.paste(128, (18, 0, 19, 40))
    draw = read_mask(mask, size=(40, 40))
    assert np.array_equal(np.flatnonzero(draw[0]), [18, *range(20, 40)])


def test_a_turned_photograph_is_read_upright_and_its_mask_must_match_that() -> None:
    image = Image.fromarray(np.zeros((8, 10, 3), dtype=np.uint8))
    image.putpixel((0, 0), (255, 0, 0))
    image.getexif()[0x0112] = 6  # turn clockwise by a quarter
    assert read_picture(image).shape == (10, 8, 3)
    assert read_picture(image)[0, 7].tolist() == [255, 0, 0]


def test_transparency_is_laid_on_white_as_when_training() -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert (read_picture(image) == 255).all()


@pytest.mark.parametrize("shape", [(7, 7), (7, 12), (12, 7), (1, 30)])
def test_the_middle_square_is_cut_from_pictures_and_masks_alike(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    square, side = middle_square(pixels), min(shape)
    assert square.shape == (side, side, 3)
    assert np.array_equal(middle_square(pixels[..., 0] > 99), square[..., 0] > 99)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    assert np.array_equal(square[0, 0], pixels[top, left])


def test_a_picture_of_the_right_size_stays_as_it_is_bit_for_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(fit_picture(pixels, 16), pixels)
    assert fit_picture(np.repeat(pixels, 3, axis=1), 8).shape == (8, 8, 3)


@given(side=st.integers(2, 40), size=st.integers(2, 20), data=st.data())
def test_a_pixel_is_drawn_exactly_where_some_white_lies_in_it(side: int, size: int, data: st.DataObject) -> None:
    cells = data.draw(st.lists(st.tuples(st.integers(0, side - 1), st.integers(0, side - 1)), min_size=1, max_size=5))
    draw = np.zeros((side, side), dtype=bool)
    draw[tuple(np.array(cells).T)] = True
    expected = np.zeros((size, size), dtype=bool)
    for row in range(size):
        for column in range(size):
            expected[row, column] = any(row * side < (r + 1) * size and r * size < (row + 1) * side
                                        and column * side < (c + 1) * size and c * size < (column + 1) * side for r, c in cells)
    if expected.all():
        with pytest.raises(RequestError, match="mask: is white everywhere in the middle"):
            fit_mask(draw, size)
    else:
        assert np.array_equal(fit_mask(draw, size), expected)


def test_white_that_the_middle_square_leaves_out_is_refused() -> None:
    draw = np.zeros((8, 30), dtype=bool)
    draw[:, :5] = True
    with pytest.raises(RequestError, match=r"mask: is black everywhere in the middle 8 x 8 pixels, at the model's 4 x 4; crop image and mask"):
        fit_mask(draw, 4)


SHAPE = np.zeros((40, 60), dtype=bool)
SHAPE[10:30, 15:45] = True


def stored(image: Image.Image, kind: str, **settings: Any) -> Image.Image:
    sink = io.BytesIO()
    image.save(sink, kind, **settings)
    return Image.open(sink)


def soft_levels(seed: int = 0) -> NDArray[np.uint8]:
    """White from 224, black up to 31, as ringing leaves them."""
    generator = np.random.default_rng(seed)
    return np.where(SHAPE, generator.integers(224, 256, SHAPE.shape), generator.integers(0, 32, SHAPE.shape)).astype(np.uint8)


BYTES = SHAPE.astype(np.uint8) * 255
LABELS = SHAPE.astype(np.uint8)
MASKS: dict[str, Image.Image | NDArray[Any]] = {
    "bits": Image.fromarray(SHAPE), "0 and 1": Image.fromarray(LABELS), "0 and 255": Image.fromarray(BYTES),
    "PNG of 0 and 1": stored(Image.fromarray(LABELS), "PNG"), "RGB of 0 and 1": Image.fromarray(LABELS).convert("RGB"),
    "16 bits": Image.fromarray(SHAPE.astype(np.uint16) * 65535), "16 bits of 0 and 1": stored(Image.fromarray(SHAPE.astype(np.uint16)), "PNG"),
    "16 bits of 0 and 255": stored(Image.fromarray(SHAPE.astype(np.uint16) * 255), "TIFF"),
    "32 bits of 0 and 1": Image.fromarray(SHAPE.astype(np.int32)), "JPEG": stored(Image.fromarray(BYTES), "JPEG", quality=60),
    "colour JPEG": stored(Image.fromarray(BYTES).convert("RGB"), "JPEG", quality=60), "ringing": Image.fromarray(soft_levels()),
    "opaque": Image.fromarray(BYTES).convert("RGBA"), "palette": Image.fromarray(BYTES).convert("P"),
    "bool": SHAPE, "bool (H, W, 1)": SHAPE[..., None], "uint8 0 and 1": LABELS, "int64 0 and 1": SHAPE.astype(np.int64),
    "uint8": BYTES, "int32": BYTES.astype(np.int32), "float32": SHAPE.astype(np.float32), "float16": SHAPE.astype(np.float16),
    "soft floats": soft_levels() / 255, "soft integers": soft_levels(1)}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_can_mean_but_one_thing_is_read_however_it_is_stored(name: str) -> None:
    found = read_mask(MASKS[name], size=(60, 40))
    wrong = found != SHAPE
    assert not wrong.any() if "JPEG" not in name else wrong.mean() < 0.02


@pytest.mark.parametrize(("mask", "told"), [
    (np.full((40, 60), np.nan), r"of float64 from nan to nan; expected booleans, integers 0 and 1 or 0 to 255, or floats 0 to 1"),
    (np.where(SHAPE, 255.0, 0.0), r"mask: is an array of float64 from 0\.0 to 255\.0"),
    (np.where(SHAPE, 1, -1), "mask: is an array of int64 from -1 to 1"),
    (SHAPE.astype(np.uint16) * 65535, "mask: is an array of uint16 from 0 to 65535"),
    (SHAPE[None], r"mask: is an array \(1, 40, 60\) of bool"), (np.zeros((40, 60, 3), np.uint8), r"mask: is an array \(40, 60, 3\) of uint8"),
    (np.zeros((0, 60)), r"mask: is an array \(0, 60\)"), (SHAPE.astype(object), "mask: is an array .* of object"),
    (SHAPE.astype(complex), "mask: is an array .* of complex"),
    (SHAPE[:20], "mask: 60 x 20 pixels, but the image has 60 x 40; paint the mask over the image"),
    (np.ones((40, 60), bool), "mask: is white everywhere"), (np.zeros((40, 60), bool), "mask: is black everywhere"),
    (np.full((40, 60), 0.004), "mask: is black everywhere"),
    (np.tile(np.linspace(0, 1, 60), (40, 1)), r"mask: \d+% of its pixels are grey, .* for example mask\.convert"),
    (Image.fromarray((SHAPE * 3).astype(np.uint16)), "mask: is black everywhere")])
def test_arrays_that_are_no_mask_are_refused_with_what_is_expected(mask: Any, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        read_mask(mask, size=(60, 40))


def test_a_mask_of_0_and_1_is_turned_upright_in_16_bits_too() -> None:
    image = Image.fromarray(SHAPE.astype(np.uint16))
    image.getexif()[0x0112] = 6
    assert np.array_equal(read_mask(image, size=(40, 60)), np.rot90(SHAPE, -1))


def test_a_picture_whose_file_is_cut_is_refused_when_it_is_loaded_late() -> None:
    sink = io.BytesIO()
    Image.fromarray(soft_levels()).save(sink, "PNG")
    with pytest.raises(RequestError, match="image: cannot be read: "):
        read_picture(Image.open(io.BytesIO(sink.getvalue()[:200])))
