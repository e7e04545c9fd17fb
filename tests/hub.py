"""A hub of models on 127.0.0.1, as far as huggingface_hub asks for one to push a folder and to fetch it again."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_a_test"


class Hub(BaseHTTPRequestHandler):
    """Its state is the class's: one hub at a time."""

    protocol_version = "HTTP/1.1"
    repos: ClassVar[dict[str, dict[str, bytes]]] = {}  # by USER/NAME: content by path
    private: ClassVar[dict[str, bool]] = {}
    strange: ClassVar[dict[str, bytes]] = {}  # files that every answer lists besides

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path).path.strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and parts[1] != "validate-yaml":
            self.answer({"error": "Invalid username or password."}, 401)
        elif parts[1:] == ["repos", "create"]:
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.repos.setdefault(name, {})
            self.private[name] = asked.get("private", asked.get("visibility") == "private")
            self.answer({"url": f"{self.root}/{name}", "name": name, "id": name})
        elif parts[1] == "validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif parts[4] == "commit":
            for line in body.splitlines():
                record = json.loads(line)
                if record["key"] == "file":
                    self.repo(parts)[record["value"]["path"]] = base64.b64decode(record["value"]["content"])
            commit = commit_of(self.repo(parts))
            self.answer(
                {
                    "commitUrl": f"{self.root}/{'/'.join(parts[2:4])}/commit/{commit}",
                    "commitOid": commit,
                    "success": True,
                }
            )
        elif parts[4] == "paths-info":
            paths = json.loads(body)["paths"]
            self.answer([entry(path, content) for path, content in self.listed(parts).items() if path in paths])
        else:
            self.answer({"error": f"no {self.path}"}, 404)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        if parts[0] != "api":
            self.file(parts)
        elif "/".join(parts[2:4]) not in self.repos:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif parts[4:5] == ["tree"]:
            assert "recursive" in parse_qs(address.query)
            self.answer([entry(path, content) for path, content in self.listed(parts).items()])
        else:
            name, files = "/".join(parts[2:4]), self.listed(parts)
            siblings = [
                {"rfilename": path, "size": len(content), "blobId": etag(content)} for path, content in files.items()
            ]
            self.answer(
                {
                    "id": name,
                    "modelId": name,
                    "sha": commit_of(files),
                    "private": True,
                    "tags": [],
                    "siblings": siblings,
                }
            )

    do_HEAD = do_GET

    def file(self, parts: list[str]) -> None:
        """USER/NAME/resolve/REVISION/PATH."""
        content = {**self.repos["/".join(parts[:2])], **self.strange}["/".join(parts[4:])]
        files = {**self.repos["/".join(parts[:2])], **self.strange}
        self.send(content, 200, {"X-Repo-Commit": commit_of(files), "ETag": f'"{etag(content)}"'})

    def repo(self, parts: list[str]) -> dict[str, bytes]:
        return self.repos["/".join(parts[2:4])]

    def listed(self, parts: list[str]) -> dict[str, bytes]:
        return {**self.repo(parts), **self.strange}

    @property
    def root(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the screen."""


def entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": etag(content)}


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def commit_of(files: dict[str, bytes]) -> str:
    return etag(json.dumps({path: etag(content) for path, content in sorted(files.items())}).encode())


@contextmanager
def hub() -> Iterator[str]:
    """The address of a hub that holds nothing."""
    for held in (Hub.repos, Hub.private, Hub.strange):
        held.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
