from pathlib import Path

import pyarrow as pa
import pytest

from glideslope.data_filter.index.parquet import write_table
from glideslope.data_filter.mutations.figures import PLANTED_SCHEMA
from glideslope.errors import ReleaseError
from glideslope.release.claims.mutations import mutation_claims, planted_path
from glideslope.release.evidence.contents import Release, open_evidence
from glideslope.store.records import Record
from glideslope.store.stage_manifest import Manifest


def planted(release: Release, scores: list[float | None]) -> Release:
    """A test of one positive and one other in two shapes, scored so."""
    threshold = release.filter("person")["threshold"]
    places = [(mutation, key, label) for mutation in ("unchanged", "mirrored") for key, label in (("p", 1), ("o", 0))]
    rows = [{"mutation": mutation, "key": key, "concept": key, "label": label, "area_share": 0.5, "score": score, "was_dropped": label == 1,
             "dropped": score is None or not score < threshold} for (mutation, key, label), score in zip(places, scores, strict=True)]
    write_table(release.directory / planted_path("person"), pa.Table.from_pylist(rows, schema=PLANTED_SCHEMA))
    release.records["mutations/person"] = Record("mutations/person", {}, {}, Manifest(()), {}, {})
    return release


def test_without_a_test_nothing_is_claimed(release_dir: Path) -> None:
    assert mutation_claims(open_evidence(release_dir), "person") == {"mutations.person.list": []}


def test_recall_after_each_change_is_counted_from_the_planted_pictures(release_dir: Path) -> None:
    claims = mutation_claims(planted(open_evidence(release_dir), [9.0, -9.0, -9.0, None]), "person")
    unchanged, mirrored = claims["mutations.person.list"]
    assert (unchanged["title"], unchanged["num_caught"], unchanged["num_other_dropped"]) == ("as it was", 1, 0)
    assert (mirrored["num_caught"], mirrored["num_positive"], mirrored["num_other_dropped"]) == (0, 1, 1)
    assert (claims["mutations.person.num_positives"], claims["mutations.person.num_others"]) == (1, 1)


def test_verdicts_that_do_not_follow_from_scores_are_refused(release_dir: Path) -> None:
    release = planted(open_evidence(release_dir), [9.0, -9.0, 9.0, -9.0])
    rows = release.read_parquet(planted_path("person")).to_pylist()
    rows[2]["score"] = -9.0
    write_table(release_dir / planted_path("person"), pa.Table.from_pylist(rows, schema=PLANTED_SCHEMA))
    with pytest.raises(ReleaseError, match="do not follow from its scores"):
        mutation_claims(release, "person")
