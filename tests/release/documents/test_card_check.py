from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from glideslope.cli.main import app
from glideslope.errors import ReleaseError, VerificationError
from glideslope.release.documents.card_check import compare_texts
from glideslope.release.documents.card_view import card_page, check_card, render_again
from glideslope.release.evidence.contents import CARD_PATH, DATASET_CARD_PATH


def test_the_cards_of_a_fresh_release_hold_and_are_rendered_the_same_again(packed_run: Path) -> None:
    release = packed_run / "release"
    assert check_card(release) == []
    assert render_again(release) == render_again(release) == (release / CARD_PATH).read_text()
    assert render_again(release, of_data=True) == (release / DATASET_CARD_PATH).read_text()


@pytest.mark.parametrize("path", [CARD_PATH, DATASET_CARD_PATH])
def test_a_number_edited_by_hand_is_named_with_line_found_and_expected(release_dir: Path, path: str) -> None:
    lines = (release_dir / path).read_text().split("\n")
    place = next(i for i, line in enumerate(lines) if "of 401" in line or "401 images" in line)
    edited = lines[place].replace("401", "402")
    (release_dir / path).write_text("\n".join([*lines[:place], edited, *lines[place + 1:]]))
    (found,) = check_card(release_dir)
    assert (found.path, found.line, found.found, found.expected) == (path, place + 1, edited, lines[place])
    assert "402" in str(found) and "401" in str(found) and f"line {place + 1}" in str(found)


def test_a_missing_and_a_strange_line_shift_no_other(release_dir: Path) -> None:
    lines = (release_dir / CARD_PATH).read_text().split("\n")
    place = next(i for i, line in enumerate(lines) if line.startswith("| Recall"))
    (release_dir / CARD_PATH).write_text("\n".join(["# 99.9 % safe", *lines[:place], *lines[place + 1:]]))
    strange, missing = check_card(release_dir)
    assert (strange.line, strange.found, strange.expected) == (1, "# 99.9 % safe", None)
    assert (missing.found, missing.expected) == (None, lines[place])
    assert "no such line" in str(strange) and "missing" in str(missing)


def test_evidence_that_changed_makes_the_card_stale(release_dir: Path) -> None:
    pairs = release_dir / "evidence/evaluation/pairs.jsonl"
    pairs.write_text(pairs.read_text().replace("0.4,0.2,0.1", "0.4,0.9,0.1", 1))
    stale = check_card(release_dir)
    assert any("21 of 24" in (line.found or "") and "20 of 24" in (line.expected or "") for line in stale)


def test_a_missing_card_is_an_error(release_dir: Path) -> None:
    (release_dir / DATASET_CARD_PATH).unlink()
    with pytest.raises(ReleaseError, match="DATASET_CARD"):
        check_card(release_dir)


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_there_is_a_difference_exactly_when_texts_differ(ours: list[str], theirs: list[str]) -> None:
    found = list(compare_texts("card", "\n".join(ours), "\n".join(theirs)))
    assert bool(found) == ("\n".join(ours) != "\n".join(theirs))
    assert all(one.found != one.expected for one in found)


def test_a_long_line_is_shown_where_it_differs() -> None:
    (one,) = compare_texts("card", "x" * 400 + "1" + "y" * 400, "x" * 400 + "2" + "y" * 400)
    assert "x1y" in str(one) and "x2y" in str(one) and len(str(one)) < 500


def test_the_command_prints_checks_and_writes_a_page(release_dir: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["release", "card", str(release_dir)]).stdout == (release_dir / CARD_PATH).read_text()
    assert run(app, ["release", "card", str(release_dir), "--check"]).exit_code == 0
    assert run(app, ["release", "card", str(release_dir), "--out", str(tmp_path / "card.html")]).exit_code == 0
    page = (tmp_path / "card.html").read_text()
    assert page == card_page(release_dir) and "data:image/png;base64," in page
    text = (release_dir / CARD_PATH).read_text()
    (release_dir / CARD_PATH).write_text(text.replace("401", "400"))
    failed = run(app, ["release", "card", str(release_dir), "--check"])
    assert isinstance(failed.exception, VerificationError) and "expected" in str(failed.exception)
    assert run(app, ["release", "card", str(release_dir), "--check", "--json"]).exit_code == 1


def test_a_page_without_its_figure_is_refused(release_dir: Path) -> None:
    (release_dir / "figures/ledger.png").unlink()
    with pytest.raises(ReleaseError, match="ledger"):
        card_page(release_dir)
