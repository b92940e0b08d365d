"""A Hugging Face Hub on this machine's loopback address, for rehearsals and tests.

It serves what the client `huggingface_hub` asks for when a model is published or loaded, to 127.0.0.1 only, and lets
requests fail as they do on real networks. It is no Hub: nothing it holds outlives it unless a directory is given for
the large objects, and nobody but its own accounts is known to it.
"""

import hashlib
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from .faults import Fault
from .routes import Reply, Request, answer, refuse, reply_json
from .state import GIT_ATTRIBUTES, MAIN, PIECE_BYTES, Account, ObjectStore, Refusal, Repository, StoredFile, read_pieces

OWNER = Account("tester", "hf_loopback_tester")
INVALID_TOKEN = "Invalid credentials in Authorization header"
DIRECT_UPLOAD = re.compile(r"/_(lfs|part)/([0-9a-f]{64})(?:/(\d+))?")
Watcher = Callable[[Literal["before", "after"], str, str], bool]


@dataclass(frozen=True)
class Served:
    """A request that was answered: method, path without query, name of the account, status, kind of the fault that befell it."""

    method: str
    path: str
    account: str | None
    status: int
    fault: str | None = None


class LoopbackHub:
    """A hub with accounts, repositories and faults; a context manager.

    Attributes:
        endpoint: its address, `http://127.0.0.1:<port>`; give it as `endpoint=` to every call of the client.
        accounts: who has a token.
        repositories: name -> repository.
        faults: what goes wrong from now on; change it with `inject` and `clear_faults`.
        log: every request that was answered, in order.
        met: the faults that really befell a request, in order.
    """

    def __init__(self, directory: Path | None = None, *, accounts: Sequence[Account] = (OWNER,), has_xet: bool = False,
                 part_bytes: int | None = None, watcher: Watcher | None = None) -> None:
        """Bind a free port.

        Args:
            directory: where large objects lie; none: a temporary directory, removed at the end.
            accounts: who has a token.
            has_xet: whether large files go through Xet (`hf_xet` with a local store).
            part_bytes: objects larger than this are uploaded in parts (LFS multipart).
            watcher: called before and after each request is carried out, with the phase, the method and the path; where it returns
                true, the connection is dropped then.
        """
        self._temporary = tempfile.TemporaryDirectory(prefix="glideslope-hub-") if directory is None else None
        self.objects = ObjectStore(directory or Path(self._temporary.name if self._temporary else ""))
        self.accounts, self.has_xet, self.part_bytes, self.watcher = list(accounts), has_xet, part_bytes, watcher
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.log: list[Served] = []
        self.met: list[Fault] = []
        self.lock = threading.RLock()
        self._num_matches: dict[Fault, int] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "LoopbackHub":
        """Begin to answer."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop answering, and remove what was temporary."""
        self._server.shutdown()
        self._server.server_close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def inject(self, *faults: Fault) -> None:
        """Let things go wrong from now on; matching requests are counted from now."""
        with self.lock:
            for fault in faults:
                self._num_matches[fault] = 0
                self.faults.append(fault)

    def clear_faults(self) -> None:
        """Let everything go right again."""
        with self.lock:
            self.faults.clear()

    def find_fault(self, method: str, path: str) -> Fault | None:
        """Count a request for every fault it matches, and return the first that befalls it."""
        with self.lock:
            found = None
            for fault in self.faults:
                if fault.matches(method, path):
                    self._num_matches[fault] += 1
                    if found is None and fault.befalls(self._num_matches[fault]):
                        found = fault
            if found is not None:
                self.met.append(found)
            return found

    def create_repository(self, name: str, *, is_private: bool = False) -> Repository:
        """Make a repository with the first commit that the Hub makes."""
        repository = self.repositories[name] = Repository(name, is_private)
        repository.add_commit(MAIN, {".gitattributes": StoredFile.of_content(GIT_ATTRIBUTES)}, "initial commit")
        return repository

    def read_file(self, name: str, path: str, revision: str = MAIN) -> bytes:
        """The content of a file, to look at what was published (not for files in the Xet store)."""
        file = self.repositories[name].find(revision).files[path]
        return file.content if file.content is not None else self.objects.path(str(file.sha256)).read_bytes()

    def find_account(self, authorization: str | None) -> Account | None:
        """Who a request comes from; none without a token.

        Raises:
            Refusal: nobody's token, or one that has expired.
        """
        if authorization is None:
            return None
        account = next((account for account in self.accounts if authorization == f"Bearer {account.token}"), None)
        if account is None or account.is_expired:
            raise Refusal(401, INVALID_TOKEN)
        return account


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: LoopbackHub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed leaves a broken connection, which is no error of the hub's; anything else is a defect and is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Dropped(Exception):
    """The connection is to be closed without an answer."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # with it, every answer in two writes waits 40 ms for the client's acknowledgement
    wbufsize = PIECE_BYTES
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: `LoopbackHub.log` has it all."""

    def do_any(self) -> None:
        """Answer a request, or let it fail."""
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        fault = hub.find_fault(self.command, path)
        kind = fault.kind if fault else None
        account: Account | None = None
        try:
            if fault and fault.kind == "slow":
                time.sleep(fault.delay_s)
            if hub.watcher and hub.watcher("before", self.command, path):
                raise _Dropped
            reply, account = self._reply(hub, kind)
            if kind == "lost_response" or (hub.watcher and hub.watcher("after", self.command, path)):
                raise _Dropped
            if kind == "applied_500":
                reply = refuse(Refusal(500, "Internal Server Error"))
            self._send(reply, kind)
            hub.log.append(Served(self.command, path, account.name if account else None, reply.status, kind))
        except _Dropped:
            hub.log.append(Served(self.command, path, account.name if account else None, 0, kind))
            self._drop()

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_any

    def _reply(self, hub: LoopbackHub, kind: str | None) -> tuple[Reply, Account | None]:
        """Carry out a request under a fault; refusals become answers."""
        split = urlsplit(self.path)
        direct = DIRECT_UPLOAD.fullmatch(split.path) if self.command == "PUT" else None
        pieces = self._pieces(cut=kind == "half_upload")
        account: Account | None = None
        try:
            if kind in ("412", "429", "500", "503"):
                for _ in pieces:
                    pass
                raise Refusal(int(kind), f"the request was refused with {kind}")
            if direct:
                return self._store(hub, pieces, direct), None
            body = b"".join(pieces)
            account = None if kind == "expired_token" else hub.find_account(self.headers.get("Authorization"))
            if kind == "expired_token":
                raise Refusal(401, INVALID_TOKEN)
            base = "http://" + (self.headers.get("Host") or urlsplit(hub.endpoint).netloc)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, split.path, split.query, headers, body, account, base)
            with hub.lock:
                if kind == "moved":
                    move_branch(hub, request.path)
                if kind == "corrupt" and "/xet-read-token/" in request.path:
                    hub.objects.damage_xet()
                return answer(hub, request), account
        except Refusal as refusal:
            return refuse(refusal), account

    def _store(self, hub: LoopbackHub, pieces: Iterator[bytes], direct: re.Match[str]) -> Reply:
        """Store an object, or a part of one, as it comes; such addresses carry their own permission."""
        if direct[1] == "lfs":
            hub.objects.add(direct[2], pieces)
            return reply_json({})
        digest = hub.objects.receive(pieces, hub.objects.parts_dir / direct[2] / direct[3])
        return reply_json({}, headers={"ETag": f'"{digest}"'})

    def _pieces(self, *, cut: bool = False) -> Iterator[bytes]:
        """The request's body a piece at a time; a cut one ends half-way with a dropped connection."""
        left = int(self.headers.get("Content-Length") or 0)
        stop = left // 2 if cut else 0
        while left > stop:
            piece = self.rfile.read(min(PIECE_BYTES, left - stop))
            if not piece:
                raise _Dropped
            left -= len(piece)
            yield piece
        if cut:
            raise _Dropped
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size_bytes := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size_bytes)
                self.rfile.readline()
            self.rfile.readline()

    def _send(self, reply: Reply, kind: str | None) -> None:
        """Send an answer: whole, cut, or with one byte changed."""
        if isinstance(reply.data, Path):
            total = reply.data.stat().st_size
            start, stop = reply.span or (0, total)
            pieces = read_pieces(reply.data, start, stop)
        else:
            start, stop = reply.span or (0, len(reply.data))
            pieces = iter((reply.data[start:stop],))
        size_bytes = stop - start
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(size_bytes), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self._send_pieces(pieces, size_bytes // 2 if kind in ("cut", "corrupt") else None, is_cut=kind == "cut")

    def _send_pieces(self, pieces: Iterator[bytes], middle: int | None, *, is_cut: bool) -> None:
        sent = 0
        for whole in pieces:
            piece = whole
            if middle is not None and sent <= middle < sent + len(piece):
                inner = middle - sent
                if is_cut:
                    self.wfile.write(piece[:inner])
                    raise _Dropped
                piece = piece[:inner] + bytes([piece[inner] ^ 0xFF]) + piece[inner + 1:]
            self.wfile.write(piece)
            sent += len(piece)

    def _drop(self) -> None:
        """Close the connection now."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def move_branch(hub: LoopbackHub, path: str) -> None:
    """Somebody else commits to the branch that a commit request is about to change."""
    found = re.search(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", path)
    if found is None:
        raise Refusal(500, f"fault 'moved' befell {path}, which is no commit")
    repository, branch = hub.repositories[found[1]], unquote(found[2])
    note = f"edited by somebody else, {hashlib.sha256(branch.encode()).hexdigest()[:8]}\n".encode()
    repository.add_commit(branch, {**repository.find(branch).files, "NOTES.md": StoredFile.of_content(note)}, "somebody else's commit")
