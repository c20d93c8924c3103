"""`raycls submit`, `status`, `logs` and `stop`: the commands that talk to the job server of a cluster.

Nothing heavy is imported before one of them runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raycls.cli.command import load_config, say
from raycls.config.write import word
from raycls.errors import ConfigError

if TYPE_CHECKING:
    from raycls.config.load import Loaded
    from raycls.jobs.dashboard import Dashboard
    from raycls.jobs.submission import Submission

__all__ = ["register"]

_COMMANDS = ("train", "search", "eval", "doctor")
Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The cluster's dashboard, http://HEAD:8265. Default: RAY_API_SERVER_ADDRESS or RAY_ADDRESS."
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure-cluster", help="Use a cluster that answers without a token, though it is not local.")
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="The id that raycls submit printed.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(context_settings={"allow_interspersed_args": False})(submit)
    for command in (status, logs, stop):
        app.command()(command)


def submit(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="-- train|search|eval|doctor ...", help="The command to run there.")
    ],
    address: Address = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Leave once the job is there; raycls logs follows it.")] = (
        False
    ),
    insecure_cluster: Insecure = False,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable for the job. Never a secret.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A variable that the nodes must have already. Its value is not sent."),
    ] = None,
) -> None:
    """Run a raycls command as a job of a cluster, with the files of this folder, and follow its log.

    The exit code is the command's own; 143 where the job was stopped.
    """
    name = _checked_words(context, words)
    from raycls.screen.working import Working

    with Working("packing this folder"):
        from raycls.jobs import dashboard as dashboards
        from raycls.jobs import submission as jobs

        url = dashboards.address_of(address)
        submission = jobs.make_submission(
            name,
            words,
            Path.cwd(),
            variables=env or (),
            named=secret or (),
        )
    if dry_run:
        typer.echo("\n".join([*jobs.describe(submission, url), "nothing was sent"]))
        return
    with Working(f"asking {url}"):
        dashboard = dashboards.connect(url, insecure=insecure_cluster, say=say)
        jobs.warn_of_other_ray(dashboard, say)
    _send(dashboard, submission)
    if not no_wait:
        raise typer.Exit(_follow(dashboard, submission.name))


def status(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="The id of one job. Default: all jobs.")] = None,
    address: Address = None,
    insecure_cluster: Insecure = False,
) -> None:
    """Say how a job of a cluster is doing, or list its jobs."""
    dashboard = _connect(address, insecure_cluster)
    from raycls.screen.working import Working

    with Working("asking the cluster"):
        from raycls.jobs import submission as jobs

    if job is None:
        with Working("asking the cluster"), dashboard.talking():
            found = dashboard.client.list_jobs()
        typer.echo("\n".join(jobs.table(found)) or "the cluster has no submitted jobs")
        return
    one = dashboard.info(job)
    typer.echo(f"{one.status.value}  {one.entrypoint}")
    if one.status.is_terminal():
        typer.echo("\n".join(jobs.end_lines(one)))
    elif one.message:
        typer.echo(one.message)


def logs(job: Job, address: Address = None, insecure_cluster: Insecure = False) -> None:
    """Print the log of a job from its beginning and follow it to its end. The exit code is that of raycls submit."""
    dashboard = _connect(address, insecure_cluster)
    dashboard.info(job)
    raise typer.Exit(_follow(dashboard, job))


def stop(job: Job, address: Address = None, insecure_cluster: Insecure = False) -> None:
    """Stop a job after its step and a checkpoint, and wait for that. The same submission resumes the run."""
    dashboard = _connect(address, insecure_cluster)
    from raycls.jobs import submission as jobs
    from raycls.screen.working import Working

    with Working(f"waiting until job {job} has stopped"):
        found = jobs.stop(dashboard, job)
    typer.echo("\n".join(jobs.end_lines(found)))


def _connect(address: str | None, insecure: bool) -> Dashboard:
    from raycls.screen.working import Working

    with Working("asking the cluster"):
        from raycls.jobs import dashboard as dashboards

        url = dashboards.address_of(address)
        return dashboards.connect(url, insecure=insecure, say=say)


def _send(dashboard: Dashboard, submission: Submission) -> None:
    from raycls.jobs import submission as jobs
    from raycls.screen.working import Working

    say(jobs.sending(submission))
    with Working(jobs.sending(submission)):
        jobs.send(dashboard, submission)
    say(f"job {submission.name} on {dashboard.address}")
    say(_later("follow it", "logs", dashboard, submission.name))
    say(_later("end it", "stop", dashboard, submission.name))


def _follow(dashboard: Dashboard, job: str) -> int:
    from raycls.jobs import submission as jobs
    from raycls.jobs.follow import Follower
    from raycls.screen.working import Working

    try:
        # What the job says moves by itself: the line is there before the first of it.
        with Working(f"waiting for the log of job {job}") as working:

            def write(text: str) -> None:
                working.close()
                _write(text)

            found = Follower(dashboard, job, write, say).run()
    except KeyboardInterrupt:
        say(f"\njob {job} keeps running")
        say(_later("follow it", "logs", dashboard, job))
        say(_later("end it", "stop", dashboard, job))
        return 130
    say("\n".join(jobs.end_lines(found)))
    return jobs.exit_code(found)


def _later(what: str, command: str, dashboard: Dashboard, job: str) -> str:
    return f"  {what + ':':<11}raycls {command} {word(job)} --address {word(dashboard.address)}"


def _checked_words(context: typer.Context, words: list[str]) -> str:
    """Check the command as far as this machine can, before anything is sent; a name for its job."""
    if words[0] not in _COMMANDS:
        raise ConfigError(
            "not a command for a cluster",
            found=words[0],
            valid=", ".join(_COMMANDS),
            fix="raycls submit -- train CONFIG; options of submit stand before the command",
        )
    root: Any = context.find_root().command
    given = root.commands[words[0]].make_context(words[0], list(words[1:]), parent=context.parent).params
    from raycls.jobs.note import refuse_relative
    from raycls.jobs.package import refuse_outside

    if words[0] == "eval":
        refuse_relative(given["run"], "RUN")
        return "eval"
    if words[0] == "doctor":
        from raycls.doctor.arguments import config_of, read

        asked_words = given["words"] or []
        asked, config = read(asked_words), config_of(asked_words)
        if config is not None:
            refuse_outside(config)
        if asked.storage is not None:
            refuse_relative(asked.storage, "run.storage")
        return "doctor"
    loaded = load_config(given["config"], given["overrides"])
    refuse_outside(given["config"])
    refuse_relative(loaded.run.run.storage, f"{loaded.origins['run.storage']}  run.storage")
    _tell_of_data(loaded)
    return loaded.run.run.name


def _tell_of_data(loaded: Loaded) -> None:
    path = loaded.run.data.source.path
    if path and "://" not in path and not path.startswith(("/", "~")):
        say(
            f"note: data.source.path ({path}) is relative: only what of it is sent with this folder "
            "is found on the cluster"
        )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
