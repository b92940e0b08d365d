import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.text.text_files import NotTextError, decode_text, split_lines

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(TEXTS)
def test_text_comes_out_as_it_was_written_and_its_byte_order_mark_does_not(text: str) -> None:
    for num_marks in range(3):
        assert decode_text(codecs.BOM_UTF8 * num_marks + text.encode()) == text.lstrip("\ufeff")


@pytest.mark.parametrize(("data", "message"), [
    ("a cat".encode("utf-16"), "is UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"),
    (codecs.BOM_UTF16_BE + "a cat".encode("utf-16-be"), "is UTF-16, expected UTF-8"),
    ("a cat".encode("utf-32"), "is UTF-32, expected UTF-8; convert it: iconv -f UTF-32"),
    (codecs.BOM_UTF32_BE + "a cat".encode("utf-32-be"), "is UTF-32, expected UTF-8"),
    ("a\ncat".encode("utf-16-le"), "byte 1 in line 1 is a zero byte, which text does not hold; where it is UTF-16"),
    ("one\r\ncaf\u00e9 au lait".encode("latin-1"), "is not UTF-8: byte 8 in line 2 is 0xe9 .*; where it is Latin-1, convert it"),
])
@pytest.mark.parametrize("keep_bad_bytes", [False, True])
def test_what_is_no_utf8_says_what_it_is_where_and_how_to_convert_it(data: bytes, message: str, keep_bad_bytes: bool) -> None:
    if keep_bad_bytes and "Latin-1" in message:  # left to whoever reads the rows
        assert decode_text(data, keep_bad_bytes=True).encode("utf-8", "surrogateescape") == data
        return
    with pytest.raises(NotTextError, match=message):
        decode_text(data, keep_bad_bytes=keep_bad_bytes)


@given(st.binary(), st.booleans())
def test_any_bytes_are_text_or_refused_in_a_sentence(data: bytes, keep_bad_bytes: bool) -> None:
    try:
        text = decode_text(data, keep_bad_bytes=keep_bad_bytes)
    except NotTextError as error:
        assert "iconv" in str(error)
    else:
        assert text.encode("utf-8", "surrogateescape") == data.removeprefix(codecs.BOM_UTF8)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1)),
       st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_lines_are_found_whichever_end_they_have(lines: list[str], end: str, ended: bool) -> None:
    assert split_lines(end.join(lines) + (end if ended and lines else "")) == lines
