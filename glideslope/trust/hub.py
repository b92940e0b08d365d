"""Where a release lies: a directory, or one commit of a repository on the Hub, fetched file by file into the client's cache.

A revision is looked up once; from then on only the commit's 40 characters are used, so that all files are of one commit. The
client compares sizes alone (huggingface_hub 2.4), so what was fetched is held against the manifest by who asked for it.
"""

import contextlib
import ipaddress
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import CheckpointError, DownloadError, RequestError
from ..store.strict_json import read_bounded

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_BRANCH = "main"
PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")

logger = logging.getLogger("glideslope.loading")


@dataclass(frozen=True)
class HubOptions:
    """How the Hub is asked; its address comes from HF_ENDPOINT.

    Attributes:
        token: to read private and gated repositories; none takes the one that is stored, False sends none.
        cache_dir: where files are kept; none takes the client's own place (HF_HOME).
        local_files_only: take everything from there and ask nobody.
    """

    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


@dataclass(frozen=True)
class Listed:
    """What the Hub says of a file: its size in bytes, and its hex SHA-256 where the Hub keeps it as a large file; none: nothing."""

    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True)
class Snapshot:
    """A place to read a release from.

    Attributes:
        path: the directory.
        repo: `org/name`, or none for a directory.
        sha: the commit, or none for a directory.
        listing: what the Hub says lies in the commit; none for a directory, and when the Hub was not asked or not reached: then
            everything has to be in the cache.
        options: how the Hub is asked.
        is_newest: whether the default branch has just been looked up and is this commit.
        revision: what the caller named; none for the default branch and for a directory.
    """

    path: Path
    repo: str | None = None
    sha: str | None = None
    listing: Mapping[str, Listed] | None = None
    options: HubOptions = HubOptions()
    is_newest: bool = False
    revision: str | None = None

    @property
    def is_offline(self) -> bool:
        """Whether the caller chose that nobody is asked."""
        if self.repo is None:
            return True
        from huggingface_hub import constants

        return self.options.local_files_only or bool(constants.HF_HUB_OFFLINE)

    @property
    def name(self) -> str:
        """How messages call it."""
        return str(self.path) if self.repo is None else f"{self.repo} at {str(self.sha)[:12]}"

    def fetch(self, paths: Collection[str]) -> list[str]:
        """Bring files of the commit here, as far as the commit has them; from a directory nothing is fetched.

        Returns:
            Those that should lie here now, sorted; of a directory, or where the Hub was not reached, nobody knows, so all of them.

        Raises:
            DownloadError: the Hub does not give them, or they are not in the cache and nobody may be asked.
        """
        wanted = sorted(path for path in paths if self.listing is None or path in self.listing)
        if self.repo is not None and wanted:
            self._download(wanted)
        return wanted

    def _download(self, wanted: list[str]) -> None:
        assert self.repo is not None
        from huggingface_hub import snapshot_download

        with hub_errors(self.repo, self.sha):
            place = Path(snapshot_download(self.repo, revision=self.sha, allow_patterns=wanted, token=self.options.token,
                                           cache_dir=self.options.cache_dir, local_files_only=self.listing is None))
        if place.resolve() != self.path.resolve():
            raise DownloadError(f"{self.name}: the client put the files into {place}, expected {self.path}")

    def fetch_from_default_branch(self, path: str, max_bytes: int) -> bytes | None:
        """A small file as the default branch has it now; none when it has no such file.

        Raises:
            DownloadError: the Hub could not be asked.
            VerificationError: the file is larger than it may be.
        """
        if self.is_newest and self.listing is not None:
            file = self.path / path
            return read_bounded(file, max_bytes) if path in self.listing else None
        from huggingface_hub import HfApi, hf_hub_download

        with hub_errors(str(self.repo), DEFAULT_BRANCH):
            info = HfApi(token=self.options.token).model_info(str(self.repo))
            if all(file.rfilename != path for file in info.siblings or ()):
                return None
            place = hf_hub_download(str(self.repo), path, revision=info.sha, token=self.options.token, cache_dir=self.options.cache_dir)
        return read_bounded(Path(place), max_bytes)

    def find_cached(self, path: str, max_bytes: int) -> list[bytes]:
        """A small file as every commit in the cache has it, or as a directory has it."""
        places = [self.path] if self.repo is None else sorted(self.path.parent.glob("*"))
        return [read_bounded(place / path, max_bytes) for place in places if (place / path).is_file()]


def resolve(pretrained: str | Path, revision: str | None = None, options: HubOptions | None = None) -> Snapshot:
    """Find a directory, or a commit on the Hub; no file is fetched yet.

    Args:
        pretrained: a directory, or `org/name`; a directory of that name in the working directory goes first.
        revision: branch, tag or commit of a repository; none takes the default branch.
        options: how the Hub is asked.

    Raises:
        CheckpointError: neither a directory nor the name of a repository.
        RequestError: a revision of a directory, or a token that would be sent where others can read it.
        DownloadError: the Hub does not know repository or revision, or cannot be reached and the cache does not know them.
    """
    options = options or HubOptions()
    if not str(pretrained).strip():
        raise CheckpointError("RELEASE is empty; give the directory of a release ('.' for this one), or a repository on the Hub as org/name")
    root = Path(pretrained).expanduser()
    if root.is_dir():
        if revision is not None:
            raise RequestError(f"revision is {revision!r}, but {root} is a directory, which has one state only; leave it out")
        if isinstance(pretrained, str) and REPOSITORY.fullmatch(pretrained):
            logger.warning("%s: is a directory here, and may be a repository on the Hub; the directory is taken. Write ./%s to mean it, or "
                           "go to another directory to load from the Hub", pretrained, pretrained)
        return Snapshot(root)
    if os.path.lexists(root):
        raise CheckpointError(f"{pretrained}: is no directory; give the directory of a release (the one with model_index.json)")
    if isinstance(pretrained, Path) or not REPOSITORY.fullmatch(pretrained):
        raise CheckpointError(f"{pretrained}: no such directory; give the directory of a release (the one with model_index.json), "
                              "or a repository on the Hub as org/name")
    return _resolve_on_hub(pretrained, revision, options)


def _resolve_on_hub(repo: str, revision: str | None, options: HubOptions) -> Snapshot:
    try:
        from huggingface_hub import HfApi, constants
    except (ImportError, ValueError) as error:
        raise RequestError(f"{repo}: {_describe_start(error)}") from error
    check_endpoint(constants.ENDPOINT, sends_token=has_token(options.token))
    api = HfApi(token=options.token)
    is_offline = options.local_files_only or constants.HF_HUB_OFFLINE  # then not even a connection is prepared, which a proxy could hinder
    with hub_errors(repo, revision):
        sha = str(api.resolve_revision(repo, revision=revision, cache_dir=options.cache_dir,
                                       local_files_only=is_offline, token=options.token).resolved)
    if not COMMIT.fullmatch(sha):
        raise DownloadError(f"{repo}: the Hub answered {sha!r:.80} for {revision or DEFAULT_BRANCH}, which is no commit")
    cache = Path(options.cache_dir or constants.HF_HUB_CACHE).expanduser().resolve()
    path = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / sha
    listing = None if is_offline else _list_files(api, repo, sha)
    return Snapshot(path, repo, sha, listing, options, is_newest=revision in (None, DEFAULT_BRANCH), revision=revision)


def _list_files(api: "HfApi", repo: str, sha: str) -> dict[str, Listed] | None:
    """What lies in a commit, or none when the Hub cannot be reached or has no time for us (429): then the cache has to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    with hub_errors(repo, sha):
        try:
            siblings = api.model_info(repo, revision=sha, files_metadata=True).siblings or ()
        except (OfflineModeIsEnabled, httpx.TransportError):
            return None
        except HfHubHTTPError as error:
            if error.response.status_code < 500 and error.response.status_code not in (408, 429):
                raise
            logger.warning("%s: the Hub answers %s, so everything is taken from the cache", repo, error.response.status_code)
            return None
    return {file.rfilename: Listed(file.size, None if file.lfs is None else file.lfs.sha256) for file in siblings}


def check_endpoint(endpoint: str, *, sends_token: bool) -> None:
    """Refuse what is no address of a hub, and to send a token over a connection that others can read.

    Args:
        endpoint: the address, from an option or HF_ENDPOINT.
        sends_token: whether a token goes there.

    Raises:
        RequestError: no address of http or https, one that holds a name, a password or a query, or a token would go to another machine
            over http.
    """
    split = urlsplit(endpoint)
    if split.scheme not in ("http", "https") or not split.hostname or split.username is not None or split.query or split.fragment:
        raise RequestError(f"{endpoint!r:.100} is no address of a hub; expected an address such as https://huggingface.co (HF_ENDPOINT)")
    if sends_token and split.scheme != "https" and not _is_loopback(split.hostname):
        raise RequestError(f"{endpoint} is not encrypted and not on this machine: your token would travel where others can read it; use https, "
                           "or load with token=False")


def has_token(token: str | bool | None) -> bool:
    """Whether a token is sent: the given one, or, where none is given, the one that is stored."""
    if token is False or isinstance(token, str):
        return isinstance(token, str)
    from huggingface_hub import get_token

    return get_token() is not None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _describe_start(error: Exception) -> str:
    """Why the client cannot even ask: it reads the environment when it is imported and when it connects."""
    names = [name for name in PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
    socks = " For a SOCKS proxy run `pip install socksio`." if "socksio" in str(error) else ""
    return (f"the Hub's client cannot start ({_first_line(error)}).{socks} Look at {', '.join([*names, 'the variables that begin with HF_'])}; "
            "with HF_HUB_OFFLINE=1 a release loads from the cache")


@contextlib.contextmanager
def hub_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the client raises into a DownloadError that says what to do."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import httpx

    at = f"{repo} at {constants.ENDPOINT}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise DownloadError(f"{at}: is gated; accept its terms on its page, log in with `hf auth login` (or give token=), "
                            "and load again") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(f"{at}: there is no such repository, or it is not shown to you; check the name, log in with `hf auth login` "
                            "or give a token that may read it (and there is no directory of that name here)") from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(f"{at}: has no revision {revision!r}; give a branch, a tag or a commit that it has") from error
    except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, errors.OfflineModeIsEnabled) as error:
        raise DownloadError(f"{at}: revision {revision or DEFAULT_BRANCH} is not whole in the cache, and the Hub was not reached "
                            f"({_first_line(error)}); connect once, or name a revision that was loaded before") from error
    except errors.HFValidationError as error:
        raise RequestError(f"{repo}: {_first_line(error)}") from error
    except (httpx.HTTPError, errors.XetDownloadError, OSError) as error:
        if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
            raise DownloadError(f"{at}: refused your token ({_first_line(error)}); log in again with `hf auth login`, give a token that "
                                "may read it, or none where none is needed (token=False)") from error
        raise DownloadError(f"{at}: fetching failed ({_first_line(error)}); load again, what was fetched whole is kept") from error
    except (ImportError, ValueError) as error:
        raise RequestError(f"{at}: {_describe_start(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
