"""The Hugging Face Hub as a target.

Only calls that the Hub carries out whole or not at all are used: `create_commit` with `parent_commit`, references, settings.
`upload_folder` is not: in `huggingface_hub` 2.x it makes several commits. The client compares only the sizes of what it
downloads, so whoever fetches must check what came.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import ReleaseError
from ...text.one_line import one_line
from ...trust.hub import check_endpoint
from .targets import Edit, Gated, Moved, TargetFile, TargetState, Unsettled

MAIN = "main"
REPEATABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
CONFLICTS = frozenset({409, 412})
TIMEOUT_S = 60.0


class HubTarget:
    """A model repository on the Hub, or on another server that speaks its protocol.

    Attributes:
        name: namespace and name, such as "org/name".
        endpoint: address of the Hub.
        has_access: a repository can be private and gated.
    """

    has_access = True

    def __init__(self, name: str, *, endpoint: str | None = None, token: str | None = None) -> None:
        """Remember where to publish; nothing is sent yet.

        Args:
            name: namespace and name.
            endpoint: address of the Hub; none: the one that `huggingface_hub` was imported with (`HF_ENDPOINT`).
            token: a token that may write; none: the one that `hf auth login` stored, or `HF_TOKEN`.

        Raises:
            RequestError: an address that a token must not be sent to.
            ReleaseError: a name that cannot be a repository's.
        """
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        self.name, self.endpoint = name, (constants.ENDPOINT if endpoint is None else endpoint).rstrip("/")
        check_endpoint(self.endpoint, sends_token=True)
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ReleaseError(f"{name!r} cannot be a repository: {error}; expected org/name") from error
        if name.count("/") != 1:
            raise ReleaseError(f"{name!r} cannot be a repository; expected org/name, for example my-org/glide-openmoji")
        self._token = token
        self._api = HfApi(endpoint=self.endpoint, token=token)

    @property
    def repository(self) -> str:
        """The name by which readers know it."""
        return self.name

    def identify(self) -> Mapping[str, str]:
        """Account, endpoint and repository; an account that may not write there is refused.

        Raises:
            ReleaseError: no token, one that is not valid, or one that may not write to the namespace.
        """
        from huggingface_hub import get_token

        if self._token is None and get_token() is None:
            raise ReleaseError(f"no token for {self.endpoint}; run `hf auth login` or set HF_TOKEN to a token that may write")
        with self._calling("ask who the token belongs to"):
            account = self._api.whoami()
        namespaces = [account["name"], *(org["name"] for org in account.get("orgs", []))]
        namespace = self.name.split("/")[0]
        if namespace not in namespaces:
            raise ReleaseError(f"account {account['name']} at {self.endpoint} does not belong to {namespace!r}, only to "
                               f"{', '.join(namespaces)}; publish under one of these or ask to be added")
        if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise ReleaseError(f"the token of account {account['name']} may only read; make one that may write to {self.name}, "
                               "then run the same command again")
        return {"account": str(account["name"]), "endpoint": self.endpoint, "target": self.name}

    def read_state(self) -> TargetState:
        """What the repository shows now."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._calling(f"read {self.name}"):
            try:
                info = self._api.model_info(self.name, timeout=TIMEOUT_S)
            except RepositoryNotFoundError:
                return TargetState(exists=False)
            refs = self._api.list_repo_refs(self.name)
        branches = {ref.name: ref.target_commit for ref in refs.branches}
        main = branches.pop(MAIN, None)
        gated: Gated = info.gated or "no"
        return TargetState(True, main, self.list_files(main) if main else {}, {ref.name: ref.target_commit for ref in refs.tags}, branches,
                           bool(info.private), gated)

    def list_files(self, revision: str) -> Mapping[str, TargetFile]:
        """The files of a revision."""
        from huggingface_hub import RepoFile

        with self._calling(f"list the files of {self.name}"):
            found = [item for item in self._api.list_repo_tree(self.name, recursive=True, revision=revision) if isinstance(item, RepoFile)]
        return {file.path: TargetFile(file.size, sha256=file.lfs.sha256) if file.lfs else TargetFile(file.size, git_oid=file.blob_id)
                for file in found}

    def read_file(self, revision: str, path: str) -> bytes | None:
        """The content of a small file of a revision, or none when it has no such file."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        if path not in self.list_files(revision):
            return None
        url = hf_hub_url(self.name, path, revision=revision, endpoint=self.endpoint)
        with self._calling(f"read {path} of {self.name}"):
            response = get_session().get(url, headers=build_hf_headers(token=self._token), follow_redirects=True, timeout=TIMEOUT_S)
            hf_raise_for_status(response)
            return bytes(response.content)

    def create(self) -> None:
        """Make a private repository; its first commit holds `.gitattributes` alone."""
        with self._calling(f"create {self.name}"):
            self._api.create_repo(self.name, private=True, exist_ok=True)

    def set_access(self, *, is_private: bool | None, gated: Gated | None) -> None:
        """Change who may see and who may download; none leaves it."""
        settings: dict[str, Any] = {}
        if is_private is not None:
            settings["visibility"] = "private" if is_private else "public"
        if gated is not None:
            settings["gated"] = False if gated == "no" else gated
        with self._calling(f"change the access to {self.name}"):
            self._api.update_repo_settings(self.name, **settings)

    def begin_branch(self, branch: str) -> None:
        """Begin a branch at main."""
        with self._calling(f"begin the branch {branch} of {self.name}"):
            self._api.create_branch(self.name, branch=branch)

    def stage(self, branch: str, parent: str, edit: Edit) -> None:
        """Upload what is new and put the whole new state on a branch in one commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations = [*(CommitOperationAdd(path, edit.source / path) for path in edit.put), *map(CommitOperationDelete, edit.remove)]
        self._commit(branch, parent, operations, edit.title)

    def fetch(self, revision: str, directory: Path) -> Path:
        """Download a commit by its id into an empty cache."""
        from huggingface_hub import snapshot_download

        with self._calling(f"download {self.name} at {revision[:12]}"):
            return Path(snapshot_download(self.name, revision=revision, cache_dir=directory, endpoint=self.endpoint,
                                          token=self._token, etag_timeout=TIMEOUT_S))

    def promote(self, revision: str, parent: str | None, edit: Edit) -> None:
        """Show a commit's files on main in one commit: large files by reference, small ones by content.

        Copying a small file by reference would make the client download it and send it back unchecked, so these are sent
        from the checked directory instead.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        there = self.list_files(revision)
        large = [path for path in edit.put if there[path].sha256 is not None]
        small = [path for path in edit.put if there[path].sha256 is None]
        operations = [*(CommitOperationCopy(path, path, src_revision=revision) for path in large),
                      *(CommitOperationAdd(path, edit.source / path) for path in small), *map(CommitOperationDelete, edit.remove),
                      *(CommitOperationAdd(path, data) for path, data in edit.beside.items())]
        self._commit(MAIN, parent, operations, edit.title)

    def write(self, parent: str, files: Mapping[str, bytes]) -> None:
        """Change single small files of main in one commit."""
        from huggingface_hub import CommitOperationAdd

        self._commit(MAIN, parent, [CommitOperationAdd(path, data) for path, data in files.items()], f"Write {', '.join(files)}")

    def add_tag(self, tag: str, revision: str) -> None:
        """Give a commit a name."""
        with self._calling(f"tag {self.name} as {tag}"):
            self._api.create_tag(self.name, tag=tag, revision=revision)

    def end_branch(self, branch: str) -> None:
        """Remove a branch."""
        with self._calling(f"remove the branch {branch} of {self.name}"):
            self._api.delete_branch(self.name, branch=branch)

    def _commit(self, branch: str, parent: str | None, operations: list[Any], title: str) -> None:
        with self._calling(f"commit to {branch} of {self.name}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the client doubts that evidence tables belong beside a model
            self._api.create_commit(self.name, operations, commit_message=title, revision=branch, parent_commit=parent)

    @contextlib.contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        """Turn the client's errors into the three that a target raises."""
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, XetDownloadError
        from huggingface_hub.utils import httpx

        try:
            yield
        except OfflineModeIsEnabled as error:
            raise ReleaseError(f"cannot {what}: HF_HUB_OFFLINE is set; unset it, or publish to a directory") from error
        except LocalEntryNotFoundError as error:  # the client's name for a download that never got an answer
            raise Unsettled(f"cannot {what}: {one_line(error, 400)}") from error
        except HfHubHTTPError as error:
            raise self._describe(what, error.response.status_code, error) from error
        except (httpx.TransportError, XetDownloadError, RuntimeError) as error:  # RuntimeError: what hf_xet raises
            raise Unsettled(f"cannot {what}: {one_line(error, 400)}") from error
        except OSError as error:  # the client's name for a download whose size is not the announced one
            raise Unsettled(f"cannot {what}: {one_line(error, 400)}") from error
        except ValueError as error:  # metadata of the card that the Hub does not take, or a malformed answer
            raise ReleaseError(f"cannot {what}: {one_line(error, 400)}") from error

    def _describe(self, what: str, status: int, error: Exception) -> Exception:
        if status in CONFLICTS:
            return Moved(f"cannot {what}: {one_line(error, 400)}")
        if status in REPEATABLE:
            return Unsettled(f"cannot {what}: {one_line(error, 400)}")
        if status == 401:
            return ReleaseError(f"cannot {what}: {self.endpoint} does not accept the token, or it has expired; make a new one that may write "
                                f"to {self.name}, run `hf auth login`, then run the same command again: what is done is kept")
        if status == 403:
            return ReleaseError(f"cannot {what}: the account may not; ask for the right to write to {self.name} ({one_line(error, 400)})")
        return ReleaseError(f"cannot {what}: {one_line(error, 400)}")
