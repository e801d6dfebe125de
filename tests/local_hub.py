"""A model hub on this machine, for client libraries, with a log of requests.

It answers as huggingface.co does for repositories, their revisions, listings and files, with its
codes of errors. It was not compared with huggingface.co itself.
"""

import base64
import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

FIRST, SECOND = "a" * 40, "b" * 40

# The names of files that the hub takes apart from commits.
_LARGE = (".safetensors", ".parquet")


@dataclass
class Repository:
    """A repository of the hub.

    Attributes:
        folder: Its files at any commit missing in `folders`.
        refs: Commits of branches and tags.
        folders: The files of single commits.
        gate: The token that may read its files; None if everybody may.
        private: Whether only the hub's writer sees it.
        gone: Files that are listed and not served.
        cut: Files whose next download is cut in the middle.
    """

    folder: Path
    refs: dict[str, str] = field(default_factory=lambda: {"main": FIRST})
    folders: dict[str, Path] = field(default_factory=dict)
    gate: str | None = None
    private: bool = False
    gone: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)

    def commit(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a commit; None if there is none."""
        known = {*self.refs.values(), *self.folders}
        return revision if revision in known else self.refs.get(revision)

    def head(self, branch: str = "main") -> Path:
        """The folder of a branch's last commit."""
        return self.folders.get(self.refs[branch], self.folder)

    def files(self, commit: str) -> dict[str, Path]:
        """Paths by name; names that begin with a dot do not belong to the repository."""
        folder = self.folders.get(commit, self.folder)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(p.relative_to(folder)): p for p in found if p.name[0] != "."}


class LocalHub:
    """Serves repositories on a free port of this machine.

    Attributes:
        repositories: By kind and id, for example `models/EleutherAI/pythia-12b`.
        requests: Method and path of each request, in order.
        on_request: Called with each request, before its answer.
        status: The status that refuses every request; None while the hub works.
        writer: The token that may write; None if every request may.
        on_commit: Called before each commit; a status that it returns refuses the commit.
        ignored: Files that a .gitignore keeps out of commits.
        address: The value of `HF_ENDPOINT`.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.on_request: Callable[[str], object] = lambda _: None
        self.status: int | None = None
        self.writer: str | None = None
        self.on_commit: Callable[[], int | None] = lambda: None
        self.ignored: set[str] = set()
        self.uploads = tempfile.TemporaryDirectory()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
        self._server.hub = self
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> list[str]:
        """Stop answering; return the requests."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self.uploads.cleanup()
        return self.requests

    def folder(self) -> Path:
        """A new folder for files of a repository."""
        return Path(tempfile.mkdtemp(dir=self.uploads.name))

    def commit(
        self, repository: Repository, branch: str, changes: Iterable[Mapping[str, Any]]
    ) -> str:
        """Commit changes of files, whole or not at all, and return the commit."""
        folder = self.folder()
        shutil.copytree(repository.head(branch), folder, dirs_exist_ok=True)
        for change in changes:
            value = change["value"]
            path = folder / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            match change["key"]:
                case "file":
                    path.write_bytes(base64.b64decode(value["content"]))
                case "lfsFile":
                    path.write_bytes(Path(self.uploads.name, value["oid"]).read_bytes())
                case "deletedFile":
                    path.unlink()
        made = hashlib.sha1(str(folder).encode()).hexdigest()  # noqa: S324 - as git names it
        repository.folders[made] = folder
        repository.refs[branch] = made
        return made

    def take_requests(self) -> list[str]:
        """The requests since the last time."""
        taken, self.requests = self.requests, []
        return taken


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else a body waits until the headers are acknowledged, for 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        # A revision such as refs/pr/1 is a single part of a path.
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
        if repository is None or (repository.private and not self.may_write()):
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

    def do_POST(self) -> None:
        """What an upload asks: a repository, how to send its files, and a commit of them."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub: LocalHub = self.server.hub
        line = f"{self.command} {self.path}"
        hub.requests.append(line)
        hub.on_request(line)
        if not self.may_write():
            return self.refuse(403 if self.headers.get("Authorization") else 401, "")
        match [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]:
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
                made = Repository(hub.folder(), private=asked.get("visibility") == "private")
                hub.repositories.setdefault(f"{asked['type']}s/{name}", made)
                self.answer_json({"url": f"{hub.address}/{asked['type']}s/{name}"})
            case ["api", "validate-yaml"]:
                self.answer_json({"errors": [], "warnings": []})
            case ["api", _, _, _, "preupload", _]:
                files = [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(_LARGE) else "regular",
                        "shouldIgnore": one["path"] in hub.ignored,
                    }
                    for one in json.loads(body)["files"]
                ]
                self.answer_json({"files": files})
            case ["datasets", _, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    one | {"actions": {"upload": {"href": f"{hub.address}/lfs/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                self.answer_json({"transfer": "basic", "objects": objects})
            case ["api", kind, owner, name, "commit", branch]:
                header, *changes = map(json.loads, body.splitlines())
                repository = hub.repositories[f"{kind}/{owner}/{name}"]
                if status := hub.on_commit():
                    return self.refuse(status, "", {"Retry-After": "0"})
                if header["value"].get("parentCommit") not in (None, repository.refs[branch]):
                    return self.refuse(412, "")
                made = hub.commit(repository, branch, changes)
                url = f"{hub.address}/{kind}/{owner}/{name}/commit/{made}"
                self.answer_json({"success": True, "commitOid": made, "commitUrl": url})
            case _:
                self.refuse(404, "EntryNotFound")
        return None

    def do_PUT(self) -> None:
        """The content of a large file."""
        hub: LocalHub = self.server.hub
        hub.requests.append(f"{self.command} {self.path}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        Path(hub.uploads.name, self.path.rpartition("/")[2]).write_bytes(content)
        self.answer(200, b"", {})

    def may_write(self) -> bool:
        writer = self.server.hub.writer
        return writer is None or self.headers.get("Authorization") == f"Bearer {writer}"

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

    def refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, **(headers or {})})

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
        """Do nothing: `do_GET` records the request."""


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()  # noqa: S324 - as git names it


def _listing(files: Mapping[str, Path], folder: str, recursive: bool) -> list[dict[str, object]]:
    """The content of a folder, as the hub lists it."""
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
