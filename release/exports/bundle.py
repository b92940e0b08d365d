"""One self-contained module out of several of ours: the definitions that a root needs, in order, and nothing else.

For places that cannot import glideslope. The sources are read as text and never run; annotations stay text, so that what
only they name is left out. Configurations (`StrictModel`) become plain frozen dataclasses: their values were checked before.
"""

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources

from ...errors import ReleaseError

CONFIG_BASE = "StrictModel"
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
Place = tuple[str, str]


@dataclass(frozen=True)
class Source:
    """One module as text.

    Attributes:
        name: its dotted name.
        text: its source.
    """

    name: str
    text: str

    @classmethod
    def read(cls, name: str) -> "Source":
        """Read a module of ours; it is not imported."""
        package, _, module = name.rpartition(".")
        return cls(name, (resources.files(package) / f"{module}.py").read_text(encoding="utf-8"))

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.text)

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """What the module defines at its top level, by name."""
        found: dict[str, Definition] = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        return found

    @cached_property
    def imports(self) -> dict[str, str | Place]:
        """Imported name -> the statement that imports it from elsewhere, or module of ours and name there."""
        found: dict[str, str | Place] = {}
        for node in self.tree.body:
            if isinstance(node, ast.Import):
                found |= {(alias.asname or alias.name).split(".", maxsplit=1)[0]: ast.unparse(ast.Import([alias])) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    ours = self.resolve(node) if node.level else None
                    found[alias.asname or alias.name] = (ours, alias.name) if ours else ast.unparse(
                        ast.ImportFrom(node.module, [alias], node.level))
        return found

    def resolve(self, node: ast.ImportFrom) -> str:
        """The dotted name of the module that a relative import names."""
        parent = self.name.split(".")[:-node.level]
        return ".".join([*parent, node.module] if node.module else parent)


@dataclass
class Bundle:
    """Collects what a root needs.

    Attributes:
        dropped: class -> methods that are left out.
        overrides: names whose definition in the root module stands for all others of that name.
        root: dotted name of the root module.
    """

    root: str
    dropped: Mapping[str, Collection[str]] = field(default_factory=dict)
    overrides: Collection[str] = ()
    sources: dict[str, Source] = field(default_factory=dict)
    taken: set[Place] = field(default_factory=set)
    order: list[Place] = field(default_factory=list)
    externals: set[str] = field(default_factory=set)

    def source(self, module: str) -> Source:
        """A module's source, read once."""
        if module not in self.sources:
            self.sources[module] = Source.read(module)
        return self.sources[module]

    def add(self, module: str, name: str) -> None:
        """Take a definition, behind everything that it needs; of two that need each other, one finds the other when it runs.

        Raises:
            ReleaseError: two different definitions have one name, or a name is defined nowhere.
        """
        module = self.root if name in self.overrides else module
        if (module, name) in self.taken:
            return
        source = self.source(module)
        if name not in source.definitions:
            target = source.imports.get(name)
            if not isinstance(target, tuple):
                raise ReleaseError(f"bundle: {module} does not define {name}, which {self.root} needs; mend the module")
            self.add(*target)
            return
        twins = [other for other, known in self.taken if known == name and other != module]
        if twins:
            raise ReleaseError(f"bundle: {name} is defined in {module} and in {twins[0]}; rename one of them")
        self.taken.add((module, name))
        node, dropped = source.definitions[name], self.dropped.get(name, ())
        for needed in used_names(node, dropped):
            self.need(source, needed)
        self.externals |= {found for needed in annotated_names(node) if isinstance(found := source.imports.get(needed), str)}
        self.order.append((module, name))

    def need(self, source: Source, name: str) -> None:
        """Take what a name stands for in a module."""
        if name in source.definitions or name in self.overrides:
            self.add(source.name, name)
        elif name in source.imports:
            target = source.imports[name]
            if isinstance(target, tuple):
                if target[1] != name:
                    raise ReleaseError(f"bundle: {source.name} imports {target[1]} as {name}; import it under its own name")
                self.add(*target)
            else:
                self.externals.add(target)

    def text(self, header: str) -> str:
        """The module: header, imports, definitions."""
        blocks: list[str] = []
        seen: set[int] = set()
        was_plain = False
        for module, name in self.order:
            node = self.sources[module].definitions[name]
            if id(node) in seen:
                continue
            seen.add(id(node))
            is_plain = isinstance(node, ast.Assign | ast.AnnAssign)
            blocks.append(("\n" if is_plain and was_plain else "\n\n\n") + render(self.sources[module], node, self.dropped.get(name, ())))
            was_plain = is_plain
        text = "".join(blocks)
        if "@dataclass" in text:
            self.externals.add("from dataclasses import dataclass")
        return f'"""{header}"""\n\nfrom __future__ import annotations\n\n' + "\n".join(join_imports(self.externals)) + text + "\n"


def join_imports(statements: Collection[str]) -> list[str]:
    """Import statements in order, those from one module in one line."""
    plain: set[str] = set()
    named: dict[str, list[str]] = {}
    for node in ast.parse("\n".join(sorted(statements))).body:
        if isinstance(node, ast.ImportFrom):
            named.setdefault(str(node.module), []).extend(ast.unparse(alias) for alias in node.names)
        else:
            plain.add(ast.unparse(node))
    return [*sorted(plain), *(f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items()))]


def bundle(module: str, roots: Collection[str], header: str, *, dropped: Mapping[str, Collection[str]] | None = None,
           overrides: Collection[str] = ()) -> str:
    """One module that holds the roots and all they need from modules of ours.

    Args:
        module: dotted name of the root module.
        roots: names that it defines.
        header: docstring of the result.
        dropped: class -> methods that are left out.
        overrides: names whose definition in the root module replaces the one that another module imports or defines.

    Returns:
        Python source; equal sources give equal text.

    Raises:
        ReleaseError: the sources cannot be joined; see `Bundle.add`.
    """
    collected = Bundle(module, dropped or {}, overrides)
    for name in roots:
        collected.add(module, name)
    return collected.text(header)


def used_names(node: ast.AST, dropped: Collection[str]) -> list[str]:
    """The names that a definition looks up when it is made or runs, in order of appearance, without annotations."""
    return list(dict.fromkeys(_names(node, dropped)))


def annotated_names(node: ast.AST) -> set[str]:
    """The names in the annotations of a definition; those of other packages are imported, ours may stay text."""
    if isinstance(node, ast.ClassDef) and _is_config(node):
        return set()
    annotations = [inner for outer in ast.walk(node) for field in ("annotation", "returns") if (inner := getattr(outer, field, None))]
    return {name.id for annotation in annotations for name in ast.walk(annotation) if isinstance(name, ast.Name)}


def _names(node: ast.AST, dropped: Collection[str]) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef) and node.name in dropped:
        return
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load):
            yield node.id
        return
    is_config = isinstance(node, ast.ClassDef) and _is_config(node)
    for name, value in ast.iter_fields(node):
        skipped = name in ("annotation", "returns") or (is_config and name == "bases")
        for child in () if skipped else value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not (is_config and isinstance(child, ast.AnnAssign | ast.FunctionDef) and _is_checking(child)):
                yield from _names(child, dropped)


def _is_config(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == CONFIG_BASE for base in node.bases)


def _is_checking(node: ast.AnnAssign | ast.FunctionDef) -> bool:
    """Whether a part of a configuration only checks values: a field's description, or a validator."""
    return isinstance(node, ast.AnnAssign) or any(isinstance(decorator, ast.Call) for decorator in node.decorator_list)


def render(source: Source, node: Definition, dropped: Collection[str]) -> str:
    """The text of a definition: as it stands, without dropped methods; a configuration as a dataclass."""
    if isinstance(node, ast.ClassDef) and _is_config(node):
        return render_config(node)
    lines = source.text.split("\n")
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    gone: set[int] = set()
    for inner in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(inner, ast.FunctionDef) and inner.name in dropped:
            start = min([inner.lineno, *(decorator.lineno for decorator in inner.decorator_list)])
            gone |= set(range(start, (inner.end_lineno or inner.lineno) + 2))  # and the empty line behind it
    return "\n".join(lines[number - 1] for number in range(first, (node.end_lineno or first) + 1) if number not in gone).rstrip()


def render_config(node: ast.ClassDef) -> str:
    """A configuration as a frozen dataclass with its fields, their defaults and its properties."""
    body: list[ast.stmt] = []
    for inner in node.body:
        if isinstance(inner, ast.AnnAssign):
            value = inner.value
            given = value.args[0] if isinstance(value, ast.Call) and value.args else None
            body.append(ast.AnnAssign(inner.target, Plain().visit(inner.annotation), given, inner.simple))
        elif not (isinstance(inner, ast.FunctionDef) and _is_checking(inner)):
            body.append(inner)
    decorator = ast.Call(ast.Name("dataclass", ast.Load()), [], [ast.keyword("frozen", ast.Constant(value=True))])
    plain = ast.ClassDef(node.name, [], [], body, [decorator])
    return ast.unparse(ast.fix_missing_locations(plain))


class Plain(ast.NodeTransformer):
    """Takes the conditions out of an annotation: `Annotated[int, ...]` becomes `int`."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """Replace what is annotated."""
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "Annotated" and isinstance(node.slice, ast.Tuple):
            return node.slice.elts[0]
        return node
