import pytest
from glideslope.data_filter.sources import (
    Shard,
    SourceItem,
    check_caption,
    decode_caption,
    describe_item,
    digest_shards,
    hash_share,
    refuse_changed,
    shard_name,
)
from hypothesis import given
from hypothesis import strategies as st

from glideslope.errors import SourceError


def test_shard_names_sort_as_their_numbers() -> None:
    names = [shard_name(number) for number in (0, 9, 10, 99_999)]
    assert names == sorted(names) and names[0] == "shard-00000"


def test_the_fingerprint_of_a_source_follows_each_shard_and_their_order() -> None:
    first, second, third = (Shard(shard_name(number), text, 0, 1, 1) for number, text in enumerate("abc"))
    assert digest_shards([first, second]) == digest_shards([first, second])
    assert len({digest_shards(shards) for shards in ([], [first], [first, second], [second, first], [first, third])}) == 5


@given(st.text(), st.text())
def test_a_hash_share_is_a_share_and_depends_on_the_words_alone(first: str, second: str) -> None:
    assert 0 <= hash_share(first, second) < 1
    assert hash_share(first, second) == hash_share(first, second)


@given(st.binary())
def test_a_caption_is_kept_byte_for_byte_or_refused(data: bytes) -> None:
    caption, error = decode_caption(data, "k")
    if error is None:
        assert caption is not None and caption.encode() == data and caption.strip()
    else:
        assert caption is None and error in ("caption of k is missing", "caption of k is not UTF-8")


@pytest.mark.parametrize(("caption", "error"), [
    (None, "caption of k is missing"), ("", "caption of k is missing"), (" \n", "caption of k is missing"),
    (3, "caption of k is int, expected text"), ("half a pair \ud800", "caption of k is not UTF-8"), ("\u00e9 ok ", None),
])
def test_what_is_no_caption_is_named(caption: object, error: str | None) -> None:
    assert check_caption(caption, "k") == (caption if error is None else None, error)


def test_the_description_of_an_input_follows_everything_that_is_kept_of_it() -> None:
    items = [SourceItem("k", "c", b"x", "t"), SourceItem("l", "c", b"x", "t"), SourceItem("k", "c", b"y", "t"), SourceItem("k", "c", b"x", "u"),
             SourceItem("k", "c", b"x", "t", metadata="{}"), SourceItem("k", "c", None, "t", "missing", "gone")]
    assert len({str(describe_item(item)) for item in items}) == len(items)


def test_a_shard_that_changed_while_it_was_read_is_refused_by_name() -> None:
    shard = Shard("shard-00002", "a", 0, 4, 4, file="part-2.tar")
    refuse_changed(shard, "a")
    with pytest.raises(SourceError, match=r"part-2\.tar changed while it was read"):
        refuse_changed(shard, "b")
