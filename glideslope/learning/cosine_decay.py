"""How a learning rate falls."""

import math


def half_cosine(done: float, total: float = 1.0) -> float:
    """Factor of the learning rate that falls from 1 to 0 as half a cosine.

    Args:
        done: from 0 to `total`, in any unit.
        total: where the factor is 0.
    """
    return 0.5 * (1 + math.cos(math.pi * done / total))
