from glideslope.text.one_line import one_line


def test_an_exception_of_many_lines_is_one_line_that_is_cut() -> None:
    assert one_line(ValueError("first\n  second\tthird")) == "first second third"
    assert one_line(ValueError("a " * 300)) == ("a " * 100)
    assert one_line(ValueError("abcdef"), 3) == "abc"
    assert len(one_line(ValueError("x" * 900), None)) == 900


def test_an_exception_that_says_nothing_is_named() -> None:
    assert one_line(StopIteration()) == "StopIteration"
    assert one_line(ValueError(" \n ")) == "ValueError"
