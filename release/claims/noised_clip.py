"""What the card says of the noised CLIP: at which noise does it still tell which caption belongs to a held-back picture?"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ReleaseError
from ...recipe.training import NUM_TRAIN_STEPS
from ...store.strict_json import load_lines
from ..evidence.contents import Release
from .held_back import choose_for_noised_clip, compare_keys, list_held_back, need_number

NOISED_CLIP_PATH = "evidence/evaluation/noised_clip.jsonl"
NUM_LEVELS = 8
TIMESTEPS = tuple(range(0, NUM_TRAIN_STEPS, NUM_TRAIN_STEPS // NUM_LEVELS))  # of the noise, from almost none up


def measure_noised_clip(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each noise level: how many pictures have their own caption first among all of them, beside chance.

    Args:
        rows: timestep, key and rank of each picture at each level: the place of its own caption among the captions of all pictures, 1
            the first; captions that fit as well come before it.

    Returns:
        Level (timestep as a share of all), pairs, own captions that are first, their share, and what it would be by chance; nothing for
        no row.

    Raises:
        ReleaseError: other levels than those, or a rank that there cannot be.
    """
    timesteps = [need_number(row, "timestep", 0, NUM_TRAIN_STEPS, where=NOISED_CLIP_PATH) for row in rows]
    num_pairs = len(rows) // NUM_LEVELS
    if timesteps != [timestep for timestep in TIMESTEPS for _ in range(num_pairs)]:
        raise ReleaseError(f"{NOISED_CLIP_PATH}: expected as many rows at each of the timesteps {', '.join(map(str, TIMESTEPS))}, in this "
                           "order; run the evaluation again, then pack")
    measured = []
    for start in range(0, len(rows), num_pairs or 1):
        ranks = [need_number(row, "rank", 1, num_pairs, where=NOISED_CLIP_PATH) for row in rows[start:start + num_pairs]]
        num_first = sum(rank == 1 for rank in ranks)
        measured.append({"level": timesteps[start] / NUM_TRAIN_STEPS, "num_pairs": num_pairs, "num_first": num_first,
                         "share": num_first / num_pairs, "chance": 1 / num_pairs})
    return measured


def noised_clip_figures(release: Release) -> list[dict[str, Any]]:
    """What `measure_noised_clip` gives for a release."""
    return measure_noised_clip(release.read(NOISED_CLIP_PATH, load_lines))


def check_noised_clip_design(release: Release) -> list[str]:
    """One sentence for each row that is not of the pair that the recipe's seed chooses among the held-back ones."""
    rows = release.read(NOISED_CLIP_PATH, load_lines)
    chosen = choose_for_noised_clip(list_held_back(release), release.recipe.seed)
    return compare_keys(rows, [image["key"] for image in chosen] * NUM_LEVELS, where=NOISED_CLIP_PATH)
