"""The section `track`: what is written down and shown during a run, and who else is told."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import Section
from raycls.config.uri_secrets import has_secret

__all__ = ["MlflowConfig", "TrackConfig", "WandbConfig"]


class MlflowConfig(Section):
    """An MLflow server that is told of every log line. Needs the extra `mlflow`.

    Credentials are never here: MLflow reads MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, from the environment of the first worker.
    """

    uri: str = "off"
    """Its address, `http://HOST:PORT` or `https://...`."""
    experiment: Annotated[str, Field(min_length=1)] = "raycls"
    """Name of the experiment that the run belongs to; it is made where there is none."""

    @field_validator("uri")
    @classmethod
    def _address(cls, value: str) -> str:
        if value == "off":
            return value
        if has_secret(value) or "@" in urlsplit(value).netloc:  # it would be written into every run folder
            raise ValueError(
                "an address must not hold credentials: MLflow takes them from the environment variables "
                "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname:
            raise ValueError("the address of an MLflow server begins with http:// or https://, and off is none")
        return value


class WandbConfig(Section):
    """Weights & Biases. Needs the extra `wandb`, and in the environment of the first worker WANDB_API_KEY."""

    mode: Literal["off", "online", "offline"] = "off"
    """`online`: the server that the environment variable WANDB_BASE_URL names is told of every log line; without it
    the one that the installed package takes for its own (api.forge.coreweave.com in 0.31, api.wandb.ai before).
    `offline`: nothing is sent, files are written to the folder `wandb` of the run folder; each start writes one that
    holds the whole run up to then, and `wandb sync` sends the newest of them."""
    project: Annotated[str, Field(min_length=1)] = "raycls"
    """Name of the project that the run belongs to."""
    entity: str | None = None
    """Name of the user or team. Default: that of the API key."""


class TrackConfig(Section):
    """What is written down and shown during a run, and who else is told."""

    log_every: Duration = Duration(50, "st")
    """How often loss, accuracy, learning rate and speed are logged: epochs, steps or per cent. Steps, speed and the
    time that is left are on the screen between two logs too."""
    print_every: Duration = Duration(30, "s")
    """Without a terminal: how often a line says how far the run is, also in long steps, and the minimum time between
    two progress lines."""
    mlflow: MlflowConfig = MlflowConfig()
    """An MLflow server. One that is down or slow neither stops nor slows a run."""
    wandb: WandbConfig = WandbConfig()
    """Weights & Biases. Down or slow, it neither stops nor slows a run."""

    @model_validator(mode="after")
    def _units(self) -> TrackConfig:
        if self.log_every.seconds is not None or self.log_every.value <= 0:
            raise ValueError(f"log_every is in epochs, steps or per cent and greater than 0: {self.log_every} is not")
        if self.print_every.seconds is None:
            raise ValueError(f"print_every is a time such as 30s: {self.print_every} is not")
        return self
