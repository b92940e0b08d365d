import base64

import pytest

from glideslope.model_cards.page import render_page, split_front_matter

PNG = b"\x89PNG figure"
CARD = """---
license: mit
---

# A <b>model</b>

| a | b |
|---|---|
| 1 | 2 |

![loss](figures/loss.png)

<script>alert(1)</script>
"""


def read_figure(name: str) -> bytes:
    return {"loss": PNG}[name]


def test_figures_are_inside_and_tables_are_tables() -> None:
    page = render_page(CARD, read_figure)
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in page
    assert "<td>1</td>" in page and "license: mit" in page


def test_html_in_a_card_is_shown_as_text() -> None:
    page = render_page(CARD, read_figure)
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<b>model" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize("address", ["https://example.com/x.png", "figures/../x.png", "figures/loss.png?x", "data:image/png;base64,AA"])
def test_pictures_from_elsewhere_are_not_loaded(address: str) -> None:
    page = render_page(f"# T\n\n![text]({address})\n", read_figure)
    assert "<img" not in page


def test_equal_cards_give_equal_pages_and_a_missing_figure_is_an_error() -> None:
    assert render_page(CARD, read_figure) == render_page(CARD, read_figure)
    with pytest.raises(KeyError):
        render_page("![x](figures/other.png)", read_figure)


def test_a_card_without_a_header_is_all_text() -> None:
    assert split_front_matter("# T\n---\n") == ("", "# T\n---\n")
    assert split_front_matter("---\na: 1\n---\n# T\n") == ("a: 1\n", "# T\n")
