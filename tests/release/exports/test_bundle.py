import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from glideslope.errors import ReleaseError
from glideslope.release.exports.bundle import Bundle, Source, bundle, join_imports, used_names

SHIM = "glideslope.release.exports.shim"


def run(text: str) -> dict[str, Any]:
    import sys
    import types

    module = types.ModuleType("bundled")  # dataclasses look their module up by name
    sys.modules["bundled"] = module
    try:
        exec(compile(text, "bundled.py", "exec"), module.__dict__)
    finally:
        del sys.modules["bundled"]
    return module.__dict__


def sources(**texts: str) -> Bundle:
    collected = Bundle("pack.root", sources={f"pack.{name}": Source(f"pack.{name}", text) for name, text in texts.items()})
    collected.add("pack.root", "root")
    return collected


def test_only_what_the_root_needs_is_taken_in_an_order_that_runs() -> None:
    root = ("from .other import base, LIMIT\n\ndef root(x=LIMIT):\n    return base(x) + helper()\n\ndef helper():\n    return 1\n\n"
            "def unused():\n    return 2\n")
    text = sources(root=root, other="import math\n\nLIMIT = 4\nUNUSED = 5\n\ndef base(x):\n    return math.sqrt(x)\n").text("t")
    assert "unused" not in text and "UNUSED" not in text
    assert run(text.replace("bundled", "x"))["root"]() == 3.0


def test_what_only_annotations_name_is_left_out_but_other_packages_are_imported() -> None:
    text = sources(root="from pathlib import Path\nfrom .other import Heavy\n\ndef root(x: Heavy, y: Path) -> Heavy:\n    return x\n",
                   other="class Heavy:\n    pass\n").text("t")
    assert "class Heavy" not in text and "from pathlib import Path" in text
    assert run(text)["root"](3, None) == 3


def test_two_definitions_of_one_name_are_refused() -> None:
    with pytest.raises(ReleaseError, match="SIZE is defined in"):
        sources(root="from .other import f\n\nSIZE = 1\n\ndef root():\n    return f() + SIZE\n",
                other="SIZE = 2\n\ndef f():\n    return SIZE\n")


def test_a_name_that_is_nowhere_and_one_imported_under_another_name_are_refused() -> None:
    with pytest.raises(ReleaseError, match="does not define gone"):
        sources(root="from .other import gone\n\ndef root():\n    return gone()\n", other="x = 1\n")
    with pytest.raises(ReleaseError, match="imports f as g"):
        sources(root="from .other import f as g\n\ndef root():\n    return g()\n", other="def f():\n    return 1\n")


def test_definitions_that_need_each_other_are_both_there() -> None:
    text = sources(root="def root(n):\n    return n if n == 0 else other(n - 1)\n\ndef other(n):\n    return root(n)\n").text("t")
    assert run(text)["root"](4) == 0


def test_a_configuration_becomes_a_plain_dataclass_with_its_defaults_and_properties() -> None:
    root = ("from .config import StrictModel\nfrom pydantic import Field, model_validator\nfrom typing import Annotated\n\n"
            "class root(StrictModel):\n"
            "    side: Annotated[int, Field(ge=1)] = Field(description='d')\n    rate: float = Field(0.5, description='d')\n\n"
            "    @model_validator(mode='after')\n    def _check(self):\n        return self\n\n"
            "    @property\n    def twice(self):\n        return 2 * self.side\n")
    text = sources(root=root, config="class StrictModel:\n    pass\n").text("t")
    found = run(text)["root"](side=3)
    assert (found.side, found.rate, found.twice) == (3, 0.5, 6)
    assert dataclasses.is_dataclass(found) and "pydantic" not in text and "_check" not in text


def test_names_inside_dropped_methods_are_not_needed() -> None:
    node = ast.parse("class A:\n    def keep(self):\n        return one\n    def drop(self):\n        return two\n").body[0]
    assert used_names(node, ["drop"]) == ["one"]


def test_imports_of_one_module_are_joined() -> None:
    found = join_imports({"from a import c", "from a import b", "import z", "import y as x"})
    assert found == ["import y as x", "import z", "from a import b, c"]


def test_the_exported_network_is_the_one_that_glideslope_runs(tmp_path: Path) -> None:
    import torch

    from glideslope.models.networks.presets import unet_preset
    from glideslope.models.networks.unet import TextConditionedUNet

    config = unet_preset("glide-micro-16")
    made = run(bundle(f"{SHIM}.modeling_glide", ["GlideUNet"], "t"))
    theirs = made["GlideUNet"](made["UNetConfig"](**config.model_dump()))
    ours = TextConditionedUNet(config)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, times = torch.randn(2, 3, 16, 16), torch.tensor([3, 900])
    tokens, mask = torch.randint(0, 512, (2, 16)), torch.ones(2, 16, dtype=torch.bool)
    assert torch.equal(ours.eval()(x, times, tokens, mask), theirs.eval()(x, times, tokens, mask))
