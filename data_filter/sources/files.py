"""Files that sources read: listing, digests, and reads that end in bytes or in one sentence on what is wrong."""

import os
import re
import stat
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import product
from pathlib import Path, PurePosixPath

from ...errors import SourceError
from ...store.digests import sha256_file
from ...store.litter import who_left

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
                            ".tga", ".tif", ".tiff", ".webp"})
# Files that hold pictures which are not read; each becomes a row that says so.
UNSUPPORTED_SUFFIXES = frozenset({".ai", ".arw", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".ico", ".jxl", ".nef",
                                  ".orf", ".psd", ".raf", ".raw", ".rw2", ".svg", ".svgz", ".xcf"})
MAX_IMAGE_BYTES = 1 << 29  # a file beyond that is not read into memory; the largest sound image of 50 megapixels has 400 MB
MAX_TEXT_BYTES = 1 << 24
SETTLED_NS = 2_000_000_000  # file systems keep times coarsely: only a file older than that is known by its times
BLOCK_SIZE = 64
GLOB_SIGNS = re.compile(r"[*?\[]")
BRACES = re.compile(r"\{([^{}]*)\}")
BRACE_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class Unreadable(Exception):
    """A file that cannot be had; caught input by input.

    Attributes:
        reason: `missing`, `too large` or `unreadable`.
        problem: the rest of a sentence that begins with the file's name.
    """

    def __init__(self, reason: str, problem: str) -> None:
        """Keep both."""
        super().__init__(problem)
        self.reason, self.problem = reason, problem


def list_visible(root: Path) -> Iterator[str]:
    """Every file below a folder as a POSIX path relative to it, in a fixed order: a folder's files before its folders.

    Links to folders are followed, but never in a circle. Names that start with a dot are not looked at, nor is what systems leave behind.

    Raises:
        SourceError: a folder cannot be listed; its files would be lost without a word otherwise.
    """
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        below, above = waiting.pop()
        folders = []
        try:
            found = (root / below).stat()
            place = (found.st_dev, found.st_ino)
            if place in above:
                continue
            with os.scandir(root / below) as entries:
                visible = sorted((entry.name, entry.is_dir()) for entry in entries if not is_left_out(entry.name))
        except OSError as error:
            raise SourceError(f"{root / below}: this folder cannot be listed: {error.strerror}") from error
        for name, is_folder in visible:
            if is_folder:
                folders.append((f"{below}{name}/", above | {place}))
            else:
                yield below + name
        waiting += reversed(folders)


def is_left_out(name: str) -> bool:
    """Whether a file or folder of that name is none of the data: it starts with a dot, or some system has left it behind."""
    return name.startswith(".") or who_left(name) is not None


def list_files(path: str, *, suffix: str) -> tuple[str, ...]:
    """The files that a recipe's path names, relative to the first part of `split_path`, in order.

    The path is a folder (everything below it that ends with the suffix), one file, a glob, or has braces as in
    `part-{0000..0099}.tar`. What exists as it is written is meant literally, whatever signs are in its name.

    Raises:
        SourceError: there is none, or one that braces name does not exist.
    """
    root, pattern = split_path(path)
    if not pattern:
        files = tuple(name for name in list_visible(root) if name.lower().endswith(suffix))
        if not files:
            raise SourceError(f"{path}: no {suffix} file in this folder or below it")
        return files
    found = match_pattern(root, pattern)
    if not found:
        for name in expand_braces(pattern):
            found += match_pattern(root, name) or ([] if GLOB_SIGNS.search(name) else [name])
    missing = [name for name in found if not (root / name).is_file()]
    if not found or missing:
        many = f"{', '.join(missing[:3])} is missing, {len(missing)} of {len(found)} files are"
        told = many if len(found) > 1 else "no such file or folder"
        raise SourceError(f"{path}: {told}; expected a folder, a {suffix} file, a glob or braces like part-{{000..099}}{suffix}")
    return tuple(dict.fromkeys(found))


def locate(path: str) -> Path:
    """A recipe's path: as it is written where that exists, else with `~` as the home directory, else in another spelling of its letters."""
    whole = Path(path)
    if path.startswith("~") and not Path(whole.parts[0]).exists():
        try:
            whole = whole.expanduser()
        except RuntimeError:  # no such user
            return whole
    place = Path()
    for number, part in enumerate(whole.parts):
        spelled = part if (place / part).exists() else find_spelled(place, part, any_case=False)
        if spelled is None:
            return place.joinpath(*whole.parts[number:])
        place /= spelled
    return place


def split_path(path: str) -> tuple[Path, str]:
    """The folder that a source's paths count from, and the rest: "" for a folder, a file's name, or a pattern with its folders."""
    whole = locate(path)
    if whole.is_dir():
        return whole, ""
    if whole.exists():
        return whole.parent, whole.name
    parts = whole.parts
    plain = next((number for number in range(len(parts)) if not Path(*parts[:number + 1]).is_dir()), len(parts) - 1)
    return Path(*parts[:plain]), "/".join(parts[plain:])


def match_pattern(root: Path, pattern: str) -> list[str]:
    """The paths below a folder that a pattern means, in order; a part of it that exists as it is written means only that."""
    places = [""]
    for part in pattern.split("/"):
        places = [found for place in places for found in match_part(root, place, part)]
    return sorted(place.rstrip("/") for place in places)


def match_part(root: Path, place: str, part: str) -> list[str]:
    """What one part of a pattern means in a folder (`place`, "" or with a slash at its end); paths end with a slash too."""
    if (root / place / part).exists():
        return [f"{place}{part}/"]
    if part == "**":
        folders = (name.rpartition("/")[0] for name in list_visible(root / place))
        parents = {parent for folder in folders for parent in (folder, *map(str, PurePosixPath(folder).parents))} - {"."}
        return sorted({f"{place}{folder}/" if folder else place for folder in {"", *parents}})
    if not GLOB_SIGNS.search(part) or not (root / place).is_dir():
        return []
    names = sorted(entry.name for entry in os.scandir(root / place))
    return [f"{place}{name}/" for name in names if fnmatchcase(name, part) and (part.startswith(".") or not is_left_out(name))]


def find_spelled(root: Path, name: str, *, any_case: bool = True) -> str | None:
    """The one path below a folder that a name means though it is spelled otherwise.

    Systems write one letter in several ways: `é` as one sign or as two (macOS), and some tell `A` from `a` while others do not.

    Args:
        root: the folder.
        name: the path, relative to it.
        any_case: whether capitals and small letters are one.

    Returns:
        The path as it is spelled there; None where there is no such file, or where several are meant.
    """
    place = ""
    for part in name.split("/"):
        if part == ".." or os.path.lexists(root / place / part):
            place += f"{part}/"
            continue
        try:
            spellings = list_spellings(root / place, (root / place).stat().st_mtime_ns, any_case)
        except OSError:  # no folder, or one that cannot be listed
            return None
        meant = spellings.get(fold(part, any_case), ())
        if len(meant) != 1:
            return None
        place += f"{meant[0]}/"
    return place.rstrip("/")


@lru_cache(maxsize=1 << 10)
def list_spellings(folder: Path, changed_ns: int, any_case: bool) -> Mapping[str, Sequence[str]]:
    """The names in a folder by what `fold` makes of them."""
    spellings: dict[str, list[str]] = {}
    for entry in os.scandir(folder):
        spellings.setdefault(fold(entry.name, any_case), []).append(entry.name)
    return spellings


def fold(name: str, any_case: bool = True) -> str:
    """A name in the one spelling by which names are compared."""
    composed = unicodedata.normalize("NFC", name)
    return unicodedata.normalize("NFC", composed.casefold()) if any_case else composed


def expand_braces(pattern: str) -> list[str]:
    """`a{0..2}` gives a0, a1, a2 (with as many digits as the first bound), `{x,y}` gives both, in order; braces do not nest.

    Raises:
        SourceError: a range that counts down.
    """
    pieces = BRACES.split(pattern)  # text, inside, text, inside, ..., text
    choices: list[list[str]] = []
    for place, piece in enumerate(pieces):
        bounds = BRACE_RANGE.fullmatch(piece) if place % 2 else None
        if bounds is None:
            choices.append(piece.split(",") if place % 2 else [piece])
            continue
        first, last = bounds.groups()
        if int(first) > int(last):
            raise SourceError(f"{pattern}: the range {{{piece}}} counts down; the smaller number comes first")
        choices.append([str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)])
    return ["".join(choice) for choice in product(*choices)]


def plain_text(name: str) -> str:
    """A path as text; bytes that are not UTF-8 are written as escapes."""
    if name.isascii():
        return name
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, as JSON can spell it
        data = name.encode("utf-8", "surrogatepass")
    return data.decode("utf-8", "backslashreplace")


def below_root(root: Path, name: str) -> str | None:
    """A path relative to a root, or absolute, as its normal form below the root; None where it leads out."""
    whole = os.path.normpath(os.path.join(root, name))  # noqa: PTH118  (pathlib does not resolve `..` without the disk)
    base = os.path.normpath(root)
    if base == ".":
        return None if whole == ".." or whole.startswith(("../", "/")) else whole
    return whole[len(base.rstrip("/")) + 1:] if whole.startswith(base.rstrip("/") + "/") else None


def read_file(path: Path, *, max_bytes: int) -> bytes:
    """The bytes of a plain file.

    Raises:
        Unreadable: it is missing, no plain file, too large, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a named pipe must not keep the run waiting
        try:
            check_stat(os.fstat(handle), max_bytes)
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        raise describe_failure(error) from error


def check_stat(found: os.stat_result, max_bytes: int) -> None:
    """Refuse what is no plain file or is too large to be read.

    Raises:
        Unreadable: it is one of these.
    """
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("unreadable", "cannot be read: not a plain file")
    if found.st_size > max_bytes:
        raise Unreadable("too large", f"is too large: {found.st_size} bytes, at most {max_bytes} are read")


def digest_file(path: Path) -> str:
    """SHA-256 of a file; one that has not been written to since is hashed once per process.

    Raises:
        OSError: it cannot be read.
    """
    found = path.stat()
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < SETTLED_NS:
        return sha256_file(path)
    return digest_settled(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=1 << 18)
def digest_settled(path: Path, device: int, inode: int, size: int, written_ns: int, changed_ns: int) -> str:
    """SHA-256 of a file that carries these marks."""
    return sha256_file(path)


def digest_image(path: Path) -> str:
    """SHA-256 of an image file that `read_file` would read.

    Raises:
        Unreadable: as `read_file`.
    """
    try:
        check_stat(path.stat(), MAX_IMAGE_BYTES)
        return digest_file(path)
    except (OSError, ValueError) as error:
        raise describe_failure(error) from error


def digest_or_reason(path: Path) -> str:
    """What a fingerprint says of an image file: its SHA-256, or the reason why `read_file` refuses it."""
    try:
        return digest_image(path)
    except Unreadable as problem:
        return problem.reason


def describe_failure(error: OSError | ValueError) -> Unreadable:
    """The system's refusal (a ValueError: a name with a zero byte) as this module's."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Unreadable("missing", "is missing")
    return Unreadable("unreadable", f"cannot be read: {getattr(error, 'strerror', None) or error}")


def digest_images(paths: Sequence[Path]) -> list[str]:
    """`digest_or_reason` of many files, several at once."""
    blocks = [paths[start:start + BLOCK_SIZE] for start in range(0, len(paths), BLOCK_SIZE)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return [digest for block in pool.map(lambda block: [digest_or_reason(path) for path in block], blocks) for digest in block]


def digest_files(root: Path, names: Sequence[str]) -> list[str]:
    """SHA-256 of each file of a source, several at once.

    Raises:
        SourceError: one cannot be read.
    """
    def digest(name: str) -> str:
        try:
            return digest_file(root / name)
        except OSError as error:
            raise SourceError(f"{root / name}: cannot be read: {error.strerror}") from error

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(digest, names))
