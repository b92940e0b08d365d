import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.data_filter.labels.concepts import join_concepts, join_groups, role_of
from glideslope.data_filter.labels.index_rows import Indexed
from glideslope.data_filter.sources.openmoji import read_rows
from glideslope.recipe.filters import LabelsConfig
from glideslope.store.vocabulary import Role


@given(st.lists(st.text(min_size=1), min_size=1), st.floats(0.1, 0.6), st.floats(0.1, 0.3), st.text())
def test_roles_never_straddle_a_concept(concepts: list[str], train: float, calibrate: float, salt: str) -> None:
    config = LabelsConfig(train_share=train, calibrate_share=calibrate, salt=salt)
    assert all(role_of(concept, config) in Role for concept in concepts)
    assert [role_of(concept, config) for concept in concepts] == [role_of(concept, config) for concept in concepts]


def test_variants_of_one_emoji_share_a_role_and_shares_are_kept() -> None:
    config = LabelsConfig()
    concepts = {row["concept"] for row in read_rows()}
    shares = {role: sum(role_of(concept, config) == role for concept in concepts) / len(concepts) for role in Role}
    assert shares == pytest.approx({"train": 0.65, "calibrate": 0.1, "test": 0.25}, abs=0.03)


@given(st.lists(st.frozensets(st.sampled_from("abcdefgh"), min_size=1, max_size=3), max_size=8))
def test_joined_groups_are_the_connected_parts(groups: list[frozenset[str]]) -> None:
    joined = join_groups(groups)
    assert set(joined) == {name for group in groups for name in group}
    parts = [set(group) for group in groups]
    for _ in groups:  # brute force: merge whatever overlaps until nothing does
        parts = [set().union(*(other for other in parts if other & part)) for part in parts]
    assert all(joined[name] == min(part) for part in parts for name in part)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz"), min_size=1),
       st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyzuv"))))
def test_joined_concepts_join_whatever_shares_a_name_and_nothing_else(indexed: dict[str, str], own: list[tuple[str, str]]) -> None:
    known = {key: Indexed(concept, "") for key, concept in indexed.items()}
    joined = join_concepts(known, own)
    assert set(joined) == set(indexed)
    names = [{indexed[key], concept} for key, concept in own if key in indexed] + [{concept} for concept in indexed.values()]
    for _ in range(len(names)):  # brute force: merge whatever overlaps
        names = [set().union(*(other for other in names if other & one)) for one in names]
    assert all(joined[key] == min(next(one for one in names if concept in one)) for key, concept in indexed.items())
