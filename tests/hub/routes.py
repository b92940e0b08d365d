"""The routes of the Hugging Face Hub that `huggingface_hub` 2.x calls to publish and to load a model.

Facts come from reading what the client sends and reads (2.4.0), not from the server. Errors carry `X-Error-Code`, as
the client needs it over plain http.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import yaml

from glideslope.store.strict_yaml import load_yaml

from .state import LFS_SUFFIXES, MAIN, Account, Commit, Refusal, Repository, StoredFile, apply_changes

if TYPE_CHECKING:
    from .loopback import LoopbackHub

TOKEN_LIFE_S = 3600
COMMIT_TIME = "2020-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Request:
    """What a client asked, with the body read.

    Attributes:
        method, path: of the request line, the path without its query and still quoted.
        query: of the request line.
        headers: names in lower case.
        body: the body; empty where a route stores it as it comes.
        account: who asks; none without a token.
        base: scheme, host and port that the client used.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    account: Account | None
    base: str

    def json(self) -> Any:
        """The body as JSON; an empty body is an empty object."""
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Reply:
    """What the hub answers.

    Attributes:
        status: the HTTP status.
        data: the body, or the file that holds it.
        headers: further headers.
        span: first byte and the byte after the last one of `data` to send; none: all.
    """

    status: int = 200
    data: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    span: tuple[int, int] | None = None


def reply_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer with a JSON body."""
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def refuse(error: Refusal) -> Reply:
    """The answer to a refused request."""
    message = str(error)
    return reply_json({"error": message}, error.status, {"X-Error-Message": message} | ({"X-Error-Code": error.code} if error.code else {}))


def answer(hub: "LoopbackHub", request: Request) -> Reply:
    """Carry out a request.

    Raises:
        Refusal: it is not allowed, or there is no such route, repository, revision or file.
    """
    for (method, pattern), route in ROUTES.items():
        found = re.fullmatch(pattern, request.path)
        if found and request.method in method.split("|"):
            return route(hub, request, *map(unquote, found.groups(default="")))
    raise Refusal(404, f"no such route: {request.method} {request.path}")


def readable(hub: "LoopbackHub", request: Request, name: str) -> Repository:
    """A repository that the account may see; to others a private one does not exist."""
    repository = hub.repositories.get(name)
    is_member = request.account is not None and repository is not None and request.account.is_member(repository.namespace)
    if repository is None or (repository.is_private and not is_member):
        raise Refusal(404 if request.account else 401, "Repository not found", "RepoNotFound")
    return repository


def downloadable(hub: "LoopbackHub", request: Request, name: str) -> Repository:
    """A repository whose files the account may read."""
    repository, account = readable(hub, request, name), request.account
    is_granted = account is not None and (account.is_member(repository.namespace) or account.name in repository.granted)
    if repository.gated and not is_granted:
        raise Refusal(403 if account else 401, f"Access to model {name} is restricted; ask for access on its page", "GatedRepo")
    return repository


def writable(hub: "LoopbackHub", request: Request, name: str) -> Repository:
    """A repository that the account may change."""
    repository = readable(hub, request, name)
    demand_write(request, repository.namespace)
    return repository


def demand_write(request: Request, namespace: str) -> None:
    """Refuse who may not change repositories of a namespace."""
    if request.account is None:
        raise Refusal(401, "Invalid username or password.")
    if not request.account.can_write or not request.account.is_member(namespace):
        raise Refusal(403, f"You don't have the rights to change a model under the namespace {namespace!r}")


def whoami(hub: "LoopbackHub", request: Request) -> Reply:
    """Who the token belongs to, and what it may do."""
    account = request.account
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    role = "write" if account.can_write else "read"
    return reply_json({"type": "user", "name": account.name, "orgs": [{"type": "org", "name": name, "roleInOrg": role}
                                                                     for name in account.organizations],
                       "auth": {"type": "access_token", "accessToken": {"displayName": "loopback", "role": role}}})


def validate_card(hub: "LoopbackHub", request: Request) -> Reply:
    """Whether a card's metadata can be read."""
    content = request.json()["content"]
    front = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    errors = []
    try:
        if front and not isinstance(load_yaml(front[1]), dict):
            errors = [{"message": "metadata must be a mapping"}]
    except yaml.YAMLError as error:
        errors = [{"message": f"metadata is not YAML: {error}"}]
    return reply_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def create_repository(hub: "LoopbackHub", request: Request) -> Reply:
    """Make a repository whose main branch holds one commit with `.gitattributes`."""
    asked = request.json()
    namespace = asked.get("organization") or (request.account.name if request.account else "")
    demand_write(request, namespace)
    name = f"{namespace}/{asked['name']}"
    if name in hub.repositories:
        return reply_json({"url": f"{request.base}/{name}", "error": "You already created this model repo"}, 409)
    hub.create_repository(name, is_private=asked.get("visibility") == "private" or bool(asked.get("private")))
    return reply_json({"url": f"{request.base}/{name}", "name": name, "id": name})


def show_info(hub: "LoopbackHub", request: Request, name: str, revision: str) -> Reply:
    """A repository at a revision: its commit and the names of its files, with `blobs=true` their sizes and digests too."""
    repository = readable(hub, request, name)
    commit, with_blobs = repository.find(revision or MAIN), "blobs" in parse_qs(request.query)
    return reply_json({"_id": name, "id": name, "modelId": name, "sha": commit.oid, "private": repository.is_private,
                       "gated": repository.gated, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
                       "siblings": [sibling(path, file, with_blobs=with_blobs) for path, file in sorted(commit.files.items())]})


def sibling(path: str, file: StoredFile, *, with_blobs: bool) -> dict[str, Any]:
    """A file as a repository's description names it."""
    described: dict[str, Any] = {"rfilename": path}
    if with_blobs:
        described |= {"size": file.size_bytes, "blobId": file.oid}
        if file.sha256 is not None:
            described["lfs"] = {"sha256": file.sha256, "size": file.size_bytes, "pointerSize": 134}
    return described


def list_tree(hub: "LoopbackHub", request: Request, name: str, revision: str, folder: str) -> Reply:
    """Every file of a revision, or of a folder in it."""
    files = readable(hub, request, name).find(revision).files
    return reply_json([entry(hub, path, file) for path, file in sorted(files.items()) if path.startswith(folder.lstrip("/"))])


def describe_paths(hub: "LoopbackHub", request: Request, name: str, revision: str) -> Reply:
    """The files of a revision that were asked for and exist."""
    files = readable(hub, request, name).find(revision).files
    paths = request.json()["paths"] if request.body.startswith(b"{") else parse_qs(request.body.decode())["paths"]
    return reply_json([entry(hub, path, files[path]) for path in paths if path in files])


def entry(hub: "LoopbackHub", path: str, file: StoredFile) -> dict[str, Any]:
    """A file as listings describe it."""
    described: dict[str, Any] = {"type": "file", "path": path, "size": file.size_bytes, "oid": file.oid}
    if file.sha256 is not None:
        described["lfs"] = {"oid": file.sha256, "size": file.size_bytes, "pointerSize": 134}
        found = hub.objects.find_xet(file.sha256)
        if found is not None:
            described["xetHash"] = found[0]
    return described


def list_commits(hub: "LoopbackHub", request: Request, name: str, revision: str) -> Reply:
    """The history of a revision, newest first."""
    commits = readable(hub, request, name).history(revision)
    return reply_json([{"id": commit.oid, "title": commit.title, "message": "", "date": COMMIT_TIME, "authors": []} for commit in commits])


def choose_upload_modes(hub: "LoopbackHub", request: Request, name: str, revision: str) -> Reply:
    """For each file to be uploaded: in Git or as a large object, and the content that the revision has there now."""
    present = writable(hub, request, name).find(revision).files

    def mode(path: str) -> dict[str, Any]:
        file = present.get(path)
        return {"path": path, "uploadMode": "lfs" if path.endswith(LFS_SUFFIXES) else "regular", "shouldIgnore": False,
                "oid": None if file is None else file.sha256 or file.oid}

    return reply_json({"files": [mode(asked["path"]) for asked in request.json()["files"]]})


def plan_uploads(hub: "LoopbackHub", request: Request, name: str) -> Reply:
    """The LFS batch route: where each object goes that is not there yet."""
    writable(hub, request, name)
    return reply_json({"transfer": "basic", "objects": [plan_upload(hub, request.base, asked) for asked in request.json()["objects"]]})


def plan_upload(hub: "LoopbackHub", base: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Where an object goes: in one piece, or in parts when it is larger than the hub's part size."""
    sha256, size_bytes = str(asked["oid"]), int(asked["size"])
    planned: dict[str, Any] = {"oid": sha256, "size": size_bytes}
    if hub.objects.path(sha256).is_file():
        return planned
    upload: dict[str, Any] = {"href": f"{base}/_lfs/{sha256}"}
    if hub.part_bytes is not None and size_bytes > hub.part_bytes:
        parts = {str(number + 1): f"{base}/_part/{sha256}/{number + 1}" for number in range(-(-size_bytes // hub.part_bytes))}
        upload = {"href": f"{base}/_complete/{sha256}", "header": {"chunk_size": str(hub.part_bytes), **parts}}
    return planned | {"actions": {"upload": upload, "verify": {"href": f"{base}/_verify/{sha256}"}}}


def complete_upload(hub: "LoopbackHub", request: Request, sha256: str) -> Reply:
    """Join the parts of an object."""
    hub.objects.join(sha256)
    return reply_json({})


def verify_upload(hub: "LoopbackHub", request: Request, sha256: str) -> Reply:
    """Whether an object has arrived."""
    if not hub.objects.path(sha256).is_file():
        raise Refusal(404, "no such object")
    return reply_json({})


def give_xet_token(hub: "LoopbackHub", request: Request, name: str, verb: str, revision: str) -> Reply:
    """Where `hf_xet` writes and reads: a directory of this machine instead of a server."""
    repository = writable(hub, request, name) if verb == "write" else downloadable(hub, request, name)
    repository.find(revision)
    if not hub.has_xet:
        raise Refusal(404, "this hub has no Xet store")
    url, expires = f"local://{hub.objects.xet_dir}", int(time.time()) + TOKEN_LIFE_S
    return reply_json({"casUrl": url, "accessToken": "loopback", "exp": expires},
                      headers={"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "loopback", "X-Xet-Token-Expiration": str(expires)})


def commit(hub: "LoopbackHub", request: Request, name: str, branch: str) -> Reply:
    """Make a commit, whole or not at all."""
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    made = apply_changes(writable(hub, request, name), branch, lines, hub.objects)
    return reply_json({"success": True, "commitUrl": f"{request.base}/{name}/commit/{made.oid}", "commitOid": made.oid, "hookOutput": "",
                       "pullRequestUrl": None})


def list_refs(hub: "LoopbackHub", request: Request, name: str) -> Reply:
    """Branches and tags."""
    repository = readable(hub, request, name)

    def refs(kind: str, found: Mapping[str, str]) -> Sequence[dict[str, str]]:
        return [{"name": ref, "ref": f"refs/{kind}/{ref}", "targetCommit": oid} for ref, oid in found.items()]

    return reply_json({"branches": refs("heads", repository.branches), "tags": refs("tags", repository.tags), "converts": []})


def create_tag(hub: "LoopbackHub", request: Request, name: str, revision: str) -> Reply:
    """Give a revision a name that stays."""
    return _create_ref(writable(hub, request, name), "tags", str(request.json()["tag"]), revision)


def create_branch(hub: "LoopbackHub", request: Request, name: str, branch: str) -> Reply:
    """Begin a branch at a revision."""
    return _create_ref(writable(hub, request, name), "branches", branch, str(request.json().get("startingPoint") or MAIN))


def _create_ref(repository: Repository, kind: str, ref: str, revision: str) -> Reply:
    refs: dict[str, str] = getattr(repository, kind)
    found: Commit = repository.find(revision)
    if ref in refs:
        return reply_json({"error": f"Reference already exists: {ref}"}, 409)
    refs[ref] = found.oid
    return reply_json({})


def delete_ref(hub: "LoopbackHub", request: Request, name: str, kind: str, ref: str) -> Reply:
    """Remove a branch or tag; main stays."""
    repository = writable(hub, request, name)
    refs = repository.tags if kind == "tag" else repository.branches
    if ref not in refs:
        raise Refusal(404, f"Reference does not exist: {ref}", "RevisionNotFound")
    if (kind, ref) == ("branch", MAIN):
        raise Refusal(403, "The main branch cannot be deleted")
    del refs[ref]
    return reply_json({})


def change_settings(hub: "LoopbackHub", request: Request, name: str) -> Reply:
    """Change who may see and download."""
    repository, asked = writable(hub, request, name), request.json()
    repository.gated = asked.get("gated", repository.gated)
    if "visibility" in asked:
        repository.is_private = asked["visibility"] == "private"
    return reply_json({"gated": repository.gated, "private": repository.is_private})


def check_access(hub: "LoopbackHub", request: Request, name: str) -> Reply:
    """Whether the account may download."""
    downloadable(hub, request, name)
    return reply_json({})


def download(hub: "LoopbackHub", request: Request, name: str, revision: str, path: str) -> Reply:
    """A file of a revision, whole or a range of its bytes."""
    found = downloadable(hub, request, name).find(revision)
    headers = {"X-Repo-Commit": found.oid, "Accept-Ranges": "bytes"}
    file = found.files.get(path)
    if file is None:
        return reply_json({"error": "Entry not found"}, 404, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
    headers |= {"ETag": f'"{file.sha256 or file.oid}"', "Content-Type": "application/octet-stream"}
    data: bytes | Path = file.content if file.content is not None else hub.objects.path(str(file.sha256))
    if file.sha256 is not None:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size_bytes)}
        xet = hub.objects.find_xet(file.sha256)
        if xet is not None:
            link = f"<{request.base}/api/models/{name}/xet-read-token/{found.oid}>"
            headers |= {"X-Xet-Hash": xet[0], "Link": f'{link}; rel="xet-auth"'}
    if request.method == "HEAD":
        return Reply(200, b"", {**headers, "Content-Length": str(file.size_bytes)})
    if isinstance(data, Path) and not data.is_file():
        raise Refusal(404, "the object is in the Xet store only; ask for a read token")
    asked = re.match(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if asked is None:
        return Reply(200, data, headers)
    start, stop = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else file.size_bytes, file.size_bytes)
    if start >= file.size_bytes:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{file.size_bytes}"})
    return Reply(206, data, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{file.size_bytes}"}, (start, stop))


def list_harnesses(hub: "LoopbackHub", request: Request) -> Reply:
    """What the client asks once a day for its own statistics: nothing is registered."""
    return reply_json({"standardEnvVars": [], "harnesses": {}})


MODEL = r"/api/models/([^/]+/[^/]+)"
ROUTES: Mapping[tuple[str, str], Callable[..., Reply]] = MappingProxyType({
    ("GET", "/api/agent-harnesses"): list_harnesses,
    ("GET", "/api/whoami-v2"): whoami,
    ("POST", "/api/validate-yaml"): validate_card,
    ("POST", "/api/repos/create"): create_repository,
    ("GET", MODEL + r"(?:/revision/([^/]+))?"): show_info,
    ("GET", MODEL + r"/tree/([^/]+)(/.+)?"): list_tree,
    ("POST", MODEL + r"/paths-info/([^/]+)"): describe_paths,
    ("GET", MODEL + r"/commits/([^/]+)"): list_commits,
    ("POST", MODEL + r"/preupload/([^/]+)"): choose_upload_modes,
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch"): plan_uploads,
    ("POST", r"/_complete/([0-9a-f]{64})"): complete_upload,
    ("POST", r"/_verify/([0-9a-f]{64})"): verify_upload,
    ("GET", MODEL + r"/xet-(read|write)-token/([^/]+)"): give_xet_token,
    ("POST", MODEL + r"/commit/([^/]+)"): commit,
    ("GET", MODEL + r"/refs"): list_refs,
    ("POST", MODEL + r"/tag/([^/]+)"): create_tag,
    ("POST", MODEL + r"/branch/([^/]+)"): create_branch,
    ("DELETE", MODEL + r"/(tag|branch)/([^/]+)"): delete_ref,
    ("PUT", MODEL + r"/settings"): change_settings,
    ("GET", MODEL + r"/auth-check"): check_access,
    ("GET|HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)"): download})
