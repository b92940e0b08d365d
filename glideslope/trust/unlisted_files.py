"""A folder that holds a release as it comes from a hub: which files are the release's, which links are the client's own, what lies beside.

Every way to open a release asks here. A folder is a plain copy, a snapshot in the client's cache (links to blobs), a folder that the
client was given, or a git clone, whose `.git` nothing reads.

What hubs, their client and a publisher put beside a release is in no manifest. It may lie there because nothing reads it as a part of
the model, and only as long as each file holds what its writer puts into it: a name alone would let anything through.

Source: huggingface_hub 2.4, `_local_folder.py` (what the client notes in a folder of its own), `file_download.py` and
`utils/_shared_blobs.py` (where the cache keeps files).
"""

import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import VerificationError
from ..store.file_lists import list_files
from ..store.strict_json import parse_object, read_bounded
from .status import MAX_STATUS_BYTES, STATUS_NAME, SignedStatus

GIT_NAME = ".git"  # of a clone, a folder; of a clone within a clone, a file
BLOBS, SNAPSHOTS = "blobs", "snapshots"
SHARED_BLOB = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}")
POINTER_START, MAX_POINTER_BYTES = b"version https://git-lfs.github.com/spec/v1\n", 1_024
ATTRIBUTES_NAME = ".gitattributes"
ATTRIBUTES_LINE = re.compile(r"(#.*|[^\s\"!#][^\s\"!]* filter=lfs diff=lfs merge=lfs -text)?\r?")
MAX_ATTRIBUTES_BYTES = 100_000
CLIENT_FOLDER = ".cache/huggingface"
CLIENT_TREE = re.compile(rf"{re.escape(CLIENT_FOLDER)}/trees/[0-9a-f]{{40}}\.json")
MAX_TREE_BYTES = 32_000_000
# Path -> what the whole file is: a cache's mark, a lock (empty, or who holds it), and of a download its commit, tag and time.
CLIENT_NOTES = {
    re.compile(rf"{re.escape(CLIENT_FOLDER)}/(?:{path})"): re.compile(content) for path, content in (
        (r"\.gitignore", rb"\*?\n?"), (r"CACHEDIR\.TAG", rb"Signature: 8a477f597d28d172789f06886806bc55\n(#[^\n]{0,200}\n){0,10}"),
        (r"\.gitignore\.lock|download/.+\.lock", rb"[\w.\n-]{0,200}"),
        (r"download/.+\.metadata", rb"([0-9a-f]{40}\n[\w./\"-]{1,200}\n[0-9.]{1,40}\n?)?"))}
MAX_NOTE_BYTES = 4_000
KEPT_FILES = frozenset({ATTRIBUTES_NAME, STATUS_NAME})
BESIDE = (*sorted(KEPT_FILES), CLIENT_FOLDER, GIT_NAME)


def list_release(folder: Path) -> list[str]:
    """Relative POSIX paths of everything in a folder that may be a release's, sorted: all but git's own.

    Raises:
        VerificationError: something there is no plain file, see `list_files`.
    """
    return list_files(folder, without=(GIT_NAME,))


def find_misplaced(folder: Path, paths: Iterable[str]) -> list[str]:
    """One sentence for every file that lies elsewhere: behind a link that leads out, or not fetched yet by Git LFS.

    A link may lead into the folder itself. Of a snapshot in the client's cache it may also lead to a blob: `blobs/NAME` beside
    `snapshots`, or, for a file that came over Xet, `blobs/ab/ab…` in the cache itself. Anywhere else things lie and change that nobody
    gave with the release.

    Args:
        folder: where the release lies.
        paths: relative POSIX paths of files there.
    """
    root, problems, inside = folder.resolve(), [], []
    for path in paths:
        target = (folder / path).resolve()
        if target.is_relative_to(root) or _is_blob(root, target):
            inside.append(path)
        else:
            problems.append(f"{path}: a link that leads out of the release; put the file itself there")
    return problems + find_pointers(folder, inside)


def find_pointers(folder: Path, paths: Iterable[str]) -> list[str]:
    """One sentence for every file in whose place Git LFS left a note of what belongs there."""
    mend = f"run `git lfs pull` in {folder}" if (folder / GIT_NAME).exists() else "download the release again, with the Hub's client"
    return [f"{path}: a Git LFS pointer, the file itself was not fetched; {mend}" for path in paths if _is_pointer(folder / path)]


def _is_blob(root: Path, target: Path) -> bool:
    """Whether a file is one of those that a snapshot in the client's cache consists of."""
    if root.parent.name != SNAPSHOTS:
        return False
    repository, cache = root.parents[1], root.parents[2]
    return target.parent == repository / BLOBS or (target.is_relative_to(cache / BLOBS)
                                                   and SHARED_BLOB.fullmatch(target.relative_to(cache / BLOBS).as_posix()) is not None)


def _is_pointer(file: Path) -> bool:
    try:
        if file.stat().st_size > MAX_POINTER_BYTES:
            return False
        with file.open("rb") as opened:
            return opened.read(len(POINTER_START)) == POINTER_START
    except OSError:
        return False  # whoever reads the file says why it cannot be read


def may_lie_beside(path: str) -> bool:
    """Whether a file of such a relative POSIX path may lie beside a release without being listed."""
    return path in KEPT_FILES or CLIENT_TREE.fullmatch(path) is not None or any(name.fullmatch(path) for name in CLIENT_NOTES)


def find_misuse(directory: Path, paths: Iterable[str]) -> list[str]:
    """One sentence for every file that may lie beside a release by its path, but does not hold what its writer puts into it.

    Args:
        directory: where the release lies.
        paths: relative POSIX paths of what lies there; those that may not lie beside a release are not looked at.
    """
    problems = []
    for path in paths:
        if may_lie_beside(path):
            try:
                problem = _misuse(directory / path, path)
            except (VerificationError, UnicodeDecodeError) as error:
                problem = f"cannot be read ({error})"
            problems += [f"{path}: {problem}"] if problem else []
    return problems


def _misuse(file: Path, path: str) -> str | None:
    if path == ATTRIBUTES_NAME:  # git runs programs that this file names
        lines = read_bounded(file, MAX_ATTRIBUTES_BYTES).decode().split("\n")  # as git does; other line ends are blanks to it
        wrong = [line for line in lines if not ATTRIBUTES_LINE.fullmatch(line)]
        return f"holds {wrong[0]!r:.80}, which says more than which files are large; restore the one that the Hub made" if wrong else None
    if path == STATUS_NAME:
        SignedStatus.from_bytes(read_bounded(file, MAX_STATUS_BYTES))
        return None
    if CLIENT_TREE.fullmatch(path):
        parse_object(read_bounded(file, MAX_TREE_BYTES), where=path, max_bytes=MAX_TREE_BYTES)
        return None
    content = read_bounded(file, MAX_NOTE_BYTES)
    if any(name.fullmatch(path) and form.fullmatch(content) for name, form in CLIENT_NOTES.items()):
        return None
    return f"is no note of the Hub's client; remove {CLIENT_FOLDER}, nothing needs it"
