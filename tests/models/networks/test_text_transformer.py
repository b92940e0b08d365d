import torch

from glideslope.models.networks.text_transformer import TextTransformer


def test_every_position_sees_every_other() -> None:
    torch.manual_seed(0)
    transformer = TextTransformer(16, 1, 2)
    x = torch.randn(1, 5, 16)
    changed = x.clone()
    changed[:, -1] += 1
    with torch.no_grad():
        difference = (transformer(x) - transformer(changed)).abs().sum(-1)
    assert (difference > 0).all()


def test_fresh_weights_keep_the_size_of_what_passes_through() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 128)
    with torch.no_grad():
        y = TextTransformer(128, 8, 4)(x)
    assert 0.8 < float(y.std() / x.std()) < 2


def test_an_empty_stack_changes_nothing() -> None:
    x = torch.ones(1, 2, 8)
    assert torch.equal(TextTransformer(8, 0, 2)(x), x)
