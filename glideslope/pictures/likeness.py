"""How alike two pictures of one size are, pixel by pixel: peak signal-to-noise ratio and structural similarity."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from .decode import Pixels

MAX_VALUE = 255.0
MIN_ERROR = 1 / 12  # mean square of what rounding to whole values leaves, so that equal pictures have a finite ratio
MAX_PSNR = 10 * math.log10(MAX_VALUE**2 / MIN_ERROR)
WINDOW_RADIUS, WINDOW_SIGMA = 5, 1.5
LUMINANCE_CONSTANT, CONTRAST_CONSTANT = (0.01 * MAX_VALUE) ** 2, (0.03 * MAX_VALUE) ** 2


def measure_psnr(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio in decibels, over all pixels and colours: the higher, the more alike; at most 58.9.

    Args:
        first, second: uint8 (H, W, 3).

    Raises:
        ValueError: of two sizes.
    """
    a, b = _as_floats(first, second)
    return 10 * math.log10(MAX_VALUE**2 / max(MIN_ERROR, float(np.mean((a - b) ** 2))))


def measure_ssim(first: Pixels, second: Pixels) -> float:
    """Structural similarity (Wang et al., IEEE Transactions on Image Processing 13 (2004), 600-612): 1 for equal pictures.

    Means and variances are those of an 11 x 11 Gaussian window of deviation 1.5 (equations 14 and 15), with K1 = 0.01 and K2 = 0.03;
    windows that reach beyond the picture are left out. The mean of the three colours, for the paper speaks of grey pictures.

    Args:
        first, second: uint8 (H, W, 3), no side shorter than 11.

    Raises:
        ValueError: of two sizes, or smaller than a window.
    """
    a, b = _as_floats(first, second)
    if min(a.shape[:2]) < 2 * WINDOW_RADIUS + 1:
        raise ValueError(f"pictures of {a.shape[1]} x {a.shape[0]} pixels are smaller than a window of {2 * WINDOW_RADIUS + 1}")
    mean_a, mean_b = _window_means(a), _window_means(b)
    variance_a, variance_b = _window_means(a * a) - mean_a**2, _window_means(b * b) - mean_b**2
    covariance = _window_means(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + LUMINANCE_CONSTANT) / (mean_a**2 + mean_b**2 + LUMINANCE_CONSTANT)
    structure = (2 * covariance + CONTRAST_CONSTANT) / (variance_a + variance_b + CONTRAST_CONSTANT)
    return float(np.mean(luminance * structure))


def _as_floats(first: Pixels, second: Pixels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if first.shape != second.shape:
        raise ValueError(f"pictures of one size are compared, got {first.shape} and {second.shape}")
    return first.astype(np.float64), second.astype(np.float64)


def _window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    for axis in (0, 1):
        values = gaussian_filter1d(values, WINDOW_SIGMA, axis=axis, radius=WINDOW_RADIUS)
    return values[WINDOW_RADIUS:-WINDOW_RADIUS, WINDOW_RADIUS:-WINDOW_RADIUS]
