"""An MLflow server in memory, as far as the client of a run needs one, that can be made to fail in every way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class StandIn:
    """What the server was told, and how it behaves."""

    port: int = 0
    fault: str = ""
    """Empty, `hang` (never answers), or the code that answers everything, such as `500`."""
    asked: list[str] = field(default_factory=list)
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    lock: Any = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def only_run(self) -> dict[str, Any]:
        (run,) = [run for name, run in self.runs.items() if name not in self.deleted]
        return run

    def points(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of a metric of the only run, in the order of their arrival."""
        return [(int(m["step"]), float(m["value"])) for m in self.only_run()["metrics"] if m["key"] == name]

    def until(self, happened: Any, seconds: float = 150.0) -> None:
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, f"it did not happen within {seconds:g} s; asked: {self.asked[-5:]}"
            time.sleep(0.02)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            name = path.removeprefix("/api/2.0/mlflow/")
            self.asked.append(name)
            if name.startswith("experiments/"):
                return self._experiment(name, body)
            if name == "runs/create":
                return 200, {"run": self._create(body)}
            if name == "runs/search":
                return 200, {"runs": [self._shown(key) for key in self._search(body["filter"])][:1]}
            key = body.get("run_id", "")
            run = self.runs[key]
            if name == "runs/update":
                run["status"] = body.get("status", run["status"])
            elif name == "runs/log-batch":
                for metric in body.get("metrics", []):
                    if "refused" in metric["key"]:
                        return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "refused"}
                run["metrics"] += body.get("metrics", [])
                run["params"] |= {item["key"]: item["value"] for item in body.get("params", [])}
                run["tags"] |= {item["key"]: item["value"] for item in body.get("tags", [])}
            elif name == "runs/delete":
                self.deleted.add(key)
            elif name == "metrics/get-history":
                return 200, {"metrics": [m for m in run["metrics"] if m["key"] == body["metric_key"]]}
            return 200, {"run": self._shown(key), "run_info": self._shown(key)["info"]}

    def _experiment(self, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if name == "experiments/create":
            self.experiments[body["name"]] = str(len(self.experiments) + 1)
        wanted = body.get("experiment_name", body.get("name", ""))
        if wanted not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
        number = self.experiments[wanted]
        return 200, {"experiment_id": number, "experiment": {"experiment_id": number, "name": wanted}}

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        key = f"run{len(self.runs) + 1}"
        tags = {item["key"]: item["value"] for item in body.get("tags", [])}
        run = {"status": "RUNNING", "name": body.get("run_name", ""), "metrics": [], "params": {}, "tags": tags}
        self.runs[key] = run
        return self._shown(key)

    def _search(self, text: str) -> list[str]:
        _, tag, rest = text.split("`")
        value = rest.split("'")[1]
        return [key for key, run in self.runs.items() if run["tags"].get(tag) == value and key not in self.deleted]

    def _shown(self, key: str) -> dict[str, Any]:
        run = self.runs[key]
        pairs = {what: [{"key": k, "value": v} for k, v in run[what].items()] for what in ("params", "tags")}
        info = {"run_id": key, "run_uuid": key, "run_name": run["name"], "experiment_id": "1", "status": run["status"]}
        return {"info": {**info, "start_time": 1, "artifact_uri": "x", "lifecycle_stage": "active"}, "data": pairs}


@contextmanager
def standing_in(stand_in: StandIn | None = None, *, fault: str = "") -> Iterator[StandIn]:
    """Serve on loopback: a new one, or one that was there before on its port and with all that it knew."""
    told = stand_in or StandIn()
    told.fault = fault
    told.released.clear()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"{}") if length else {}
            address = urlsplit(self.path)
            body |= {name: values[0] for name, values in parse_qs(address.query).items()}
            if told.fault:
                told.asked.append(told.fault)
            if told.fault == "hang":
                told.released.wait()
                self.close_connection = True
                return
            code, answer = (int(told.fault), {}) if told.fault else told.answer(address.path, body)
            data = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 - names of the base class

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", told.port), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *given: None  # who asked may have been killed
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield told
    finally:
        told.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
