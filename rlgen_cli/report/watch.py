"""`rlgen watch`: the report's page of a running training, for this machine alone."""

import json
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from omegaconf import DictConfig

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.report.page import page, plotly_script, seen
from rlgen_cli.report.read import read_runs

HOST = "127.0.0.1"


def watch(config: DictConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: where there is no run, plotly is not installed, or the port is taken.
    """
    require(isinstance(config.port, int) and 0 <= config.port < 65536, f"port: must be 0 to 65535, got {config.port}.")
    plotly_script()
    read_runs(config.run, config.runs)

    def data() -> str:
        return json.dumps(seen(read_runs(config.run, config.runs), config.shown), allow_nan=False)

    with server(data, config.port) as serving:
        print(f"watching at http://{HOST}:{serving.server_address[1]}/ (Ctrl-C ends it)", flush=True)
        serving.serve_forever()


def server(data: Callable[[], str], port: int) -> ThreadingHTTPServer:
    """A server of the page, and of `data`, which is asked for anew each time, as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page of another site could reach this server by a name of its own.
            name = self.headers.get("Host", "").rpartition(":")[0]
            if name not in (HOST, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path == "/":
                self.answer(page(json.loads(data()), live=True), "text/html")
            elif self.path == "/data.json":
                self.answer(data(), "application/json")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def answer(self, text: str, kind: str) -> None:
            content = text.encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not worth a line."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise UserError(f"port: {port} cannot be listened at ({error.strerror}); port=0 takes a free one.") from None
