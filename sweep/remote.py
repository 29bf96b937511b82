"""A sweep on a cluster that `ray up` has brought up, told from the machine where that was typed.

There the command runs as a job of Ray's, so that it goes on when this machine sleeps; what it prints is shown here, and
can be watched again.
"""

import argparse
import contextlib
import hashlib
import io
import logging
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sweep.cluster_file import is_filled_in, read_cluster, results_of
from sweep.live import say
from sweep.results import SweepFolder
from sweep.versions import REVISION, revision
from vae.arguments import local_results
from vae.corpus import BACH, existing
from vae.errors import UserError
from vae.files import nowhere
from vae.store import DATA, JOURNAL, is_remote, point_elsewhere

DEFAULT_CLUSTER = Path("cluster.yaml")

PROJECT = "~/music-vae-sweep"
"""Where cluster files put the project on every node."""
_DATA = "~/sweep-data"
_JOBS = "http://127.0.0.1:8265"  # as the head sees its own dashboard
_STAMP = r"-\d{4}-\d{6}$"  # of a job, after its sweep's name
_COPIED = (JOURNAL, DATA, "summary.json", "trials.csv", "tensorboard/")
_CHATTER = "Job submission server address|job_manager.py|Running entrypoint|WebSocket closed"


def is_meant(path: Path) -> bool:
    """Whether a cluster file is filled in: never a search on this machine where a cluster was meant.

    Raises:
        UserError: it is, but its head can't be reached; or it can't be read.
    """
    if not path.is_file() or "provider:" not in path.read_text(errors="replace"):  # then it is none of Ray's
        return False
    if not is_filled_in(read_cluster(path)):
        return False
    from ray.autoscaler import sdk

    with _told(path, "it is filled in, but its head can't be reached"):
        sdk.get_head_node_ip(str(path))
    return True


def submit(words: list[str], args: argparse.Namespace, name: str) -> None:
    """Has a cluster run the command, and watches it; `vae.sample --best` finds the winner from here.

    Args:
        words: arguments of `sweep.run`.
        args: the same, read; the cluster is theirs, and data on this machine are copied to its head.
        name: of the sweep.

    Raises:
        UserError: the cluster can't be reached, or the sweep fails there.
    """
    cluster, results = args.cluster, _results(args)
    _there(cluster, f"ray job list --address {_JOBS} > /dev/null 2>&1", "Ray does not answer on its head")
    job = f"{name}-{datetime.now().astimezone():%m%d-%H%M%S}"
    place = args.data if args.data == BACH else _sent(cluster, args.data)
    words = [*_without(words, "--cluster"), *(["--data", place] if place != args.data else [])]  # the last one counts
    words += [] if args.resume or args.name else ["--name", name]
    code = revision()  # for `ray up` copies no .git
    told = f"{REVISION}={shlex.quote(code)} " if code else ""
    command = f"cd {PROJECT} && {told}exec python -m sweep.run {_quoted(words)}"
    script = f"ray job submit --address {_JOBS} --no-wait --submission-id {job} -- bash -c {shlex.quote(command)}"
    _there(cluster, f"{script} > ~/.submitted 2>&1 || {{ cat ~/.submitted; false; }}")
    say(f"submitted to the cluster of {cluster}; Ctrl-C leaves it running")
    if is_remote(results):
        point_elsewhere(local_results(), results, name)
    _watch(cluster, job, results)


def watch(args: argparse.Namespace) -> None:
    """Shows what a job has printed and prints, as `submit` did.

    Raises:
        UserError: the cluster can't be reached, or the sweep fails there.
    """
    _watch(args.cluster, args.watch, _results(args))


def _results(args: argparse.Namespace) -> str:
    """Where the cluster writes them."""
    config = read_cluster(args.cluster)
    results: str | None = args.results if "results" in args.given else results_of(config)
    if results is None:
        raise UserError(
            f"--cluster {args.cluster}: sets no SWEEP_RESULTS; pass --results, a place that all its nodes reach."
        )
    return results


def _fetch(cluster: Path, place: str, folder: SweepFolder, way_out: str) -> None:
    """Copies what a sweep has written on its cluster, but for trials' checkpoints, to this machine."""
    from ray.autoscaler import sdk

    folder.create()
    folder.make_latest()
    with _told(cluster, f"the sweep has ended, but {place} could not be copied here", way_out):
        for name in _COPIED:
            sdk.rsync(str(cluster), source=f"{place}/{name}", target=f"{folder.path}/{name}", down=True)
        if folder.read_summary()["best"]["trial"] is not None:
            sdk.rsync(str(cluster), source=f"{place}/best/", target=f"{folder.path}/best/", down=True)
    say(f"copied to {folder.path}")


def _without(words: list[str], option: str) -> list[str]:
    """Words of a command line without an option and its value."""
    if option not in words:
        return [word for word in words if not word.startswith(f"{option}=")]
    at = words.index(option)
    return [*words[:at], *words[at + 2 :]]


def _watch(cluster: Path, job: str, results: str) -> None:
    """Shows what a job prints, from its beginning to its end; then copies here what it wrote into a folder there."""
    again = f"python -m sweep.run --cluster {shlex.quote(str(cluster))} --watch {job}"
    say(f"watch it again: {again}")
    logs = f"PYTHONUNBUFFERED=1 ray job logs --address {_JOBS} --follow {job} 2>&1"
    logs += f" | grep --line-buffered -vE {shlex.quote(_CHATTER)}"
    status = f"ray job status --address {_JOBS} {job} 2>&1 | grep -qiE 'succeeded|was stopped'"
    name = re.sub(_STAMP, "", job)
    way_out = f"watch it again: `{again}`; what has failed goes on by --resume {name}"
    try:
        _there(cluster, f"{logs}; {status}", "the sweep failed there, or the connection did", way_out)
    except KeyboardInterrupt:
        say(f"\nit goes on there; watch it again: {again}")
        return
    if not is_remote(results):
        _fetch(cluster, f"{results}/{name}", SweepFolder(local_results(), name), f"try again: `{again}`")


def _quoted(words: Sequence[str]) -> str:
    """For a shell, which shall replace a home folder."""
    return " ".join(word if word.startswith(f"{_DATA}/") else shlex.quote(word) for word in words)


def _sent(cluster: Path, data: str) -> str:
    """Where the head finds the data."""
    try:
        here = existing(data, "").resolve()  # Ray would copy a link as one
    except UserError:
        return data  # there, or nowhere
    from ray.autoscaler import sdk

    key = hashlib.sha256(str(here).encode()).hexdigest()[:8]  # two folders of one name are two
    target = f"{_DATA}/{key}-{re.sub(r'[^A-Za-z0-9._-]+', '-', here.name)}"
    if here.is_dir():
        _require_whole(cluster, here)
        _there(cluster, f"rm -rf {target} && mkdir -p {target}")  # what was removed here is no data there either
    else:
        _there(cluster, f"mkdir -p {_DATA}")
    ends = (f"{here}/", f"{target}/") if here.is_dir() else (str(here), target)
    with _told(cluster, f"{data} could not be copied there"):
        sdk.rsync(str(cluster), source=ends[0], target=ends[1], down=False)
    return target


def _require_whole(cluster: Path, data: Path) -> None:
    """Refuses a folder of which Ray would leave out a part."""
    for name in read_cluster(cluster).get("rsync_exclude") or ():
        found = next(data.rglob(name.strip("/")), None)
        if found is not None:
            raise UserError(
                f"{found}: would be left out, by rsync_exclude in {cluster}; rename it or take it out there."
            )
    for found in data.rglob("*"):
        if found.is_symlink() and (found.readlink().is_absolute() or not found.resolve().is_relative_to(data)):
            raise UserError(f"{found}: is a link, which would lead nowhere there; put what it leads to in its place.")


def _there(
    cluster: Path, command: str, failed: str = "it could not be started there", way_out: str | None = None
) -> None:
    """Runs a shell command on the head; what it prints is shown here."""
    from ray.autoscaler import sdk

    with _told(cluster, failed, way_out):
        sdk.run_on_cluster(str(cluster), cmd=command)


class _Launcher(io.StringIO):
    """What Ray's launcher says goes nowhere; the commands that it starts write to the terminal."""

    def fileno(self) -> int:
        """Of the terminal."""
        return 1


@contextlib.contextmanager
def _told(cluster: Path, failed: str, way_out: str | None = None) -> Iterator[None]:
    """Silences Ray's launcher, and tells its errors in a line.

    Args:
        cluster: the file of the cluster.
        failed: what did.
        way_out: what to do; None: start the cluster, which what runs on it would not survive.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    sys.stdout.flush()
    config = read_cluster(cluster)
    local = config["provider"].get("type") == "local"
    try:
        # ssh would pass Ctrl-C on to the other machine instead of leaving it to this command.
        with nowhere(0), contextlib.redirect_stdout(_Launcher()), contextlib.redirect_stderr(_Launcher()):
            if local and "head_ip" in config["provider"]:
                _remember_head(config)
            yield
    except (Exception, SystemExit) as error:  # of the launcher, of ssh, of a cloud's client
        text = " ".join(str(error).split())
        up = f"{'RAY_UP_enable_autoscaler_v2=0 ' if local else ''}ray up {shlex.quote(str(cluster))}"
        way_out = way_out or f"is it up? `{up}` starts it, and ends what runs there. Or: --address local"
        raise UserError(f"--cluster {cluster}: {failed} ({text:.200}); {way_out}.") from None


def _remember_head(config: dict[str, Any]) -> None:
    """Notes that machines of one's own are up, as Ray's launcher does in /tmp, which a restart of this one clears."""
    from ray.autoscaler._private.local.node_provider import LocalNodeProvider, record_local_head_state_if_needed

    record_local_head_state_if_needed(LocalNodeProvider(config["provider"], config["cluster_name"]))
