"""What generated code may contain: a few packages, definitions at the top level, nothing that reaches around them."""

import ast
from collections.abc import Iterator
from types import MappingProxyType

ALLOWED_PACKAGES = frozenset({"torch", "diffusers", "ftfy", "safetensors", "tokenizers", "numpy", "PIL"})
ALLOWED_STANDARD = frozenset({"__future__", "collections", "dataclasses", "html", "json", "math", "pathlib", "re", "sys", "typing"})
# Of these only so much may be used, each under its own name and never handed on.
ALLOWED_OF = MappingProxyType({"ftfy": frozenset({"fix_text"}), "sys": frozenset({"maxsize"})})
FORBIDDEN_NAMES = frozenset({"__builtins__", "__import__", "__loader__", "breakpoint", "compile", "delattr", "eval", "exec", "globals", "input",
                             "locals", "memoryview", "open", "setattr", "vars"})
FORBIDDEN_ATTRIBUTES = frozenset({"chmod", "classes", "ctypeslib", "fromfile", "hardlink_to", "hub", "jit", "load", "load_library", "memmap",
                                  "mkdir", "multiprocessing", "ops", "package", "rename", "rmdir", "save", "symlink_to", "tofile", "touch",
                                  "unlink", "write_bytes", "write_text"})
ALLOWED_DECORATORS = frozenset({"classmethod", "dataclass", "property", "staticmethod", "torch.no_grad"})
ALLOWED_DUNDERS = frozenset({"__annotations__", "__class__", "__init__", "__name__", "__setattr__"})
TOP_LEVEL = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
PIPELINE_BASE = "DiffusionPipeline"


def find_forbidden(text: str, *, where: str) -> list[str]:
    """One sentence for everything in a module that generated code may not contain.

    Args:
        text: Python source; it is parsed and never run.
        where: names the module in messages.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        return [f"{where}: is no Python source ({error})"]
    problems = [f"line {node.lineno}: a statement that runs while importing" for node in tree.body
                if not isinstance(node, TOP_LEVEL) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    used = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        problems += [f"line {getattr(node, 'lineno', 0)}: {problem}" for problem in _problems_of(node)]
        if isinstance(node, ast.Name) and node.id in ALLOWED_OF and id(node) not in used:
            problems.append(f"line {node.lineno}: hands on {node.id}")
    return [f"{where}: {problem}" for problem in dict.fromkeys(problems)]


def count_pipelines(text: str) -> int:
    """How many classes of a module derive from `DiffusionPipeline` by name."""
    return sum(isinstance(base, ast.Name) and base.id == PIPELINE_BASE for node in ast.parse(text).body if isinstance(node, ast.ClassDef)
               for base in node.bases)


def _problems_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _problems_of_import(node)
    elif isinstance(node, ast.Name) and (node.id in FORBIDDEN_NAMES):
        yield f"uses {node.id}"
    elif isinstance(node, ast.Attribute):
        if (node.attr.startswith("__") and node.attr not in ALLOWED_DUNDERS) or node.attr in FORBIDDEN_ATTRIBUTES:
            yield f"reaches for .{node.attr}"
        if isinstance(node.value, ast.Name) and node.attr not in ALLOWED_OF.get(node.value.id, {node.attr}):
            yield f"uses {node.value.id}.{node.attr}"
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if (name := ast.unparse(called)) not in ALLOWED_DECORATORS:
                yield f"is decorated with {name}"
    elif isinstance(node, ast.Global | ast.Nonlocal | ast.Await | ast.AsyncFunctionDef):
        yield f"has a {type(node).__name__.lower()} statement"


def _problems_of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and (node.level or node.module is None):
        yield "imports from beside itself"
        return
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    for name in names:
        if name.split(".", maxsplit=1)[0] not in ALLOWED_PACKAGES | ALLOWED_STANDARD:
            yield f"imports {name}, which is none of {', '.join(sorted(ALLOWED_PACKAGES))}"
        if name.split(".", maxsplit=1)[0] in ALLOWED_OF and (isinstance(node, ast.ImportFrom) or "." in name):
            yield f"imports from {name}"
    if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        yield f"imports everything from {node.module}"
    if isinstance(node, ast.Import):
        yield from (f"imports {alias.name} as {alias.asname}" for alias in node.names if alias.name in ALLOWED_OF and alias.asname)
