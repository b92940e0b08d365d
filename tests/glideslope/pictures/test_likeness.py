import math

import numpy as np
import pytest

from glideslope.pictures.likeness import MAX_PSNR, measure_psnr, measure_ssim


def noise(seed: int, height: int = 17, width: int = 14) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ssim_by_hand(first: np.ndarray, second: np.ndarray) -> float:
    """Equation 13 of the paper at every whole window, one after the other."""
    line = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    found = []
    for colour in range(3):
        for top in range(first.shape[0] - 10):
            for left in range(first.shape[1] - 10):
                x, y = (part[top:top + 11, left:left + 11, colour].astype(float) for part in (first, second))
                mean_x, mean_y = (window * x).sum(), (window * y).sum()
                variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
                covariance = (window * (x - mean_x) * (y - mean_y)).sum()
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                found.append((2 * mean_x * mean_y + c1) * (2 * covariance + c2)
                             / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)))
    return float(np.mean(found))


def test_structural_similarity_is_the_papers_sum_window_by_window() -> None:
    first, other = noise(0), noise(1)
    near = (0.7 * first + 0.3 * other).astype(np.uint8)
    for second in (near, other, 255 - first):
        assert measure_ssim(first, second) == pytest.approx(ssim_by_hand(first, second), abs=1e-9)
    assert measure_ssim(first, first) == pytest.approx(1) and measure_ssim(first, near) > measure_ssim(first, other)
    assert measure_ssim(first, 255 - first) < 0


def test_the_peak_ratio_is_that_of_the_mean_squared_error() -> None:
    first = np.full((4, 6, 3), 100, np.uint8)
    assert measure_psnr(first, first + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert measure_psnr(first * 0, first * 0 + 255) == 0
    assert measure_psnr(first, first) == MAX_PSNR == pytest.approx(58.92, abs=0.01)
    one_apart = first.copy()
    one_apart[0, 0, 0] += 1
    assert measure_psnr(first, one_apart) == MAX_PSNR  # less than rounding leaves


def test_pictures_of_two_sizes_or_smaller_than_a_window_are_refused() -> None:
    for measure in (measure_psnr, measure_ssim):
        with pytest.raises(ValueError, match="pictures of one size"):
            measure(noise(0), noise(0, height=18))
    with pytest.raises(ValueError, match="14 x 10 pixels are smaller than a window of 11"):
        measure_ssim(noise(0, height=10), noise(1, height=10))
