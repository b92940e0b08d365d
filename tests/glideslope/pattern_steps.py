"""How many steps a backtracking matcher takes, counted: the cost of a pattern on a text, without a clock.

It walks the tree that Python's own parser makes of a pattern, as Python's engine does, and stands for that engine only where the
number of steps is asked for.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from re import _constants as sre  # type: ignore[attr-defined]  # the parser that `re` itself uses; it has no public name
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

Continue = Callable[[int], bool]
SINGLE = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)
REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)
MOST_STEPS = 400_000
PROBES = "aA0_-. /:\\@=~\n\"'é{}<>[]|%+;,xe"


class TooManyStepsError(Exception):
    """More steps than are counted."""


class Matcher:
    """One pattern on one text."""

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self.text, self.flags, self.num_steps = text, pattern.flags, 0
        self.groups: dict[int | None, str] = {}
        self.tree = list(sre_parser.parse(pattern.pattern, pattern.flags))

    def search_all(self) -> int:
        """Steps of finding every match from the left, as `finditer` does."""
        start, ends = 0, [0]
        with suppress(TooManyStepsError):
            self._search(start, ends)
        return self.num_steps

    def _search(self, start: int, ends: list[int]) -> None:
        while start <= len(self.text):
            self.num_steps += 1
            ends.clear()
            start = max(start + 1, ends[0]) if self.sequence(self.tree, 0, start, lambda end: not ends.append(end)) else start + 1

    def match_at_start(self) -> int:
        """Steps of matching the whole text from its beginning."""
        with suppress(TooManyStepsError):
            self.sequence(self.tree, 0, 0, lambda end: end == len(self.text))
        return self.num_steps

    def sequence(self, items: list[Any], place: int, at: int, then: Continue) -> bool:  # noqa: PLR0911 (one for each part of a pattern)
        if place == len(items):
            return then(at)
        self.num_steps += 1
        if self.num_steps > MOST_STEPS:
            raise TooManyStepsError
        op, value = items[place]

        def go_on(end: int) -> bool:
            return self.sequence(items, place + 1, end, then)

        if op in SINGLE:
            return at < len(self.text) and fits(op, value, self.text[at], self.flags) and go_on(at + 1)
        if op in REPEATS:
            return self.repeat(op, value, at, go_on)
        if op is sre.BRANCH:
            return any(self.sequence(list(branch), 0, at, go_on) for branch in value[1])
        if op is sre.SUBPATTERN:
            def close(end: int) -> bool:
                self.groups[value[0]] = self.text[at:end]
                return go_on(end)

            return self.sequence(list(value[-1]), 0, at, close)
        if op is sre.GROUPREF:
            said = self.groups.get(value)
            self.num_steps += len(said or "")
            return said is not None and self.text.startswith(said, at) and go_on(at + len(said))
        if op is sre.ATOMIC_GROUP:
            ends: list[int] = []
            return self.sequence(list(value), 0, at, lambda end: not ends.append(end)) and go_on(ends[0])
        if op in (sre.ASSERT, sre.ASSERT_NOT):
            direction, inner = value
            width = inner.getwidth()[0] if direction < 0 else 0
            holds = at - width >= 0 and self.sequence(list(inner), 0, at - width, lambda end: True)
            return holds == (op is sre.ASSERT) and go_on(at)
        if op is sre.AT:
            return self.stands_at(value, at) and go_on(at)
        raise NotImplementedError(f"{op} is not counted yet; add it here")

    def repeat(self, op: Any, value: Any, at: int, go_on: Continue) -> bool:
        least, most, inner = int(value[0]), int(value[1]), list(value[2])
        if len(inner) == 1 and inner[0][0] in SINGLE:
            count = 0
            while count < most and at + count < len(self.text) and fits(*inner[0], self.text[at + count], self.flags):
                count += 1
            self.num_steps += count
            counts: Any = {sre.MAX_REPEAT: range(count, least - 1, -1), sre.MIN_REPEAT: range(least, count + 1)}.get(op, [count])
            for number in counts:
                self.num_steps += 1
                if number >= least and go_on(at + number):
                    return True
            return False

        def once_more(number: int, start: int) -> bool:
            if op is sre.MIN_REPEAT and number >= least and go_on(start):
                return True
            if number < most and self.sequence(inner, 0, start, lambda end: end > start and once_more(number + 1, end)):
                return True
            return op is not sre.MIN_REPEAT and number >= least and go_on(start)

        if op is not sre.POSSESSIVE_REPEAT:
            return once_more(0, at)
        number, ends = 0, [at]
        while number < most and self.sequence(inner, 0, ends[-1], lambda end: end > ends[-1] and not ends.append(end)):
            number += 1
        return number >= least and go_on(ends[-1])

    def stands_at(self, what: Any, at: int) -> bool:
        words = [0 <= place < len(self.text) and (self.text[place].isalnum() or self.text[place] == "_") for place in (at - 1, at)]
        return {sre.AT_BEGINNING: at == 0, sre.AT_BEGINNING_STRING: at == 0, sre.AT_END: at >= len(self.text) - self.text.endswith("\n"),
                sre.AT_END_STRING: at == len(self.text), sre.AT_BOUNDARY: words[0] != words[1],
                sre.AT_NON_BOUNDARY: words[0] == words[1]}[what]


def fits(op: Any, value: Any, character: str, flags: int) -> bool:
    """Whether one character fits a part of a pattern that takes one."""
    if flags & re.IGNORECASE and (other := character.swapcase()) != character and op is not sre.ANY:
        plain = flags & ~re.IGNORECASE
        return fits(op, value, character, plain) or fits(op, value, other, plain)
    if op is sre.ANY:
        return character != "\n" or bool(flags & re.DOTALL)
    if op is not sre.IN:
        return (ord(character) == value) == (op is sre.LITERAL)
    found, negated = False, False
    for kind, what in value:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            found = found or ord(character) == what
        elif kind is sre.RANGE:
            found = found or what[0] <= ord(character) <= what[1]
        else:
            found = found or in_category(what, character)
    return found != negated


def in_category(what: Any, character: str) -> bool:
    """Whether a character is a digit, a space, a letter, or none."""
    name = str(what)
    is_word = character.isalnum() or character == "_"
    holds = {"DIGIT": character.isdigit(), "SPACE": character.isspace(), "WORD": is_word}[name.rpartition("_")[2]]
    return holds != ("NOT" in name)


def examples(tree: Any, flags: int, turn: int) -> Iterator[str]:
    """Texts that lead through a pattern, piece by piece; another turn takes other branches and characters."""
    for op, value in tree:
        if op is sre.LITERAL:
            yield chr(value)
        elif op in SINGLE:
            fitting = [character for character in PROBES if fits(op, value, character, flags)]
            yield fitting[turn % len(fitting)] if fitting else ""
        elif op in REPEATS:
            once = "".join(examples(value[2], flags, turn))
            yield once * max(int(value[0]), min(2, int(value[1])))
        elif op is sre.BRANCH:
            yield "".join(examples(value[1][turn % len(value[1])], flags, turn))
        elif op is sre.SUBPATTERN:
            yield from examples(value[-1], flags, turn)
        elif op is sre.ATOMIC_GROUP:
            yield from examples(value, flags, turn)


def pumps(pattern: re.Pattern[str]) -> set[str]:
    """Texts that, repeated, lead the matcher far into a pattern and then astray: beginnings of what it matches, apart and run together."""
    tree, found = sre_parser.parse(pattern.pattern, pattern.flags), set(PROBES)
    for turn in range(3):
        pieces = list(examples(tree, pattern.flags, turn))
        for stop in range(1, min(len(pieces), 24) + 1):
            text = "".join(pieces[:stop])[-80:]
            found |= {text, f"-{text}", f" {text}", f".{text}", f"/{text}"}
    return found - {""}
