import numpy as np
from scipy.linalg import sqrtm

from benchmarks.sampling import BASELINE, Outcome, frechet_distance, resample, settings


def test_the_distance_is_that_of_the_closed_form_with_covariances() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(60, 5)) @ generator.normal(size=(5, 5)), generator.normal(1.0, 2.0, size=(80, 5))
    first, second = np.cov(one.T), np.cov(other.T)
    root = sqrtm(first @ second).real
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert abs(frechet_distance(one, other) - expected) < 1e-8


def test_the_distance_holds_with_fewer_rows_than_columns_and_is_none_to_itself() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 50))
    assert abs(frechet_distance(rows, rows)) < 1e-9
    assert abs(frechet_distance(rows, rows + 0.5) - 50 * 0.25) < 1e-9


def test_every_resample_is_judged_by_its_own_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 3))
    outcome = Outcome(embeddings=rows, cosines=np.arange(6.0))
    figures = resample(outcome, [np.array([0, 1, 2]), np.array([5, 5, 4])], rows)
    assert figures[:, 0].tolist() == [1.0, 14 / 3]
    assert abs(figures[0, 1] - frechet_distance(rows[:3], rows)) < 1e-12


def test_the_baseline_is_guided_at_every_one_of_its_hundred_steps_and_no_other_takes_more_than_twenty_five() -> None:
    compared = settings(3.0, (0.1, 0.8))
    baseline = compared.pop(BASELINE)
    assert (baseline.sampler, baseline.num_steps, baseline.guidance_interval, baseline.guidance_scale) == ("ddpm", 100, None, 3.0)
    assert all(options.num_steps <= 25 and options.guidance_scale == 3.0 for options in compared.values())
