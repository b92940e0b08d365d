"""Exact one-sided bounds on shares (Clopper and Pearson, Biometrika 26, 1934)."""

from scipy.stats import beta


def lower_bound(num_hits: int, num_trials: int, *, confidence: float = 0.95) -> float:
    """The largest share p0 of which one can say, with this confidence, that the true share is at least p0.

    Args:
        num_hits: trials that succeeded.
        num_trials: independent trials; 0 proves nothing and gives 0.
        confidence: of the one-sided statement.

    Raises:
        ValueError: not 0 <= num_hits <= num_trials.
    """
    check_counts(num_hits, num_trials)
    if num_hits == 0:
        return 0.0
    return float(beta.ppf(1 - confidence, num_hits, num_trials - num_hits + 1))


def upper_bound(num_hits: int, num_trials: int, *, confidence: float = 0.95) -> float:
    """The smallest share p1 of which one can say, with this confidence, that the true share is at most p1.

    0 of 1,024 gives 0.00292. 0 trials prove nothing and give 1. See `lower_bound`.
    """
    check_counts(num_hits, num_trials)
    if num_hits == num_trials:
        return 1.0
    return float(beta.ppf(confidence, num_hits + 1, num_trials - num_hits))


def check_counts(num_hits: int, num_trials: int) -> None:
    """Refuse counts that cannot be."""
    if not 0 <= num_hits <= num_trials:
        raise ValueError(f"{num_hits} hits of {num_trials} trials: expected 0 <= hits <= trials")
