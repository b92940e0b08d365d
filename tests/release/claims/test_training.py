import math
from pathlib import Path

import pytest

from glideslope.release.claims.evaluation import evaluation_claims
from glideslope.release.claims.training import cost_claims, training_claims
from glideslope.release.evidence.contents import open_evidence


def test_cost_takes_training_by_its_rate_and_other_stages_by_their_clock(packed_run: Path) -> None:
    claims = cost_claims(open_evidence(packed_run / "release"))
    rows = {row["stage"]: row for row in claims["cost.stages"]}
    assert rows["training/base"]["seconds"] == 64.0  # 1,920 images at 30 a second, whatever the clock of the last start said
    assert claims["cost.seconds"] == pytest.approx(math.fsum(row["seconds"] or 0 for row in rows.values()), abs=0.2)
    assert set(rows) == set(open_evidence(packed_run / "release").records)


def test_cut_captions_are_what_the_records_state_or_not_counted(packed_run: Path) -> None:
    claims = training_claims(open_evidence(packed_run / "release"), "base") | evaluation_claims(open_evidence(packed_run / "release"))
    assert (claims["training.base.num_captions"], claims["training.base.num_captions_cut"]) == (None, None)
    assert (claims["evaluation.num_captions"], claims["evaluation.num_captions_cut"]) == (11, 2)
