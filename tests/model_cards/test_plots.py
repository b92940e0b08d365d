import io

from PIL import Image

from glideslope.model_cards.plots import plot_ledger, plot_training_loss, smooth

LOSSES = {"base model": ([32 * n for n in range(1, 3001)], [1 / n + 0.01 * (n % 7) for n in range(1, 3001)]),
          "noised CLIP": ([32], [2.0])}
REASONS = {"filter:person": 2590, "filter:violence": 12, "unreadable": 0, "$odd$ reason": 3}


def test_equal_numbers_give_equal_bytes() -> None:
    assert plot_training_loss(LOSSES) == plot_training_loss(LOSSES)
    assert plot_ledger(1860, REASONS) == plot_ledger(1860, dict(reversed(REASONS.items())))


def test_figures_are_small_pngs_without_dates_or_versions() -> None:
    for data in (plot_training_loss(LOSSES), plot_ledger(1860, REASONS)):
        assert len(data) < 100_000
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            assert image.width < 1000
            assert not image.info.keys() & {"Software", "Creation Time", "date:create"}


def test_many_steps_are_binned_and_few_are_shown_as_they_are() -> None:
    x, y, spread = smooth(*LOSSES["base model"])
    assert len(x) == len(y) == len(spread) == 300
    assert x[-1] == 96_000
    assert smooth([32, 64], [2.0, 1.0])[:2] == ([32.0, 64.0], [2.0, 1.0])


def test_nothing_kept_and_nothing_dropped_can_be_drawn() -> None:
    assert plot_ledger(0, {}).startswith(b"\x89PNG")
