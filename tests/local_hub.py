"""A model hub on this machine: what client libraries ask of the real one, and a log of requests.

It answers as huggingface.co does for repositories, their revisions, listings and files, with its
codes of errors. Nothing here was compared with huggingface.co itself.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

FIRST, SECOND = "a" * 40, "b" * 40


@dataclass
class Repository:
    """A repository of the hub.

    Attributes:
        folder: Its files at any commit that `folders` does not have.
        refs: Commits of branches and tags.
        folders: The files of single commits.
        gate: The token that may read its files; None if everybody may.
        gone: Files that are listed and not served.
        cut: Files whose next download is cut in the middle.
    """

    folder: Path
    refs: dict[str, str] = field(default_factory=lambda: {"main": FIRST})
    folders: dict[str, Path] = field(default_factory=dict)
    gate: str | None = None
    gone: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)

    def commit(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a commit; None if there is none."""
        known = {*self.refs.values(), *self.folders}
        return revision if revision in known else self.refs.get(revision)

    def files(self, commit: str) -> dict[str, Path]:
        """Paths by name; what begins with a dot is not of the repository."""
        folder = self.folders.get(commit, self.folder)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(p.relative_to(folder)): p for p in found if p.name[0] != "."}


class LocalHub:
    """Serves repositories on a free port of this machine.

    Attributes:
        repositories: By kind and id, for example `models/EleutherAI/pythia-12b`.
        requests: Method and path of each request, in order.
        on_request: Called with each, before it is answered.
        status: What every request is refused with; None while the hub works.
        address: What `HF_ENDPOINT` is to be.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.on_request: Callable[[str], object] = lambda _: None
        self.status: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
        self._server.hub = self
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> list[str]:
        """Answer nothing any more; returns the requests."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        return self.requests

    def take_requests(self) -> list[str]:
        """The requests since the last time."""
        taken, self.requests = self.requests, []
        return taken


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        # A revision such as refs/pr/1 is one part of a path.
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        hub: LocalHub = self.server.hub
        line = f"{self.command} /{'/'.join(parts)}"
        hub.requests.append(line)
        hub.on_request(line)
        if hub.status is not None:
            return self.refuse(hub.status, "")
        match parts:
            case ["api", ("models" | "datasets") as kind, owner, name, *rest]:
                pass
            case ["datasets" as kind, owner, name, "resolve", *rest]:
                rest = ["resolve", *rest]
            case [owner, name, "resolve", *rest]:
                kind, rest = "models", ["resolve", *rest]
            case _:
                return self.refuse(404, "EntryNotFound")
        repository = hub.repositories.get(f"{kind}/{owner}/{name}")
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        asked, revision, *file = rest or ["revision", "main"]
        commit = repository.commit(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        if asked == "revision":
            names = [{"rfilename": name} for name in repository.files(commit)]
            self.answer_json({"id": f"{owner}/{name}", "sha": commit, "siblings": names})
        elif asked == "tree":
            recursive = "recursive=true" in self.path.lower()
            self.answer_json(_listing(repository.files(commit), "/".join(file), recursive))
        else:
            self.answer_file(repository, commit, "/".join(file))
        return None

    do_HEAD = do_GET  # noqa: N815 - the handler's name

    def answer_file(self, repository: Repository, commit: str, name: str) -> None:
        if repository.gate is not None:
            given = self.headers.get("Authorization")
            if given != f"Bearer {repository.gate}":
                return self.refuse(403 if given else 401, "GatedRepo")
        path = repository.files(commit).get(name)
        if path is None or name in repository.gone:
            return self.refuse(404, "EntryNotFound")
        content = path.read_bytes()
        headers = {"ETag": f'"{_oid(path)}"', "X-Repo-Commit": commit}
        status, piece = 200, content
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            status, piece = 206, content[int(first) : int(last or len(content)) + 1]
            end = int(first) + len(piece) - 1
            headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        cut = self.command == "GET" and name in repository.cut
        self.answer(status, piece, headers, sent=len(piece) // 2 if cut else len(piece))
        if cut:
            repository.cut.discard(name)
            self.close_connection = True
        return None

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code})

    def answer(
        self, status: int, body: bytes, headers: Mapping[str, str], sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def log_message(self, *_: object) -> None:
        """Nothing: `do_GET` notes the request."""


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()  # noqa: S324 - as git names it


def _listing(files: Mapping[str, Path], folder: str, recursive: bool) -> list[dict[str, object]]:
    """What is in a folder, as the hub lists it."""
    prefix = f"{folder}/" if folder else ""
    below = [name for name in files if name.startswith(prefix)]
    if not recursive:
        below = sorted({prefix + name.removeprefix(prefix).split("/")[0] for name in below})
    return [
        {"type": "file", "path": n, "size": files[n].stat().st_size, "oid": _oid(files[n])}
        if n in files
        else {"type": "directory", "path": n, "size": 0, "oid": "0" * 40}
        for n in below
    ]
