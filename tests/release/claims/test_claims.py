import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scipy.stats import binom

from glideslope.errors import ReleaseError
from glideslope.release.claims.claims import claims_of
from glideslope.release.evidence.comparison import compare_claims
from glideslope.release.evidence.contents import open_evidence


@pytest.fixture(scope="module")
def claims(packed_run: Path) -> dict[str, object]:
    return claims_of(open_evidence(packed_run / "release"))


def test_claims_are_what_the_release_states_and_plain_data(claims: dict[str, object], packed_run: Path) -> None:
    stated = json.loads((packed_run / "release/evidence/claims.json").read_text())
    assert compare_claims(stated, claims) == []
    assert json.loads(json.dumps(claims, allow_nan=False)) == claims


def test_claims_do_not_come_from_the_claims_file_or_the_card(release_dir: Path, claims: dict[str, object]) -> None:
    (release_dir / "evidence/claims.json").unlink()
    (release_dir / "README.md").unlink()
    assert claims_of(open_evidence(release_dir)) == claims


def test_recall_is_counted_from_the_scores(claims: dict[str, object], packed_run: Path) -> None:
    folder = packed_run / "release/evidence/filters/violence"
    threshold = json.loads((folder / "filter.json").read_text())["threshold"]
    positives = [row for row in pq.read_table(folder / "scores.parquet").to_pylist() if row["role"] == "test" and row["label"] == 1]
    caught = [row for row in positives if not row["score"] < threshold]
    assert claims["filters.violence.test.num_positive"] == len(positives) == 6
    assert claims["filters.violence.test.num_caught"] == len(caught) < len(positives)
    missed = claims["filters.violence.missed"]
    assert isinstance(missed, list)
    assert {row["key"] for row in missed} == {row["key"] for row in positives} - {row["key"] for row in caught}


def test_the_bound_on_the_wins_is_exact(claims: dict[str, object]) -> None:
    wins, pairs, bound = (claims[f"evaluation.{name}"] for name in ("num_wins", "num_pairs", "share_lower_bound"))
    assert (wins, pairs) == (21, 24)
    assert binom.sf(20, 24, bound) == pytest.approx(0.05)


def test_the_ledger_adds_up(claims: dict[str, object]) -> None:
    dropped = claims["ledger.dropped_by_reason"]
    assert isinstance(dropped, dict)
    assert dropped["unreadable"] == 1
    assert claims["ledger.num_dropped"] == sum(dropped.values())
    assert claims["ledger.num_seen"] == 401 == claims["ledger.num_kept"] + claims["ledger.num_dropped"]  # type: ignore[operator]  # ints


def test_the_final_loss_is_the_mean_of_the_last_tenth(claims: dict[str, object], packed_run: Path) -> None:
    lines = (packed_run / "release/evidence/training/base/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert claims["training.base.final_loss"] == pytest.approx(sum(losses[-6:]) / 6)
    assert claims["training.base.num_steps"] == 60


def test_parameters_are_counted_from_the_weight_file(claims: dict[str, object], packed_run: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(packed_run / "release/base/diffusion_pytorch_model.safetensors")
    assert claims["training.base.num_parameters"] == sum(tensor.numel() for tensor in tensors.values())


def test_images_of_one_concept_count_once_and_only_when_all_are_caught() -> None:
    import pyarrow as pa

    from glideslope.release.claims.filters import measure_concepts

    scores = pa.table({"concept": ["a", "a", "b", "b", "c", "d"], "label": [1, 1, 1, 1, 0, 1],
                       "role": ["test"] * 5 + ["train"], "score": pa.array([2.0, 0.5, 2.0, 1.0, 0.0, 0.0], type=pa.float32()),
                       "flags": pa.array([[]] * 6, type=pa.list_(pa.string()))})
    found = measure_concepts(scores, 1.0)
    assert (found["num_positive"], found["num_caught"], found["recall"]) == (2, 1, 0.5)
    assert found["recall_lower_bound"] == pytest.approx(1 - 0.95**0.5)


@pytest.mark.parametrize("path", ["evidence/ledger/shard-00001.parquet", "evidence/filters/person/scores.parquet", "evidence/recipe.yaml",
                                  "evidence/evaluation/pairs.jsonl", "evidence/training/base/metrics.jsonl", "noised_clip/config.json"])
def test_evidence_that_is_not_readable_is_named(release_dir: Path, path: str) -> None:
    (release_dir / path).write_bytes(b"\x00 not what it was")
    with pytest.raises(ReleaseError, match=path):
        claims_of(open_evidence(release_dir))


def test_floats_may_differ_in_their_last_bits_and_nothing_else_may() -> None:
    assert compare_claims({"a": 0.1 + 0.2, "b": [1, {"c": 0.3}]}, {"a": 0.3, "b": [1, {"c": 0.1 + 0.2}]}) == []
    assert len(compare_claims({"a": 1, "b": 1, "c": "x", "d": 1.0}, {"a": 1.0, "b": True, "c": "y", "e": 2})) == 5
