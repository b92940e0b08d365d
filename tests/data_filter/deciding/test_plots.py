import io

from PIL import Image

from glideslope.data_filter.deciding.plots import plot_precision_recall

AUDIT = {"num_positive": 10, "num_negative": 20, "recall": 0.9, "kept_share": 0.7}


def test_equal_figures_give_equal_bytes() -> None:
    curve = [[1.0, 0.2, -1.0], [0.9, 0.7, 0.0], [0.5, 1.0, 1.0]]
    first, second = (plot_precision_recall("person", curve, AUDIT) for _ in range(2))
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        assert image.format == "PNG" and image.width > 400


def test_a_filter_without_audit_labels_is_still_plotted() -> None:
    nothing = {"num_positive": 0, "num_negative": 0, "recall": None, "kept_share": None}
    assert plot_precision_recall("person", [], nothing).startswith(b"\x89PNG")
