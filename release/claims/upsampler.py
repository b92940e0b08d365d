"""What the card says of the upsampler, computed from the held-back pictures that it enlarged: does it do more than interpolation?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...data_filter.deciding.statistics import lower_bound
from ...errors import ReleaseError
from ...pictures.likeness import MAX_PSNR
from ...store.strict_json import load_lines
from ..evidence.contents import Release
from .held_back import choose_for_upsampler, compare_keys, list_held_back, need_number

UPSAMPLER_PATH = "evidence/evaluation/upsampler.jsonl"
# What a row states, each with its bounds: rounded to four digits, the largest ratio may come out a little above itself.
BOUNDS = {"psnr": (0, MAX_PSNR + 1e-4), "ssim": (-1, 1), "bicubic_psnr": (0, MAX_PSNR + 1e-4), "bicubic_ssim": (-1, 1)}


def read_upsampler_rows(release: Release) -> list[dict[str, Any]] | None:
    """One row for each picture that the upsampler enlarged; none at all where the run did not train one.

    Raises:
        ReleaseError: the rows are missing or malformed.
    """
    return release.read(UPSAMPLER_PATH, load_lines) if "upsampler" in release.trained_networks else None


def measure_upsampler(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over all pictures, and how often the upsampler won, with the exact one-sided 95 % lower bound of that share.

    A picture is won where the upsampler's comes closer to the real one than bicubic interpolation by both measures; a tie is no win.

    Args:
        rows: psnr, ssim, bicubic_psnr and bicubic_ssim of each picture.

    Raises:
        ReleaseError: no row, or a figure that there cannot be.
    """
    if not rows:
        raise ReleaseError(f"{UPSAMPLER_PATH}: no picture was enlarged; hold images back (curate.validation_share), run the evaluation again, "
                           "then pack")
    found = [{name: need_number(row, name, *bounds, where=UPSAMPLER_PATH) for name, bounds in BOUNDS.items()} for row in rows]
    num_wins = sum(row["psnr"] > row["bicubic_psnr"] and row["ssim"] > row["bicubic_ssim"] for row in found)
    return {"num_pictures": len(found), **{f"mean_{name}": math.fsum(row[name] for row in found) / len(found) for name in BOUNDS},
            "num_wins": num_wins, "share": num_wins / len(found), "share_lower_bound": lower_bound(num_wins, len(found))}


def upsampler_figures(release: Release) -> dict[str, Any] | None:
    """What `measure_upsampler` gives for a release; none where the run did not train an upsampler."""
    rows = read_upsampler_rows(release)
    return None if rows is None else measure_upsampler(rows)


def check_upsampler_design(release: Release) -> list[str]:
    """One sentence for each row that is not of the picture that the recipe's seed chooses among the held-back ones."""
    rows = read_upsampler_rows(release)
    if rows is None:
        return []
    chosen = choose_for_upsampler(list_held_back(release), release.recipe.seed)
    return compare_keys(rows, [image["key"] for image in chosen], where=UPSAMPLER_PATH)
