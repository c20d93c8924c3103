"""MLflow, through its own client: what `process` brings a run to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from raycls.config.write import flow
from raycls.run.history import points
from raycls.run.trackers.delivery import RefusedError

__all__ = ["Mlflow"]

_NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]", re.ASCII)
_METRICS, _PARAMETERS = 500, 100
"""Of one request: the server takes 1,000 and 100."""
_NAME, _VALUE, _TAG = 250, 500, 5000
"""Characters that the servers of all versions take."""
_ID, _SEARCH, _JOB = "raycls.run", "raycls.search", "raycls.ray_job"
_HEADING, _PARENT = "raycls.search_id", "mlflow.parentRunId"


class Mlflow:
    """One run on an MLflow server, found by the tag `raycls.run`.

    A point (metric, step) that the server has with the same value is not sent again. Steps that are trained a second
    time after a crash are therefore there once, as far as they came out the same; where they did not, the later value
    has the later time.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        self._settings = settings
        self._client: Any = MlflowClient(tracking_uri=settings["track"]["uri"])
        self._run = ""
        self._may_know = False
        """Whether the server may have points that this process does not know of."""
        self._asked: set[str] = set()
        self._known: dict[tuple[str, int], float] = {}

    def open(self) -> dict[str, str]:
        settings, client = self._settings, self._client
        experiment = self._experiment(settings["track"]["experiment"])
        tags = {_JOB: settings["dashboard"]} if settings["dashboard"] else {}
        if settings["group"]:
            tags |= {_SEARCH: settings["group"], _PARENT: self._parent(experiment)}
        run = self._found(experiment, _ID, settings["id"])
        if run is None:
            run = client.create_run(experiment, run_name=settings["name"], tags={_ID: settings["id"]})
        else:
            client.update_run(run.info.run_id, status="RUNNING")
            self._may_know = True
        self._run = run.info.run_id
        self._describe(tags, run.data.params)
        return {"url": f"{settings['track']['uri'].rstrip('/')}/#/experiments/{experiment}/runs/{self._run}"}

    def send(self, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        self._ask({_name(name) for record in records for name in points(record)})
        metrics = [
            Metric(_name(name), value, int(record["time"] * 1000), record["step"])
            for record in records
            for name, value in points(record).items()
            if not _same(self._known.get((_name(name), record["step"])), value)
        ]
        for number, some in enumerate(_parts(metrics, _METRICS)):
            try:
                self._log(metrics=some)
            except Exception as error:
                if number or not isinstance(error, RefusedError):  # some of them may have arrived
                    self._may_know = True
                    self._asked.clear()
                raise

    def end(self, state: str, summary: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        values = [(path, value) for path, value in _flat(summary) if value is not None]
        self._log(tags=[RunTag(_name(f"raycls.{path}"), _text(value)[:_TAG]) for path, value in values])
        self._client.set_terminated(self._run, status=state)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        return self._client.create_experiment(name)  # another run may be faster: then the next try finds it

    def _found(self, experiment: str, tag: str, value: str) -> Any:
        runs = self._client.search_runs(
            [experiment], f"tags.`{tag}` = '{value}'", max_results=1, order_by=["attributes.start_time ASC"]
        )
        return runs[0] if runs else None

    def _parent(self, experiment: str) -> str:
        """The run that stands for the search: a heading, without numbers and therefore ended at once.

        Trials that begin at the same time may make one each. The oldest is everyone's, and who made another one
        deletes it.
        """
        key, client = self._settings["group_id"], self._client
        found = self._found(experiment, _HEADING, key)
        if found is not None:
            return found.info.run_id
        name = self._settings["group"]
        mine = client.create_run(experiment, run_name=name, tags={_HEADING: key, _SEARCH: name}).info.run_id
        client.set_terminated(mine)
        oldest = self._found(experiment, _HEADING, key).info.run_id
        if oldest != mine:
            client.delete_run(mine)
        return oldest

    def _describe(self, tags: Mapping[str, str], there: Mapping[str, str]) -> None:
        """Parameters cannot change on MLflow; one that does at a later start, which is harmless, becomes a tag."""
        from mlflow.entities import Param, RunTag

        given = {_name(path): _text(value)[:_VALUE] for path, value in self._settings["parameters"].items()}
        missing = [Param(path, value) for path, value in given.items() if path not in there]
        changed = {f"changed.{path}": value for path, value in given.items() if there.get(path, value) != value}
        for some in _parts(missing, _PARAMETERS):
            self._log(params=some)
        self._log(tags=[RunTag(name, value) for name, value in {**tags, **changed}.items()])

    def _ask(self, names: set[str]) -> None:
        """What an earlier start brought of these metrics: it may be more than this one has, which began before it."""
        for name in sorted(names - self._asked) if self._may_know else []:
            for point in sorted(self._client.get_metric_history(self._run, name), key=lambda each: each.timestamp):
                self._known[name, point.step] = point.value
            self._asked.add(name)

    def _log(self, **what: Any) -> None:
        from mlflow.exceptions import RestException

        try:
            self._client.log_batch(self._run, **what)
        except RestException as error:
            if error.get_http_status_code() == 400:
                raise RefusedError(str(error)) from error
            raise


def _text(value: Any) -> str:
    return value if isinstance(value, str) else flow(value)


def _name(text: str) -> str:
    return _NOT_IN_A_NAME.sub("_", text)[:_NAME]


def _same(there: float | None, value: float) -> bool:
    return there is not None and (there == value or (there != there and value != value))


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
