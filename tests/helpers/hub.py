"""A stand-in for the Hugging Face hub: the requests that fetching and sending a model make, and no more."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """models: {user/model: {path: content}}. log: the requests, as "METHOD path"."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.log: list[str] = []
        self.address = ""


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, content: object) -> None:
            self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.log.append(f"{self.command} {path}")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
                if (files := state.models.get(found[1])) is None:
                    return self.answer(404, b"{}", X_Error_Code="RepoNotFound")
                listed = [{"rfilename": name, "size": len(files[name])} for name in files]
                return self.json({"id": found[1], "sha": COMMIT, "siblings": listed, "private": False, "tags": []})
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+.*", path):
                files = state.models[found[1]]
                return self.json(
                    [{"type": "file", "path": name, "size": len(c), "oid": _oid(c)} for name, c in files.items()]
                )
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                content = state.models.get(found[1], {}).get(found[2])
                if content is None:
                    return self.answer(404, X_Error_Code="EntryNotFound")
                return self.answer(200, content, X_Repo_Commit=COMMIT, ETag=f'"{_oid(content)}"')
            return self.answer(404)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            path = self.path.partition("?")[0]
            state.log.append(f"POST {path}")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if "authorization" not in {name.lower() for name in self.headers}:
                return self.answer(401, b"{}")
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization', 'user')}/{asked['name']}"
                state.models.setdefault(name, {})
                return self.json({"url": f"{state.address}/{name}", "name": name, "id": name})
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
                return self.json(
                    {
                        "files": [
                            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                            for file in json.loads(body)["files"]
                        ]
                    }
                )
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        state.models[found[1]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                url = f"{state.address}/{found[1]}/commit/{COMMIT}"
                return self.json({"success": True, "commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})
            return self.json({"errors": [], "warnings": []})  # of the card's header

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
