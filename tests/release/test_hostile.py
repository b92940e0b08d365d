"""Changed files of a release: a reader refuses them with an error of the family, or they say what they said before.

The changes are those of the fuzz benchmark, which goes through thousands of whole releases; here each reader meets some by itself.
"""

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import Bench
from benchmarks.hostile import mutate
from glideslope.errors import GlideslopeError, VerificationError
from glideslope.models.loading.components import read_component_config
from glideslope.models.networks.components import parse_component_config
from glideslope.release import verify
from glideslope.store.weight_files import read_header
from glideslope.trust.release_manifest import ReleaseManifest

SEEDS = st.integers(0, 2**32)
ON_ONE_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(ON_ONE_FOLDER, max_examples=12)


@pytest.fixture
def bench(packed_run: Path, tmp_path: Path) -> Bench:
    return Bench(packed_run / "release", tmp_path)


def changed(bench: Bench, path: str, seed: int) -> bytes:
    return mutate(path, bench.pristine[path], random.Random(seed))[1]


@ON_ONE_FOLDER
@given(seed=SEEDS)
def test_a_changed_manifest_is_refused_or_is_in_its_one_form(bench: Bench, seed: int) -> None:
    data = changed(bench, "manifest.json", seed)
    try:
        manifest = ReleaseManifest.from_bytes(data)
    except VerificationError:
        return
    assert manifest.to_bytes() == data


@ON_ONE_FOLDER
@given(seed=SEEDS, network=st.sampled_from(["base", "noised_clip"]))
def test_a_changed_configuration_is_refused_or_says_what_its_file_says(bench: Bench, seed: int, network: str) -> None:
    path = bench.directory / network / "config.json"
    path.write_bytes(changed(bench, f"{network}/config.json", seed))
    try:
        class_name, config = read_component_config(path)
    except GlideslopeError:
        return
    stated = json.loads(path.read_bytes())
    assert {"_class_name": class_name, "_format_version": 1, **config.model_dump(mode="json")} == parse_defaults(stated)


def parse_defaults(stated: dict[str, object]) -> dict[str, object]:
    """What a configuration says with the keys that it leaves out at their defaults."""
    class_name, config = parse_component_config(stated, where="again")
    left_out = {key: value for key, value in config.model_dump(mode="json").items() if key not in stated}
    return {**stated, **left_out, "_class_name": class_name, "_format_version": 1}


@ON_ONE_FOLDER
@given(seed=SEEDS, network=st.sampled_from(["base", "noised_clip"]))
def test_a_changed_weight_file_is_refused_or_its_header_covers_it_to_the_byte(bench: Bench, seed: int, network: str) -> None:
    name = f"{network}/diffusion_pytorch_model.safetensors"
    path = bench.directory / name
    path.write_bytes(changed(bench, name, seed))
    try:
        headers = read_header(path)
    except GlideslopeError:
        return
    data = path.read_bytes()
    end = max((header.end for header in headers.values()), default=0)
    assert len(data) == 8 + int.from_bytes(data[:8], "little") + end


@FEW
@given(seed=SEEDS, path=st.sampled_from(["evidence/ledger/shard-00000.parquet", "evidence/filters/person/scores.parquet",
                                         "evidence/evaluation/pairs.jsonl", "evidence/curated.json"]))
def test_evidence_that_its_owner_changed_is_refused_or_the_release_says_the_same(bench: Bench, seed: int, path: str) -> None:
    (bench.directory / path).write_bytes(changed(bench, path, seed))
    bench.seal()
    try:
        verify(bench.directory)
        assert bench.read_statement() == bench.statement
    except GlideslopeError as error:
        assert "\x1b" not in str(error)
    finally:
        bench.restore()


@FEW
@given(seed=SEEDS, path=st.sampled_from(["README.md", "DATASET_CARD.md", "USE_POLICY.md", ".eval_results/glideslope.yaml",
                                         "evidence/claims.json"]))
def test_a_card_or_claim_that_its_owner_changed_is_refused(bench: Bench, seed: int, path: str) -> None:
    data = changed(bench, path, seed)
    is_said_otherwise = not path.endswith(".json") or _value(data) != _value(bench.pristine[path])
    (bench.directory / path).write_bytes(data)
    bench.seal()
    try:
        if is_said_otherwise:
            with pytest.raises(VerificationError):
                verify(bench.directory)
    finally:
        bench.restore()


def _value(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None
