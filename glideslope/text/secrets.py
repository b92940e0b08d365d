"""What must never be published: tokens, private keys, mail addresses, paths and names of machines.

Captions are somebody's data: they may speak of anything, so they are searched for tokens, keys and mail addresses only.
Everything else that a release holds was written by programs and by whoever releases it, and is searched for all of it.
Nothing that is found is ever shown whole.
"""

import math
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CAPTION_FIELDS = frozenset({"caption", "captions", "prompt", "others", "other_prompt"})
MIN_ENTROPY_BITS = 3.0
MIN_WORD_LENGTH = 6
PLACEHOLDER_DOMAINS = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net)|example|test|invalid|localhost)$")  # RFC 2606: nobody's
PICTURE_SUFFIXES = frozenset({"png", "jpg", "jpeg", "webp", "gif", "svg", "bmp", "tif", "tiff", "avif", "jfif"})
PIXEL_RATIO = re.compile(r"[1-9]x(?:\.|$)")  # of a picture for finer screens: apple@2x.png
MAIL_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*\.[a-z]{2,24}")
PATH = "a path of a machine"


@dataclass(frozen=True)
class Kind:
    """One kind of secret.

    Attributes:
        name: with its article, for messages.
        pattern: finds it; the group `secret`, where there is one, is what must look random.
        hints: a text without any of these, its case ignored, cannot hold it.
        in_captions: whether captions are searched for it too.
    """

    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...]
    in_captions: bool = True


def _kind(name: str, pattern: str, *hints: str, in_captions: bool = True) -> Kind:
    return Kind(name, re.compile(pattern), hints, in_captions)


FOLDERS = ("home", "root", "Users", "tmp", "work", "workspace", "mnt", "media", "srv", "opt", "var", "private", "scratch", "Volumes",
           "nfs", "lustre", "gpfs", "beegfs", "ceph", "project", "projects", "users", "cluster", "export",
           "shared", "vol", "data", "datasets", "content", "kaggle", "etc", "usr", "app", "storage", "raid")
SECRET_NAMES = r"(?:api[_-]?key|secret|token|passw(?:or)?d|pwd|access[_-]?key|private[_-]?key|credential)s?"
NO_PASSWORD = r"(?!(?:none|null|true|false|yes|no|required|optional|string|str|changeme)\b|[*x.…<$({\[])"
# Each takes time in proportion to the text: what a pattern repeats without a bound may not hold its own beginning, or it never goes back.
KINDS = (
    _kind("a Hugging Face token", r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{20,}", "hf_", "api_org_"),
    _kind("a GitHub token", r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,})",
          "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    _kind("a GitLab token", r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,}", "glpat-"),
    _kind("an AWS key id", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])", "akia", "asia"),
    _kind("a Google API key", r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}", "aiza"),
    _kind("a Slack token", r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,}", "xox"),
    _kind("an API key", r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,})", "sk-", "npm_", "pypi-"),
    _kind("an API key", r"(?<![A-Za-z0-9])(?:[sr]k_live_[A-Za-z0-9]{16,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|ya29\.[A-Za-z0-9_-]{20,}"
          r"|dckr_[po]at_[A-Za-z0-9_-]{20,})", "k_live_", "sg.", "ya29.", "dckr_"),
    _kind("the address of a webhook", r"(?i)(?:hooks\.slack\.com/(?:services|workflows|triggers)/|"
          r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d)[A-Za-z0-9/_-]{8,}", "hooks.slack.com/", "/webhooks/"),
    _kind("a key of cloud storage", r"(?i)(?:Account|SharedAccess)Key=[A-Za-z0-9+/]{20,}", "accountkey=", "sharedaccesskey="),
    _kind("a header with a token", r"(?i)(?<![A-Za-z])authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
          r"(?:bearer|basic|token)\s{1,3}[A-Za-z0-9+/_.=~-]{8,}",
          "authorization"),
    _kind("a private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----", "-----begin"),
    _kind("a JSON web token", r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*?eyJ[A-Za-z0-9_-]{8})[A-Za-z0-9_-]++\.eyJ[A-Za-z0-9_-]{8,}+"
          r"\.[A-Za-z0-9_-]{8,}", "eyj"),
    _kind("an address with a password", r"(?<![A-Za-z0-9])[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]+:[^\s/@\"'<>]+@[^\s/\"'<>]+", "://"),
    _kind("a mail address", r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?P<domain>[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*"
          r"\.[A-Za-z]{2,24})(?![A-Za-z0-9])", "@"),
    _kind("a password or key", rf"(?i)(?<![A-Za-z]){SECRET_NAMES}[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?(?P<secret>[A-Za-z0-9+/_.=-]{{16,}})",
          "key", "secret", "token", "passw", "pwd", "credential", in_captions=False),
    _kind("a password or key", rf"(?i)(?<![A-Za-z])(?:passw(?:or)?d|pwd|passphrase)[\"']?[ \t]{{0,3}}[:=][ \t]{{0,3}}[\"']?{NO_PASSWORD}"
          r"[^\s\"',;]{6,}", "passw", "pwd", "passphrase", in_captions=False),
    _kind(PATH, rf"(?:(?<![\w.~/-])|(?<=file:/)|(?<=file://))/(?:{'|'.join(FOLDERS)})/[\w.~-][^\s\"'<>|]*",
          *(f"/{folder.lower()}/" for folder in FOLDERS), in_captions=False),
    _kind(PATH, r"(?<![A-Za-z0-9])[A-Za-z]:(?:\\{1,2}[\w.~$-]+|/[\w.~$-]+/)"
          r"|(?<!\\)\\\\[\w.-]+\\+[\w.$-]+", ":\\", ":/", "\\\\", in_captions=False),
    _kind("the name of an inner host", r"(?i)(?<![A-Za-z0-9])(?:https?|ftp|ssh|s3|socks5)://(?:localhost|127\.\d|10\.\d+\.|192\.168\.|"
          r"172\.(?:1[6-9]|2\d|3[01])\.|(?:[a-z0-9-]+\.)*(?:proxy|registry|artifactory|nexus|mirror|mirrors)[a-z0-9-]*\.|[a-z0-9-]+[:/]|"
          r"(?:[a-z0-9-]+\.)+(?:local|lan|internal|corp|intranet|localdomain|home|cluster|svc)(?![a-z0-9.-]))[^\s\"'<>]*",
          "://", in_captions=False),
    _kind("a proxy or package index",
          r"(?i)(?<![A-Za-z])(?:https?_proxy|all_proxy|(?:extra[_-])?index[_-]url|trusted[_-]host)\s{0,3}[=:]\s{0,3}[\"']?\S+",
          "_proxy", "index", "trusted", in_captions=False),
)
# A whole value that is a place: `/a/b`, `~/a`, `C:\\a`, with or without `word:` before it. Routes of the Hub are no places.
PATH_VALUE = re.compile(r"(?:[A-Za-z][\w+-]+:)?(?!/(?:api|_lfs|branch|commit|repos|resolve|tag|tree|xet-[a-z]+-token)/)"
                        r"(?:(?:/[^\s/][^/\n]*){2,}/?|~[\w.-]*[/\\][^\n]+|[A-Za-z]:[/\\][^/\\\n][^\n]*)")
PATH_HINT = re.compile(r"(?<![\w/.])/[^\s/]|~|(?<![A-Za-z0-9])[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class Finding:
    """Something that must not be published: where it stands, what it is, and its beginning."""

    place: str
    kind: str
    shown: str

    def __str__(self) -> str:
        """One clause for a message."""
        return f"{self.place}: {self.kind} ({self.shown})" if self.shown else f"{self.place}: {self.kind}"


def private_words() -> list[str]:
    """What would give this machine away: its name, unless that is an ordinary word, and the home directory."""
    name, home = socket.gethostname().split(".")[0], os.path.expanduser("~")  # noqa: PTH111  (Path.home fails where nobody knows the user)
    telling = len(name) >= MIN_WORD_LENGTH and re.search(r"[0-9-]", name) and not name.startswith("localhost")
    return [*([name] if telling else []), *([home] if len(home) >= MIN_WORD_LENGTH else [])]


def word_kind(word: str) -> Kind:
    """A text of somebody's own as a kind of secret, such as one of `private_words`."""
    return Kind("the name of this machine", re.compile(rf"(?i)(?<![\w-]){re.escape(word)}(?![\w-])"), (word.lower(),), in_captions=False)


def find_matches(text: str, kinds: tuple[Kind, ...], *, is_caption: bool) -> Iterator[tuple[str, re.Match[str]]]:
    """Every secret in a text, with the name of its kind; in captions only what these may not hold."""
    for kind in hinted(text, kinds):
        if is_caption and not kind.in_captions:
            continue
        for match in kind.pattern.finditer(text):
            if _is_real(match):
                yield kind.name, match


def hinted(text: str, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """The kinds of which a text holds a hint: for most texts none."""
    lowered = text.lower()
    return tuple([kind for kind in kinds if any([hint in lowered for hint in kind.hints])])  # lists: twice as fast here as generators


def _is_real(match: re.Match[str]) -> bool:
    """Whether a match is no placeholder: a mail domain that somebody may own, a key that looks random."""
    groups = match.groupdict()
    if (domain := groups.get("domain")) is not None:
        return is_mail_domain(domain.lower())
    if (secret := groups.get("secret")) is not None:
        return _entropy(secret) >= MIN_ENTROPY_BITS and bool(re.search(r"[0-9]", secret)) and bool(re.search(r"[A-Za-z]", secret))
    return True


def is_mail_domain(domain: str) -> bool:
    """Whether somebody may own a domain in small letters; `2x.png` ends a picture's name, `uni.edu.png` an address and a picture's ending."""
    rest, _, last = domain.rpartition(".")
    if last in PICTURE_SUFFIXES:
        return not PIXEL_RATIO.match(rest) and MAIL_DOMAIN.fullmatch(rest) is not None and is_mail_domain(rest)
    return not PLACEHOLDER_DOMAINS.search(domain)


def _entropy(text: str) -> float:
    """Bits per character by the text's own frequencies (Shannon)."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def mask(text: str) -> str:
    """The beginning of a secret and its length: enough to find it, too little to use it."""
    shown = text[:1] if "@" in text else text[:min(6, len(text) // 3)]
    return f"{shown}…, {len(text)} characters"


def harmless_name(name: str, kinds: tuple[Kind, ...], *, otherwise: str = "…") -> str:
    """A name for a message, unless it holds a secret itself."""
    return otherwise if next(find_matches(name, kinds, is_caption=False), None) else name[:80]


def scan_lines(text: str, kinds: tuple[Kind, ...], *, is_caption: bool = False) -> Iterator[Finding]:
    """The secrets of some kinds in a text; the places are line numbers."""
    line = counted = 0
    for name, match in find_matches(text, kinds, is_caption=is_caption):
        if match.start() < counted:  # the next kind begins again at the text's beginning
            line = counted = 0
        line, counted = line + text.count("\n", counted, match.start()), match.start()
        yield Finding(f"line {line + 1}", name, mask(match.group()))


def scan_tree(value: Any, kinds: tuple[Kind, ...], place: str = "", key: str = "") -> Iterator[Finding]:
    """Search the strings of plain data, and its keys; the place is the way to the value."""
    if isinstance(value, Mapping):
        names = "\n".join(map(str, value))
        yield from (Finding(f"key in {place or 'the top'}", found.kind, found.shown) for found in scan_lines(names, kinds))
        for name, inner in value.items():
            shown = harmless_name(str(name), kinds)
            yield from scan_tree(inner, kinds, f"{place}.{shown}" if place else shown, str(name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from scan_tree(inner, kinds, f"{place}[{number}]", key)
    elif isinstance(value, str):
        is_caption = key in CAPTION_FIELDS
        text = value if is_caption else f"{key}={value}"
        found = list(find_matches(text, kinds, is_caption=is_caption))
        for name, match in found:
            yield Finding(place or "the top", name, mask(match.group()))
        if not is_caption and not any(name == PATH for name, _ in found) and PATH_VALUE.fullmatch(value.strip()):
            yield Finding(place or "the top", PATH, mask(value.strip()))
