import ast

import pytest

from glideslope.release.exports.code_check import count_pipelines, find_forbidden
from glideslope.release.exports.diffusers import generate_code


@pytest.mark.parametrize(("text", "what"), [
    ("import os", "imports os"), ("import subprocess as s", "imports subprocess"), ("from os import path", "imports os"),
    ("from .beside import x", "from beside itself"), ("from torch import *", "everything"), ("from sys import modules", "from sys"),
    ("import requests", "imports requests"), ("print(1)", "runs while importing"), ("if True:\n    x = 1", "runs while importing"),
    ("x = eval('1')", "eval"), ("def f():\n    exec('1')", "exec"), ("def f():\n    return __import__('os')", "__import__"),
    ("def f(x):\n    return x.__globals__", "__globals__"), ("def f(x):\n    return x.__subclasses__()", "__subclasses__"),
    ("import sys\nx = sys.modules", "sys.modules"),
    ("import sys as s\nx = s.modules", "imports sys as s"), ("import sys\nx = sys", "hands on sys"), ("import ftfy as f", "imports ftfy as f"),
    ("import ftfy\ndef f():\n    return ftfy.fix_file('x')", "ftfy.fix_file"), ("import ftfy.cli", "imports from ftfy.cli"),
    ("from ftfy.cli import main", "imports from ftfy.cli"), ("def f():\n    return open('x')", "open"),
    ("def f(p):\n    p.write_text('x')", "write_text"), ("def f(p):\n    p.unlink()", "unlink"), ("import torch\nx = torch.hub", "hub"),
    ("def f(:", "no Python source"), ("async def f():\n    pass", "runs while importing"), 
    ("import torch\n@torch.load\ndef f():\n    pass", "load"), ("@print\ndef f():\n    pass", "decorated with print")])
def test_forbidden_code_is_named_with_its_line(text: str, what: str) -> None:
    problems = find_forbidden(text, where="base/evil.py")
    assert problems and what in " ".join(problems)
    assert all(problem.startswith("base/evil.py: ") for problem in problems)


COMPONENTS = {"base": ("modeling_glide", "GlideUNet"), "noised_clip": ("modeling_clip", "GlideNoisedClip"),
              "tokenizer": ("tokenizer_glide", "GlideTokenizer"), "clip_tokenizer": ("tokenizer_clip", "GlideClipTokenizer"),
              "scheduler": ("diffusers", "DDPMScheduler")}


def test_generated_code_passes_and_holds_one_pipeline() -> None:
    code = generate_code(COMPONENTS)
    assert sorted(code) == ["base/modeling_glide.py", "clip_tokenizer/tokenizer_clip.py", "noised_clip/modeling_clip.py", "pipeline.py",
                            "tokenizer/tokenizer_glide.py"]
    assert [problem for path, text in code.items() for problem in find_forbidden(text, where=path)] == []
    assert {path: count_pipelines(text) for path, text in code.items()} == dict.fromkeys(code, 0) | {"pipeline.py": 1}
    assert "glideslope." not in "".join(line for text in code.values() for line in text.splitlines() if "import" in line)
    assert [path for path, text in code.items() if "ftfy" in text] == ["clip_tokenizer/tokenizer_clip.py"]
    assert code == generate_code(COMPONENTS)


def test_generated_code_does_not_ask_for_its_own_classes_since_a_module_is_run_anew_for_each_component() -> None:
    for path, text in generate_code(COMPONENTS).items():
        tree = ast.parse(text)
        own = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        asked = [call.args[1] for call in ast.walk(tree)
                 if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("isinstance", "issubclass")]
        assert own.isdisjoint(name.id for kind in asked for name in ast.walk(kind) if isinstance(name, ast.Name)), path


def test_a_network_that_is_left_out_brings_no_code() -> None:
    assert "noised_clip/modeling_clip.py" not in generate_code({"base": COMPONENTS["base"]})
