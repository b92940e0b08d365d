"""The gate on the weights: names, shapes and values of all tensors, and the smaller copies."""

from ...weights.architecture import check_architecture, check_finite, check_forms
from ...weights.variants import check_variants
from .gate import Gate

WEIGHTS = Gate("weights", "a tensor is missing, too many, of another shape or not finite, or a variant is not the exact cast",
               checks={"tensors": check_architecture, "weight files": check_forms, "finite weights": check_finite, "variants": check_variants})
