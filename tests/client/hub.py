"""A hub on this machine with one dataset: what the client libraries ask of the real one.

    python hub.py FOLDER

serves the files of FOLDER as the dataset `allenai/c4` and prints its address, then each request.
FOLDER/.commit names the commit that is the newest; files are the same at each. A file whose name is
in FOLDER/.gone is not served, and one whose name is in FOLDER/.cut is cut in the middle, once.
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLDER = Path(sys.argv[1])


def files():
    return sorted(
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*")
        if path.is_file() and path.name[0] != "."
    )


def named_in(note, name):
    """Whether a file is the one that a note in FOLDER names."""
    path = FOLDER / note
    return path.exists() and path.read_text() == name


def entry(name):
    content = (FOLDER / name).read_bytes()
    return {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),  # noqa: S324 - as git names it
    }


def children(folder):
    """What is directly in a folder, as the hub lists it."""
    prefix = f"{folder}/" if folder else ""
    below = [name for name in files() if name.startswith(prefix)]
    names = sorted({prefix + name.removeprefix(prefix).split("/")[0] for name in below})
    return [
        entry(name)
        if (FOLDER / name).is_file()
        else {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
        for name in names
    ]


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        print(self.command, path, flush=True)
        match path.split("/")[1:]:
            case ["api", "datasets", "allenai", "c4"]:
                self.answer_info((FOLDER / ".commit").read_text())
            case ["api", "datasets", "allenai", "c4", "revision", commit]:
                self.answer_info(commit)
            case ["api", "datasets", "allenai", "c4", "tree", _, *folder]:
                self.answer_json(children("/".join(folder)))
            case ["datasets", "allenai", "c4", "resolve", commit, *name]:
                self.answer_file("/".join(name), commit)
            case _:
                self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET  # noqa: N815 - the handler's name

    def answer_info(self, commit):
        siblings = [{"rfilename": name} for name in files()]
        self.answer_json({"id": "allenai/c4", "sha": commit, "siblings": siblings})

    def answer_file(self, name, commit):
        if name not in files() or named_in(".gone", name):
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        content = (FOLDER / name).read_bytes()
        headers = {"ETag": f'"{entry(name)["oid"]}"', "X-Repo-Commit": commit}
        asked = self.headers.get("Range")
        if asked is None:
            self.answer(200, content, headers)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        piece = content[int(first) : int(last or len(content)) + 1]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(piece) - 1}/{len(content)}"
        cut = self.command == "GET" and named_in(".cut", name)
        self.answer(206, piece, headers, sent=len(piece) // 2 if cut else len(piece))
        if cut:
            (FOLDER / ".cut").unlink()
            self.close_connection = True

    def answer_json(self, value):
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status, body, headers, sent=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])

    def log_message(self, *_):
        """Nothing: `do_GET` prints the request."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
