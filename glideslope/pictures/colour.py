"""Colours as sRGB: embedded ICC profiles are applied with littleCMS, relative colorimetric with black point compensation.

A profile under which every probed colour comes out as it went in, to two levels, is sRGB by another name: its pictures keep their
bytes. A profile that cannot be read, or is of another kind of colours than the picture, says nothing: the picture counts as sRGB.
"""

import functools
import io
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, features

from .refusals import Refusal

MAX_PROFILE_BYTES = 4 << 20  # the largest profiles of printers have about 3 MB
HEADER_BYTES = 128
SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}  # of a profile's header, by Pillow's mode
CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")  # what describes a device's colours; links and named colours do not
MAX_CHANGE = 2
GRID = 17  # probed values of each of three channels


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A picture in mode RGB, its colours as sRGB.

    Args:
        image: mode L, RGB, CMYK or LAB, or what Pillow itself converts to RGB.
        profile: the ICC profile that came with it, of any quality.

    Raises:
        Refusal: the profile, or LAB, needs littleCMS, which this Pillow was built without.
    """
    transform = None
    if image.mode == "LAB":
        transform = lab_transform()
    elif profile is not None and fits_mode(profile, image.mode):
        transform = find_transform(profile, image.mode)
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise TypeError("ImageCms.applyTransform returned no picture")
    return converted


def fits_mode(profile: bytes, mode: str) -> bool:
    """Whether a profile's header is one, and describes colours of a mode."""
    return (HEADER_BYTES < len(profile) <= MAX_PROFILE_BYTES and profile[36:40] == b"acsp" and profile[12:16] in CLASSES
            and profile[16:20] == SPACES.get(mode))


@functools.lru_cache(maxsize=16)
def find_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB; None where there is nothing to do, or the profile is broken.

    Raises:
        Refusal: this Pillow has no littleCMS.
    """
    require_littlecms("has a colour profile")
    try:
        transform = build_transform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # littleCMS cannot use it
        return None
    return None if mode != "CMYK" and changes_nothing(transform, mode) else transform


@functools.lru_cache(maxsize=1)
def lab_transform() -> ImageCms.ImageCmsTransform:
    """The transform from CIE L*a*b* (D50) to sRGB.

    Raises:
        Refusal: this Pillow has no littleCMS.
    """
    require_littlecms("has CIE L*a*b* colours")
    return build_transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def build_transform(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    """A transform from a profile to sRGB in 8 bits."""
    target: Literal["sRGB"] = "sRGB"
    return ImageCms.buildTransform(source, ImageCms.createProfile(target), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC,
                                   ImageCms.Flags.BLACKPOINTCOMPENSATION)


def require_littlecms(what: str) -> None:
    """Refuse rather than show wrong colours.

    Raises:
        Refusal: this Pillow has no littleCMS.
    """
    if not features.check("littlecms2"):
        raise Refusal(f"{what}, and this Pillow was built without littleCMS; install Pillow's wheel from the Python Package Index")


def changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a grid of colours comes out as it went in, to MAX_CHANGE levels."""
    steps = np.linspace(0, 255, GRID).round().astype(np.uint8)
    colours = np.arange(256, dtype=np.uint8)[None] if mode == "L" else np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(colours)
    found = ImageCms.applyTransform(probe, transform)
    before, after = np.asarray(probe.convert("RGB")).astype(int), np.asarray(found).astype(int)
    return bool(np.abs(before - after).max() <= MAX_CHANGE)
