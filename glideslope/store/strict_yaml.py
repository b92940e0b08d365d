"""YAML from strangers: size and depth limited, no aliases, no tags, no repeated keys, so that a short text stays a small value.

An alias stands for a whole value, and a value may hold aliases: some hundred bytes can name a tree with more nodes than any
machine has memory for, and whoever walks it never comes back. Nothing that this project writes needs one.
"""

from typing import Any

import yaml

from ..text.text_files import NotTextError, decode_text

MAX_BYTES = 300_000  # PyYAML takes seconds for more
MAX_DEPTH = 32
MAX_NUMBER_LENGTH = 100


class StrictLoader(yaml.SafeLoader):
    """Reads plain YAML; what is refused is refused before anything is built of it."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Take the next value in, unless it is an alias, has a tag, or lies too deep."""
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, f"*{event.anchor}: an alias; write the value out", mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, f"{event.tag}: a tag; write a plain value", mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"lists and mappings lie more than {MAX_DEPTH} deep", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dictionary of a mapping; the last of two equal keys would silently win otherwise."""
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r:.80} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _construct_short(loader: StrictLoader, node: yaml.ScalarNode) -> Any:
    """A number as PyYAML reads it, unless it is too long: one of base 60 takes time with the square of its length."""
    if len(str(node.value)) > MAX_NUMBER_LENGTH:
        raise yaml.constructor.ConstructorError(None, None, f"a number of {len(node.value)} characters", node.start_mark)
    is_float = node.tag.endswith(":float")
    return loader.construct_yaml_float(node) if is_float else loader.construct_yaml_int(node)


for _kind in ("int", "float"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct_short)


def load_yaml(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parse one YAML document into plain data.

    Args:
        text: the document, in UTF-8 where it is bytes.
        max_bytes: longest text that is looked at.

    Raises:
        yaml.YAMLError: too long, not UTF-8, not YAML, an alias, a tag, lists and mappings more than 32 deep, a key that stands
            twice, or a number or date that there is not.
    """
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if len(data) > max_bytes:
        raise yaml.YAMLError(f"{len(data)} bytes; at most {max_bytes} are read")
    try:
        return yaml.load(decode_text(data), Loader=StrictLoader)
    except NotTextError as error:
        raise yaml.YAMLError(str(error)) from error
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise yaml.YAMLError(f"holds a value that cannot be read ({type(error).__name__}: {error!s:.200})") from error
