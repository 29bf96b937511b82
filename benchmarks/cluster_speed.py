"""How fast a cluster is to come up, to take trials back, and to use another host; by `ray up` on hosts of the lab.

    PYTHONPATH=tests:tests/cluster python -m benchmarks.cluster_speed

As root. The hosts are those of the cluster tests: namespaces of this machine, with processes, network and sshd of
their own, on which `clusters/on-prem.yaml` comes up with the virtual environment in place. Measured:

- `ray up` typed, then `sweep.run`, to the first trial, and to the end of its first epoch;
- a worker powered off, until each of its trials runs elsewhere, where there is room, and has trained an epoch there;
- epochs a second on two worker hosts over those on one, of trials that sleep (`benchmarks.sleeping_sweep`);
- bytes that reach a host which joins such a sweep late and runs trials in turn, over those of the data.

When a trial began and an epoch was trained is told by TensorBoard's events, on which node by the study's journal.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from lab import Lab, missing
from launching import prepare_on_prem, up
from sweeping import wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.common import Table, made_songs, write
from benchmarks.sleeping_sweep import MAX_EPOCHS, REPORTS
from sweep.live import say
from sweep.reading import read
from sweep.results import SweepFolder
from vae.corpus import Corpus, Split, fingerprint, save_corpus
from vae.encoding import DataSpec
from vae.errors import UserError

NAME = "cluster_speed"
HOSTS = {"laptop": 1, "head": 10, "w1": 11, "w2": 12}
SLOTS = 2  # of a worker host
_MANY = "--family dense --trials 200 --epoch-steps 30000"
_FEW = "--family dense --family recurrent --trials 2 --epoch-steps 40000 --scheduler stopping"
"""No more than a worker has room for; families' defaults, which the first rung does not end."""
_STORE = " --object-store-memory=400000000"
_EPOCH = "train/elbo"  # told of each
_STEPS, _KEYS = 400_000, 88  # of the data that a late host gets


class Cluster:
    """What is asked of the hosts, over and over."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.file = prepare_on_prem(lab, _STORE)
        self.laptop, self.shared = lab["laptop"], lab.shared

    def down(self) -> None:
        """Types `ray down`."""
        self.laptop.run(f"cd ~/music && ray down -y {self.file}")

    def joined(self, workers: int) -> bool:
        """Whether there are so many worker hosts."""
        status = self.laptop.run(f"cd ~/music && ray exec {self.file} 'ray status' || true")
        return f"{workers + 1} local.cluster.node" in status

    @contextmanager
    def sweep(self, name: str, options: str) -> Iterator[subprocess.Popen[str]]:
        """One of the real trainer, as it is typed on the laptop; ended by force."""
        words = f"--cluster {self.file} --data ~/chords.json --name {name} --final-seeds 1 {options}"
        process = self.laptop.start(f"cd ~/music && exec python -m sweep.run {words} > ~/said 2>&1")
        try:
            yield process
        finally:
            self.lab["head"].run("pkill -9 -f 'python -m [s]weep.run' || true")
            process.wait(timeout=60)

    @contextmanager
    def asleep(self, name: str, data: Path, trials: int) -> Iterator[Callable[[], list[dict[str, str]]]]:
        """A sweep that sleeps, started on the head; gives what it has reported so far."""
        folder = self.shared / name
        folder.mkdir()
        words = f"--data {data} --trials {trials} --folder {folder}"
        command = f"cd ~/music-vae-sweep && exec python -m benchmarks.sleeping_sweep {words} > ~/said 2>&1"
        process = self.lab["head"].start(command)

        def reports() -> list[dict[str, str]]:
            path = folder / REPORTS
            return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []

        try:
            wait_for(reports, process)
            yield reports
        finally:
            self.lab["head"].run("pkill -9 -f '[b]enchmarks.sleeping_sweep' || true")
            process.wait(timeout=60)

    def received(self, host: str) -> int:
        """Bytes that have reached a host since it was plugged in."""
        words = ("ip", "-s", "-j", "-n", f"lab-{host}", "link", "show", "eth0")
        shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return int(json.loads(shown)[0]["stats64"]["rx"]["bytes"])


def stays(folder: SweepFolder, trial: str = "*") -> list[tuple[float, float]]:
    """When each stay of a trial on a worker, or of any, began, and its first epoch was told; in seconds since 1970."""
    told = (EventAccumulator(str(path)).Reload() for path in folder.tensorboard.glob(f"{trial}/events.*"))
    trained = (events for events in told if _EPOCH in events.Tags()["scalars"])
    return [(events.FirstEventTimestamp(), events.Scalars(_EPOCH)[0].wall_time) for events in trained]


def first_trial(cluster: Cluster, name: str) -> tuple[float, float, float]:
    """Seconds of `ray up`, and from its beginning to that of the first trial, and to the end of the first epoch."""
    folder, began = SweepFolder(cluster.shared, name), time.time()
    up(cluster.laptop, cluster.file)
    came_up = time.time() - began
    with cluster.sweep(name, _MANY) as process:
        wait_for(lambda: stays(folder), process, 300)
        start, epoch = map(min, zip(*stays(folder), strict=True))
        return came_up, start - began, epoch - began


def nodes_of(folder: SweepFolder) -> dict[int, str]:
    """Of the trials that have been to a rung, by number."""
    try:
        return {trial.number: trial.record.node for trial in read(folder).trials if trial.values}
    except UserError:  # none yet
        return {}


def taken_back(cluster: Cluster, name: str) -> tuple[float, float]:
    """Seconds from a worker's end until the last of its trials runs elsewhere, and has trained an epoch there."""
    folder = SweepFolder(cluster.shared, name)
    with cluster.sweep(name, _FEW) as process:
        wait_for(lambda: len(nodes_of(folder)) == SLOTS, process, 300)
        had = nodes_of(folder)
        lost = had[0]
        cluster.lab[lost].power_off()
        began = time.time()
        mine = [f"{number:05d}" for number, node in had.items() if node == lost]
        wait_for(lambda: all(len(stays(folder, trial)) > 1 for trial in mine), process, 300)
        start, epoch = map(max, zip(*(max(stays(folder, trial)) for trial in mine), strict=True))
    cluster.lab[lost].power_on()
    wait_for(lambda: cluster.joined(2), seconds=300)
    return start - began, epoch - began


def epochs_a_second(reports: list[dict[str, str]]) -> float:
    """In the middle three fifths of a sweep's reports, when all slots are busy."""
    middle = reports[len(reports) // 5 : -len(reports) // 5]
    seconds = float(middle[-1]["time"]) - float(middle[0]["time"])
    return sum(int(row["epochs"]) for row in middle[1:]) / seconds


def throughput(cluster: Cluster, name: str, data: Path, hosts: int) -> float:
    """Epochs a second of trials that sleep."""
    trials = 10 * SLOTS * hosts
    with cluster.asleep(name, data, trials) as reports:
        wait_for(lambda: sum(int(row["epochs"]) for row in reports()) >= MAX_EPOCHS * trials, seconds=400)
        return epochs_a_second(reports())


def late_bytes(cluster: Cluster, name: str, data: Path) -> int:
    """Bytes that reach a host from when it is powered on to the end of the third trial in each of its slots.

    The host is off before.
    """
    before = cluster.received("w2")
    with cluster.asleep(name, data, 200) as reports:
        cluster.lab["w2"].power_on()
        wait_for(lambda: sum(row["node"] == "w2" for row in reports()) > 3 * SLOTS * MAX_EPOCHS, seconds=400)
        return cluster.received("w2") - before


def write_random(path: Path, steps: int) -> int:
    """Writes a corpus of noise; bytes of its arrays."""
    generator = np.random.default_rng(0)
    lengths = {"train": steps // 100, "valid": 10, "test": 10}
    splits = {
        name: Split(generator.integers(0, 2, (100 * songs, _KEYS), dtype=np.uint8), np.full(songs, 100))
        for name, songs in lengths.items()
    }
    spec = DataSpec("roll", _KEYS, 4, None, 100.0, window=64, longest_song=100)
    save_corpus(Corpus("noise", spec, splits, (), fingerprint(spec, splits)), path)
    return sum(split.values.nbytes + split.lengths.nbytes for split in splits.values())


def measure(times: int) -> tuple[dict[str, object], Table]:
    """All figures."""
    lab = Lab(HOSTS)
    try:
        cluster = Cluster(lab)
        made_songs(cluster.laptop.home / "chords.json", 300, 60)
        starts = []
        for index in range(times):
            starts.append(first_trial(cluster, f"up-{index}"))
            say(f"ray up {starts[-1][0]:.1f} s, first trial {starts[-1][1]:.1f} s, epoch {starts[-1][2]:.1f} s")
            if index + 1 < times:
                cluster.down()
        wait_for(lambda: cluster.joined(2), seconds=300)
        back = []
        for index in range(times):
            back.append(taken_back(cluster, f"back-{index}"))
            say(f"trials back after {back[-1][0]:.1f} s, an epoch trained {back[-1][1]:.1f} s")
        small, large = cluster.shared / "small.npz", cluster.shared / "large.npz"
        write_random(small, 1000)
        two = [throughput(cluster, f"two-{index}", small, 2) for index in range(times)]
        lab["w2"].power_off()
        wait_for(lambda: cluster.joined(1), seconds=300)
        one = [throughput(cluster, f"one-{index}", small, 1) for index in range(times)]
        say(f"epochs a second: two hosts {two}, one {one}")
        size = write_random(large, _STEPS)
        late = {}
        for name, data in (("small", small), ("large", large)):
            late[name] = late_bytes(cluster, f"late-{name}", data)
            lab["w2"].power_off()
            wait_for(lambda: cluster.joined(1), seconds=300)
        say(f"bytes to a late host: {late}; data {size}")
        cluster.down()
    finally:
        lab.close()
    copies = (late["large"] - late["small"]) / size
    median = statistics.median
    figures = {
        "up_seconds": median(up for up, _, _ in starts),
        "first_trial_seconds": median(first for _, first, _ in starts),
        "first_epoch_seconds": median(epoch for _, _, epoch in starts),
        "back_seconds": median(again for again, _ in back),
        "back_epoch_seconds": median(epoch for _, epoch in back),
        "two_hosts": median(two) / median(one),
        "copies_of_the_data": copies,
        "raw": {"starts": starts, "back": back, "two": two, "one": one, "late": late, "data_bytes": size},
    }
    lines = [
        ("`ray up`, seconds", f"{figures['up_seconds']:.0f}"),
        ("`ray up` and `sweep.run` to the first trial, seconds", f"{figures['first_trial_seconds']:.0f}"),
        ("the same to the end of the first epoch", f"{figures['first_epoch_seconds']:.0f}"),
        ("a worker powered off to its trials running elsewhere, seconds", f"{figures['back_seconds']:.0f}"),
        ("the same to an epoch of each", f"{figures['back_epoch_seconds']:.0f}"),
        ("epochs a second on two hosts over one, trials asleep", f"{figures['two_hosts']:.2f}"),
        (f"copies of {size / 2**20:.0f} MiB of data to a host that joins late", f"{copies:.2f}"),
    ]
    return figures, Table(("on hosts of one machine", "median"), lines)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(f"python -m benchmarks.{NAME}", description="How fast a cluster is.")
    parser.add_argument("--times", type=int, default=3, metavar="N", help="that each is measured (default: 3)")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    args = parser.parse_args(argv)
    if (reason := missing()) is not None:
        print(reason)
        return 2
    figures, table = measure(args.times)
    write(NAME, figures, table, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
