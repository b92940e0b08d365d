"""Do captions count? What the card says of the evaluation, computed from its pairs.

Each pair is a hand of different captions, one of which was drawn: the picture's own. Which one, a coin said that nothing but the
recipe's seed and the pair's number decides. Where pictures say nothing of their captions, every caption of the hand is equally likely
to be the own one, whatever the judge thinks of pictures and captions. So a win, the own caption in the better half of its hand, has
a chance of at most one half, wins are independent, and the exact binomial bound holds.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...data_filter.deciding.statistics import lower_bound
from ...data_filter.sources.source import hash_share
from ...errors import ReleaseError
from ...recipe.training import EvaluateConfig
from ...store.strict_json import load_lines
from ..evidence.comparison import Claims, show, stated_cuts
from ..evidence.contents import Release, need
from .noised_clip import noised_clip_figures
from .upsampler import upsampler_figures

MOST_CAPTIONS = 8  # of a hand
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


def deal_pairs(images: Iterable[Mapping[str, Any]], config: EvaluateConfig, seed: int) -> list[dict[str, Any]]:
    """Deal different captions out in hands, and choose from each hand the caption that the coin says: nobody picks one.

    Captions of the split that the recipe names come first, in the order of the hash of their first image; those of the other split
    only fill up to one for each pair. A caption that several images share is one caption.

    Args:
        images: key, caption and split of each kept image.
        config: how many pairs, and from which split.
        seed: of the recipe.

    Returns:
        Plain rows: index, prompt, key, split, seed, others (the rest of the hand); none where there are not two different captions.
    """
    rows = sorted(images, key=lambda row: (row["split"] != config.captions_from, hash_share(str(seed), row["key"])))
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["split"] == config.captions_from or len(first) < max(2, config.num_pairs):
            first.setdefault(row["caption"], row)
    if len(first) < 2:
        return []
    pairs = []
    for index, hand in enumerate(deal_captions(list(first), config.num_pairs, seed)):
        prompt = hand[own_place(seed, index, len(hand))]
        pairs.append({"index": index, "prompt": prompt, "key": first[prompt]["key"], "split": first[prompt]["split"], "seed": seed + index,
                      "others": [caption for caption in hand if caption != prompt]})
    return pairs


def deal_captions(captions: Sequence[str], num_hands: int, seed: int) -> list[list[str]]:
    """Deal hands of up to eight different captions, always an even number, each hand sorted.

    No caption comes again before the others were dealt, but for a rest too small for a hand.
    """
    size = min(MOST_CAPTIONS, len(captions) // 2 * 2)
    generator, deck, hands = random.Random(seed), list(captions), []
    for _ in range(num_hands):
        if len(deck) < size:
            deck = generator.sample(captions, len(captions))
        hands.append(sorted(deck[:size]))
        deck = deck[size:]
    return hands


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
                "demand.bound": release.policy.captions.bound,
                "num_steps": settings.num_steps, "guidance_scale": settings.guidance_scale, "worst": list_worst(pairs),
                "guidance": measure_guidance(release), "upsampler": upsampler_figures(release),
                "noised_clip": noised_clip_figures(release)} | stated_cuts(release.record("evaluation"))
    return {f"evaluation.{name}": value for name, value in counted.items()}


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
    rows, measured = release.read(GUIDANCE_PATH, load_lines), []
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
    """One sentence for each pair that is not the one that the recipe's seed deals from the captions of the images that the ledger keeps."""
    ledger, settings, seed = release.ledger, release.recipe.evaluate, release.recipe.seed
    rows = zip(ledger["key"], ledger["caption"], ledger["split"], ledger["decision"], strict=True)
    kept = [{"key": key, "caption": caption, "split": split} for key, caption, split, decision in rows if decision == "keep" and caption]
    expected, problems = deal_pairs(kept, settings, seed), []
    if len(release.pairs) != len(expected):
        problems.append(f"evaluation: has {len(release.pairs)} pairs, the recipe's seed deals {len(expected)}; run the evaluation again")
    for number, (pair, dealt) in enumerate(zip(release.pairs, expected, strict=False)):
        for name, value in dealt.items():
            if (found := need(pair, name, where=PAIRS_PATH)) != value:
                problems.append(f"evaluation: {name} of pair {number} is {show(found)}, the recipe's seed deals {show(value)}; run the "
                                "evaluation again")
                break
    return problems
