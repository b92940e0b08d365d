from glideslope.data_filter.sources import Shard, cut_shards, hash_share
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 500), st.integers(1, 60))
def test_shards_cover_every_input_once_and_in_order(num_inputs: int, shard_size: int) -> None:
    shards = cut_shards(num_inputs, shard_size)
    assert [place for shard in shards for place in range(shard.start, shard.stop)] == list(range(num_inputs))
    assert [shard.number for shard in shards] == list(range(len(shards)))


def test_the_last_shard_is_short() -> None:
    assert cut_shards(5, 4) == [Shard(0, 0, 4), Shard(1, 4, 5)]


@given(st.text(), st.text())
def test_a_hash_share_is_a_share_and_depends_on_the_words_alone(first: str, second: str) -> None:
    assert 0 <= hash_share(first, second) < 1
    assert hash_share(first, second) == hash_share(first, second)
