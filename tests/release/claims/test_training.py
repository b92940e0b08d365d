import json
import math
from pathlib import Path

import pytest

from glideslope.errors import ReleaseError
from glideslope.release.claims.training import GUIDANCE_PATH, cost_claims, list_worst, mean_and_error, measure_guidance
from glideslope.release.contents import Release


def test_what_guidance_does_is_counted_from_its_rows(release_dir: Path) -> None:
    assert measure_guidance(Release(release_dir)) == []
    rows = [{"guidance_scale": scale, "index": i, "own_score": 0.1 * scale + 0.01 * i, "random_score": 0.15}
            for scale in (3.0, 1.0) for i in (0, 1)]
    (release_dir / GUIDANCE_PATH).write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, guided = measure_guidance(Release(release_dir))
    assert (plain["guidance_scale"], plain["num_wins"], plain["num_pairs"]) == (1.0, 0, 2)
    assert (guided["guidance_scale"], guided["num_wins"], guided["share"]) == (3.0, 2, 1.0)
    assert guided["mean_own_score"] == pytest.approx(0.305) and guided["own_error"] == pytest.approx(0.005)
    (release_dir / GUIDANCE_PATH).write_text('{"index": 0}\n')
    with pytest.raises(ReleaseError, match="guidance_scale"):
        measure_guidance(Release(release_dir))


def test_the_standard_error_of_one_score_is_nothing_and_of_many_falls_with_their_root() -> None:
    assert mean_and_error([0.5], "own") == {"mean_own_score": 0.5, "own_error": 0.0}
    few, many = mean_and_error([0.0, 1.0] * 8, "own"), mean_and_error([0.0, 1.0] * 800, "own")
    assert few["own_error"] / many["own_error"] == pytest.approx(10, rel=0.05)


def test_the_worst_pictures_come_worst_first_and_ties_by_number() -> None:
    pairs = [{"index": i, "prompt": str(i), "random_prompt": "r", "own_score": own, "random_score": 0.2}
             for i, own in enumerate((0.3, 0.1, 0.1, 0))]
    assert [row["index"] for row in list_worst(pairs)] == [3, 1, 2, 0]


def test_cost_takes_training_by_its_rate_and_other_stages_by_their_clock(packed_run: Path) -> None:
    claims = cost_claims(Release(packed_run / "release"))
    rows = {row["stage"]: row for row in claims["cost.stages"]}
    assert rows["training/base"]["seconds"] == 64.0  # 1,920 images at 30 a second, whatever the clock of the last start said
    assert claims["cost.seconds"] == pytest.approx(math.fsum(row["seconds"] or 0 for row in rows.values()), abs=0.2)
    assert set(rows) == set(Release(packed_run / "release").records)
