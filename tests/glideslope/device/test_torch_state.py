import pytest
import torch

from glideslope.device.torch_state import FRESH, PlainTorch, float32_products, read_settings

from ...hostile_torch import SURROUNDINGS


def everything() -> tuple[object, ...]:
    return (read_settings(), [products.fp32_precision for products, _ in float32_products()], torch.get_default_device(),
            torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(), torch.is_grad_enabled())


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_inside_torch_is_as_in_a_fresh_process_and_behind_as_it_was(name: str) -> None:
    with SURROUNDINGS[name]():
        before = everything()
        with PlainTorch(gradients=True):
            assert read_settings() == FRESH
            assert all(products.fp32_precision in usual for products, usual in float32_products())
            one = torch.ones(2, requires_grad=True)
            assert (one.dtype, one.device.type, (one[None] @ one).dtype, one.is_inference()) == (torch.float32, "cpu", torch.float32, False)
            assert (one * 2).requires_grad
        assert everything() == before
        with pytest.raises(ZeroDivisionError), PlainTorch():
            assert not torch.is_grad_enabled()
            raise ZeroDivisionError
        assert everything() == before


def test_a_function_becomes_such_a_block_at_every_call_even_within_itself() -> None:
    @PlainTorch()
    def depth(n: int) -> int:
        return 0 if torch.get_default_dtype() != torch.float32 else n and 1 + depth(n - 1)

    with SURROUNDINGS["a default type"]():
        assert depth(5) == 5
        assert torch.get_default_dtype() == torch.float64
