"""Do captions count? What the card says of the evaluation, computed from its pairs.

Each pair is a hand of different captions, one of which was drawn: the picture's own. Which one, a coin said that nothing but the
recipe's seed and the pair's number decides. Where pictures say nothing of their captions, every caption of the hand is equally likely
to be the own one, whatever the judge thinks of pictures and captions. So a win, the own caption in the better half of its hand, has
a chance of at most one half, wins are independent, and the exact binomial bound holds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...data_filter.sources import hash_share
from ...data_filter.statistics import lower_bound
from ...errors import ReleaseError
from ...records import Record
from ..comparison import Claims
from ..contents import Release, need
from ..layout import parse_json_lines

NUM_WORST = 8
PAIRS_PATH = "evidence/evaluation/pairs.jsonl"
GUIDANCE_PATH = "evidence/evaluation/guidance.jsonl"
Pair = Mapping[str, Any]


def own_place(seed: int, index: int, num_captions: int) -> int:
    """Which caption of a pair's hand, sorted, is drawn: the coin of the test.

    Args:
        seed: of the recipe.
        index: the pair's number.
        num_captions: captions in the hand.
    """
    return int(hash_share(str(seed), "own caption", str(index)) * num_captions)


def evaluation_claims(release: Release) -> Claims:
    """The claims about the evaluation, counted from its pairs and the ledger.

    Raises:
        ReleaseError: no pair, or malformed ones.
    """
    pairs = release.pairs
    if not pairs:
        raise ReleaseError(f"{PAIRS_PATH}: no pair was evaluated; run the evaluation again, then pack")
    held_back = {key for key, split in zip(release.ledger["key"], release.ledger["split"], strict=True) if split == "validation"}
    settings, counted = release.recipe.evaluate, count_wins(pairs)
    counted |= {"num_held_back": sum(need(pair, "key", where=PAIRS_PATH) in held_back for pair in pairs),
                "num_others": len(need(pairs[0], "others", where=PAIRS_PATH)),
                "min_share_lower_bound": release.recipe.release.min_ranked_share_lower_bound,
                "num_steps": settings.num_steps, "guidance_scale": settings.guidance_scale, "worst": list_worst(pairs),
                "guidance": measure_guidance(release)} | stated_cuts(release.record("evaluation"))
    return {f"evaluation.{name}": value for name, value in counted.items()}


def stated_cuts(record: Record) -> Claims:
    """How many captions a stage read, and how many of them only in part, as its record states; none where it was not counted yet."""
    return {name: record.summary.get(name) for name in ("num_captions", "num_captions_cut")}


def compare_with_middle(pair: Pair) -> tuple[float, float, int]:
    """How close a picture is to its own caption, and to the middle one of the others.

    Both are taken above the caption's mean cosine with all pictures of the evaluation: some captions lie close to any picture.

    Returns:
        The own caption's advantage, that of the middle one of the other captions, and the middle one's place among the others.

    Raises:
        ReleaseError: scores are missing, or the other captions have no middle.
    """
    own, own_mean, others, means = (need(pair, key, where=PAIRS_PATH) for key in ("own_score", "own_mean", "other_scores", "other_means"))
    if len(others) % 2 == 0 or len(others) != len(means) or not all(map(math.isfinite, (own, own_mean, *others, *means))):
        raise ReleaseError(f"{PAIRS_PATH}: a picture is compared with an odd number of other captions, each with its score and mean, got "
                           f"{len(others)} and {len(means)}; run the evaluation again, then pack")
    ranked = sorted((score - mean, place) for place, (score, mean) in enumerate(zip(others, means, strict=True)))
    middle, place = ranked[len(ranked) // 2]
    return own - own_mean, middle, place


def count_wins(pairs: Sequence[Pair]) -> dict[str, Any]:
    """How often a picture's own caption came into the better half, with the exact one-sided 95 % lower bound of the share.

    A tie with the middle one of the other captions is no win.
    """
    compared = [compare_with_middle(pair) for pair in pairs]
    num_wins = sum(own > middle for own, middle, _ in compared)
    return {"num_pairs": len(pairs), "num_wins": num_wins, "share": num_wins / len(pairs),
            "share_lower_bound": lower_bound(num_wins, len(pairs))}


def list_worst(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The eight pictures whose own caption fits least compared with the middle one of the others, worst first."""
    rows = []
    for pair in pairs:
        own, middle, place = compare_with_middle(pair)
        rows.append({**{key: need(pair, key, where=PAIRS_PATH) for key in ("index", "prompt")}, "own_advantage": round(own, 6),
                     "other_prompt": need(pair, "others", where=PAIRS_PATH)[place], "other_advantage": round(middle, 6)})
    return sorted(rows, key=lambda row: (row["own_advantage"] - row["other_advantage"], row["index"]))[:NUM_WORST]


def measure_guidance(release: Release) -> list[dict[str, Any]]:
    """For each guidance scale that was tried: wins, and mean CLIP scores with their standard errors. Empty: not measured."""
    if not (release.directory / GUIDANCE_PATH).is_file():
        return []
    rows, measured = release.read(GUIDANCE_PATH, parse_json_lines), []
    for scale in sorted({need(row, "guidance_scale", where=GUIDANCE_PATH) for row in rows}):
        pairs = [row for row in rows if row["guidance_scale"] == scale]
        figures = count_wins(pairs)
        figures |= mean_and_error([pair["own_score"] for pair in pairs], "own")
        figures |= mean_and_error([math.fsum(pair["other_scores"]) / len(pair["other_scores"]) for pair in pairs], "other")
        measured.append({"guidance_scale": scale, **figures})
    return measured


def mean_and_error(values: list[float], kind: str) -> dict[str, float]:
    """Mean of some scores and its standard error, as `mean_<kind>_score` and `<kind>_error`; the error of one score is 0."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return {f"mean_{kind}_score": mean, f"{kind}_error": math.sqrt(variance / len(values))}


def check_evaluation_design(release: Release) -> list[str]:
    """One sentence for each pair whose drawn caption is not the one that the coin says, or whose captions are not those of kept images."""
    kept = {caption for caption, decision in zip(release.ledger["caption"], release.ledger["decision"], strict=True) if decision == "keep"}
    seed, pairs, problems = release.recipe.seed, release.pairs, []
    if len({len(need(pair, "others", where=PAIRS_PATH)) for pair in pairs}) > 1:
        problems.append("evaluation: pictures are compared with different numbers of captions; run the evaluation again")
    for number, pair in enumerate(pairs):
        prompt, others, index, drawn_with = (need(pair, key, where=PAIRS_PATH) for key in ("prompt", "others", "index", "seed"))
        hand = sorted([prompt, *others])
        if index != number or drawn_with != seed + number:
            problems.append(f"evaluation: pair {number} has the number {index} and the seed {drawn_with}, expected the seed {seed + number}")
        elif len(set(hand)) != len(hand) or not set(hand) <= kept:
            problems.append(f"evaluation: the captions of pair {number} are not {len(hand)} different captions of kept images")
        elif hand[own_place(seed, number, len(hand))] != prompt:
            problems.append(f"evaluation: pair {number} was drawn from {prompt!r:.80}, the recipe's seed chooses "
                            f"{hand[own_place(seed, number, len(hand))]!r:.80}; run the evaluation again")
    return problems
