from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from werkzeug.serving import WSGIRequestHandler, make_server


@pytest.fixture
def database(made_database, tmp_path):
    """Such a database as ``runs.db`` in the test's folder."""
    return shutil.copy(made_database, tmp_path / "runs.db")


LOGIN_PAGE = b"<!DOCTYPE html><html><body>Log in to go on</body></html>"
#: By name, what the proxy answers: status, type and body.
ANSWERS: dict[str, tuple[str, str, bytes]] = {
    "wants a password": ("401 Unauthorized", "text/plain", b"You are not authenticated."),
    "forbids": (
        "403 Forbidden",
        "application/json",
        b'{"error_code": "PERMISSION_DENIED", "message": "no write access"}',
    ),
    "knows no such page": ("404 Not Found", "text/html", b"<html>404 page not found</html>"),
    "is in conflict": ("409 Conflict", "application/json", b'{"error_code": "RESOURCE_CONFLICT"}'),
    "is asked too often": ("429 Too Many Requests", "text/plain", b"slow down"),
    "fails": ("500 Internal Server Error", "text/plain", b"oops"),
    "is overloaded": ("503 Service Unavailable", "text/plain", b"later"),
    "shows a login page": ("200 OK", "text/html", LOGIN_PAGE),
    "answers with nothing": ("200 OK", "application/json", b"{}"),
}


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class MLflowServer:
    """A server on a free port, with a store of its own."""

    def __init__(self, database: Path, artifacts: Path) -> None:
        from mlflow.server import app, handlers

        self.handlers = handlers
        self._before = (handlers._tracking_store, handlers._model_registry_store)
        uri = f"sqlite:///{database}"
        handlers._tracking_store = handlers._model_registry_store = None
        handlers.initialize_backend_stores(uri, uri, "mlflow-artifacts:/")
        # It sets the registry of this process, too, which is the tests' client as well.
        mlflow.set_registry_uri(None)
        os.environ.pop("MLFLOW_REGISTRY_URI", None)
        self._app = app
        self.reset()
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Have MLflow answer everything."""
        #: Which of `ANSWERS` is given; None lets MLflow answer.
        self.answer: str | None = None
        #: Which requests get that answer.
        self.concerned: Callable[[str, str], bool] = lambda method, path: True
        #: Which requests are served, but never answered.
        self.loses: Callable[[str, str], bool] = lambda method, path: False
        self.asked: list[tuple[str, str]] = []

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, path))
        if self.answer is not None and self.concerned(method, path):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, kind, body = ANSWERS[self.answer]
            start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
            return [body]
        if self.loses(method, path):
            list(self._app(environ, lambda *_: None))
            body = b"upstream timed out"
            start_response("504 Gateway Timeout", [("Content-Length", str(len(body)))])
            return [body]
        return self._app(environ, start_response)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self.handlers._tracking_store, self.handlers._model_registry_store = self._before


@pytest.fixture(scope="session")
def _running(made_database, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "artifacts").mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(folder / "artifacts"))
    server = MLflowServer(shutil.copy(made_database, folder / "server.db"), folder / "artifacts")
    yield server
    server.close()
    patch.undo()


@pytest.fixture
def server(_running, monkeypatch):
    """MLflow's own server, which answers until it is told to do otherwise."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    _running.reset()
    yield _running
    mlflow.set_tracking_uri(before)
