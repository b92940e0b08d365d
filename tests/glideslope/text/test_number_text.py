import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope.text import number_text as wording


@given(st.floats(0, 1))
def test_bounds_never_say_more_than_is_known(share: float) -> None:
    low = float(wording.at_least(share).removeprefix("at least ").removesuffix(" %"))
    high = float(wording.at_most(share).removeprefix("at most ").removesuffix(" %"))
    assert low <= 100 * share + 1e-6
    assert high >= 100 * share - 1e-6
    assert high - low <= 0.11


@pytest.mark.parametrize(("share", "text"), [(1.0, "100.0 %"), (0.9999, "99.9 %"), (0.0, "0.0 %"), (0.0001, "0.1 %"), (0.5, "50.0 %"),
                                             (0.99, "99.0 %"), (None, "not measured")])
def test_a_share_below_one_never_reads_as_all_and_above_zero_never_as_none(share: float | None, text: str) -> None:
    assert wording.percent(share) == text


@pytest.mark.parametrize(("seconds", "text"), [(47.6, "48 s"), (59.9, "1 min 0 s"), (425, "7 min 5 s"), (7800, "2 h 10 min")])
def test_times_are_readable(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_counts_and_sizes_are_readable() -> None:
    assert wording.count(4460) == "4,460"
    assert wording.millions(7_123_456) == "7.1 million"
    assert wording.millions(78_624) == "78,624"
    assert wording.megabytes(28_493_824) == "28.5 MB"
    assert wording.megabytes(12_345) == "12 kB"
    assert wording.significant(3e-4) == "0.0003"


def test_text_of_the_data_is_disarmed() -> None:
    assert wording.cell("a|b\n[x](y) <b> `c` & d") == r"a\|b \[x\](y) &lt;b&gt; \`c\` &amp; d"


@pytest.mark.parametrize(("share", "text", "up"), [
    (0.001, "0.1 %", "0.1 %"), (0.00050049, "0.05 %", "0.0501 %"), (1 / 3, "33.3 %", "33.4 %"), (0.0, "0 %", "0 %"), (1.0, "100 %", "100 %"),
    (0.01, "1 %", "1 %"), (0.000001, "0.0001 %", "0.0001 %")])
def test_small_bounds_keep_three_digits_and_are_rounded_up(share: float, text: str, up: str) -> None:
    assert (wording.precise_percent(share), wording.precise_percent(share, up=True)) == (text, up)
    assert wording.at_most_precise(share) == f"at most {up}"
