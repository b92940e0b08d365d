"""What is said of trained networks on held-back pictures: computed from its rows, which are those that the seed chooses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from glideslope.errors import ReleaseError
from glideslope.pictures.likeness import MAX_PSNR
from glideslope.release.claims.held_back import choose_for_noised_clip, choose_for_upsampler
from glideslope.release.claims.noised_clip import NOISED_CLIP_PATH, NUM_LEVELS, TIMESTEPS, measure_noised_clip
from glideslope.release.claims.upsampler import UPSAMPLER_PATH, measure_upsampler
from glideslope.release.evidence.chain import check_evaluation
from glideslope.release.evidence.contents import open_evidence
from glideslope.release.vetting.gates.gate import run_check

from ..test_verify import problems_of

Rows = list[dict[str, Any]]
IMAGES = [{"key": f"key-{n}", "caption": f"caption {n % 100}"} for n in range(300)]
ENLARGED = [{"key": str(n), "psnr": 20.0 + n, "ssim": 0.9, "bicubic_psnr": 21.0, "bicubic_ssim": 0.8} for n in range(4)]


def test_the_seed_chooses_whatever_the_order_and_captions_come_once_where_they_are_told_apart() -> None:
    for choose, number in ((choose_for_upsampler, 64), (choose_for_noised_clip, 100)):
        chosen = choose(IMAGES, 1)
        assert chosen == choose(list(reversed(IMAGES)), 1) != choose(IMAGES, 2)
        assert len({image["key"] for image in chosen}) == len(chosen) == number
    assert len({image["caption"] for image in choose_for_noised_clip(IMAGES, 1)}) == 100
    assert len(choose_for_noised_clip([{"key": str(n), "caption": str(n)} for n in range(300)], 1)) == 128
    assert choose_for_noised_clip([{"key": "a", "caption": "x"}, {"key": "b", "caption": "x"}], 1) == []


def test_the_upsampler_wins_where_both_measures_say_so_and_the_bound_is_exact() -> None:
    figures = measure_upsampler([*ENLARGED, ENLARGED[3] | {"bicubic_ssim": 0.9}, ENLARGED[3] | {"ssim": 0.7}])
    assert (figures["num_pictures"], figures["num_wins"]) == (6, 2)  # a tie is no win, nor is one measure alone
    assert binom.sf(1, 6, figures["share_lower_bound"]) == pytest.approx(0.05)
    assert figures["mean_psnr"] == pytest.approx((20 + 21 + 22 + 3 * 23) / 6) and figures["mean_bicubic_psnr"] == 21.0


@pytest.mark.parametrize(("change", "told"), [
    ({"psnr": float("inf")}, "psnr is inf, expected a number from 0 to 58.9"), ({"bicubic_ssim": float("nan")}, "bicubic_ssim is nan"),
    ({"psnr": MAX_PSNR + 0.1}, "psnr is 59"), ({"psnr": True}, "psnr is True"), ({"ssim": "0.9"}, "ssim is '0.9'"),
    ({"ssim": 1.01}, "ssim is 1.01")])
def test_figures_that_there_cannot_be_are_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ReleaseError, match=told):
        measure_upsampler([*ENLARGED, ENLARGED[0] | change])


def test_no_picture_and_a_row_without_a_figure_are_refused() -> None:
    with pytest.raises(ReleaseError, match="no picture was enlarged; hold images back"):
        measure_upsampler([])
    with pytest.raises(ReleaseError, match="'ssim' is missing"):
        measure_upsampler([{"key": "a", "psnr": 20.0}])


def ranked(rank: Callable[[int, int], Any], num_pairs: int = 5) -> Rows:
    return [{"timestep": timestep, "key": str(place), "rank": rank(timestep, place)} for timestep in TIMESTEPS for place in range(num_pairs)]


def test_own_captions_that_come_first_are_counted_at_each_noise_beside_chance() -> None:
    measured = measure_noised_clip(ranked(lambda timestep, place: 1 if 200 * place < 1000 - timestep else 3))
    assert [row["level"] for row in measured] == [number / NUM_LEVELS for number in range(NUM_LEVELS)]
    assert [row["num_first"] for row in measured] == [5, 5, 4, 4, 3, 2, 2, 1]
    assert {(row["num_pairs"], row["chance"]) for row in measured} == {(5, 0.2)} and measured[2]["share"] == 0.8


@pytest.mark.parametrize(("rows", "told"), [
    (ranked(lambda *_: 0), "rank is 0, expected a number from 1 to 5"), (ranked(lambda *_: 6), "rank is 6"),
    (ranked(lambda *_: 1)[:-1], "as many rows at each of the timesteps 0, 125"), (ranked(lambda *_: 1)[:5], "as many rows at each"),
    ([row | {"timestep": row["timestep"] + 0.5} for row in ranked(lambda *_: 1)], "as many rows at each"),
    (ranked(lambda *_: 1)[::-1], "as many rows at each"), (ranked(lambda *_: float("nan")), "rank is nan")])
def test_other_levels_and_ranks_that_there_cannot_be_are_refused(rows: Rows, told: str) -> None:
    with pytest.raises(ReleaseError, match=told):
        measure_noised_clip(rows)


def test_a_release_says_what_its_rows_give(cascade_run: Path) -> None:
    claims = json.loads((cascade_run / "release/evidence/claims.json").read_text())
    found = claims["evaluation.upsampler"]
    held_back = claims["ledger.num_validation"]
    assert found["num_pictures"] == held_back and found["num_wins"] == held_back - -(-held_back // 4)
    assert [row["num_pairs"] for row in claims["evaluation.noised_clip"]] == [held_back] * 8
    card, bill = ((cascade_run / "release" / path).read_text() for path in ("README.md", "evidence/mlbom.cdx.json"))
    assert f"**{found['num_wins']} of {held_back}** times" in card and "| Noise level | 0 | 0.125 |" in card
    assert "upsampler enlarges closer to the real ones" in bill and "RGB picture, 32 x 32 pixels" in bill


def test_a_release_without_an_upsampler_says_nothing_of_one(packed_run: Path) -> None:
    claims = json.loads((packed_run / "release/evidence/claims.json").read_text())
    assert claims["evaluation.upsampler"] is None and len(claims["evaluation.noised_clip"]) == NUM_LEVELS
    assert not (packed_run / "release" / UPSAMPLER_PATH).exists()


def exchange_key(rows: Rows, key: str) -> None:
    rows[0]["key"] = key


@pytest.mark.parametrize("path", [UPSAMPLER_PATH, NOISED_CLIP_PATH])
@pytest.mark.parametrize(("change", "told"), [
    (lambda rows: rows.pop(), "run the evaluation again"), (lambda rows: rows.clear(), "run the evaluation again"),
    (lambda rows: exchange_key(rows, "1F001"), "row 0 is of the picture '1F001', the recipe's seed"),
    (lambda rows: exchange_key(rows, "broken"), "of those that the ledger holds back")])
def test_rows_that_are_missing_or_of_other_pictures_are_named(cascade_tamper: Any, path: str, change: Callable[[Rows], Any], told: str) -> None:
    rows = [json.loads(line) for line in (cascade_tamper.directory / path).read_text().splitlines()]
    change(rows)
    (cascade_tamper.directory / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert told in "\n".join(run_check("evaluation", check_evaluation, open_evidence(cascade_tamper.directory)))


def test_better_figures_than_were_reported_are_named(cascade_tamper: Any) -> None:
    cascade_tamper.text(UPSAMPLER_PATH, '"bicubic_psnr":21.25', '"bicubic_psnr":1.25')
    cascade_tamper.text(NOISED_CLIP_PATH, '"rank":2', '"rank":1')
    found = "\n".join(check_evaluation(open_evidence(cascade_tamper.directory)))
    assert "evaluation: upsampler is reported as" in found and "evaluation: noised_clip is reported as" in found
    cascade_tamper.json("evidence/evaluation/evaluation.json", lambda report: report.pop("upsampler"))
    assert "upsampler is not reported in evaluation.json" in "\n".join(check_evaluation(open_evidence(cascade_tamper.directory)))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(cascade_tamper: Any, number: str) -> None:
    cascade_tamper.text(UPSAMPLER_PATH, '"bicubic_psnr":21.25', f'"bicubic_psnr":{number}')
    assert f"{UPSAMPLER_PATH}: not readable" in "\n".join(run_check("evaluation", check_evaluation, open_evidence(cascade_tamper.directory)))


@pytest.mark.parametrize("path", [UPSAMPLER_PATH, NOISED_CLIP_PATH])
def test_a_release_without_the_rows_is_refused_though_its_manifest_fits(cascade_tamper: Any, path: str) -> None:
    (cascade_tamper.directory / path).unlink()
    cascade_tamper.seal()
    assert f"{path}: file is missing" in problems_of(cascade_tamper.directory)
    name = path.rpartition("/")[2]
    cascade_tamper.record("evaluation", lambda r: r.update(outputs=[one for one in r["outputs"] if one["path"] != name]))
    cascade_tamper.seal()
    assert f"stage evaluation has not written {name}" in problems_of(cascade_tamper.directory)
