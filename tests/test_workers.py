"""Workers of a cluster whose machines come and go; those that are killed are in test_kill."""

import time
from collections import Counter
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from sweep.crash import WORKER, Crash, classify
from sweep.workers import error_of, mind_workers

pytestmark = pytest.mark.xdist_group("ray")  # a core for all that starts Ray, the other for the rest


@pytest.fixture(scope="module")
def cluster():
    """Of one machine with one core."""
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    mind_workers()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(autouse=True)
def _without_loggers(monkeypatch):
    """As in sweeps: Ray Tune's own leave files open of trials that do not come to their end."""
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")


class Limit(tune.Callback):
    """Of silence in seconds, set once so many trials have ended; 3 s later it makes a file, if it is given one."""

    def __init__(self, monkeypatch, seconds, trials, file=None):
        self._patch, self._seconds, self._left, self._file = monkeypatch, seconds, trials, file
        self._set_at = None

    def on_trial_complete(self, *args, **info):
        del args, info
        self._left -= 1
        if self._left == 0:
            self._patch.setattr("sweep.workers._SILENT_SECONDS", self._seconds)
            self._set_at = time.monotonic()

    def on_step_end(self, *args, **info):
        del args, info
        if self._file is not None and self._set_at is not None and time.monotonic() - self._set_at > 3.0:
            self._file.touch()


def trained(trials, nap, file, folder, limit):
    """Trials of a single report, two at a time; each takes so many seconds, and number 1 waits for a file before."""

    class Waiting(tune.Trainable):  # here, so that workers need not import this module
        def setup(self, config):
            self._waits = config["number"] == 1

        def step(self):
            while self._waits and not Path(file).exists():
                time.sleep(0.1)
            time.sleep(nap)
            return {"done": True}

        def save_checkpoint(self, checkpoint_dir):
            pass

    return tune.run(
        tune.with_resources(Waiting, {"cpu": 0.5}),
        config={"number": tune.grid_search(list(range(trials)))},
        storage_path=str(folder / "results"),
        verbose=0,
        raise_on_failed_trial=False,
        callbacks=[limit],
    ).trials


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_hangs_is_ended_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.workers._SILENT_REPORTS", 1.0)
    trials = trained(4, 0.1, tmp_path / "never", tmp_path, Limit(monkeypatch, 2.0, trials=3))
    assert [trial.status for trial in trials] == ["TERMINATED", "ERROR", "TERMINATED", "TERMINATED"]
    assert classify(error_of(trials[1])) == Crash(WORKER, "its worker gave no answer for 0 minutes")


@pytest.mark.usefixtures("cluster")
def test_a_worker_is_waited_for_twenty_times_as_long_as_a_report_has_taken(tmp_path, monkeypatch):
    file = tmp_path / "goes on"
    trials = trained(2, 1.0, file, tmp_path, Limit(monkeypatch, 0.1, trials=1, file=file))
    assert [trial.status for trial in trials] == ["TERMINATED", "TERMINATED"]


class Served(tune.Stopper):
    """Ends all once the machine that has joined late has had more than ten trials, or after two minutes."""

    def __init__(self):
        self.late, self.places, self._began = None, Counter(), time.monotonic()

    def __call__(self, trial_id, result):
        del trial_id
        self.places[result["on"]] += 1
        return False

    def stop_all(self):
        return self.places[self.late] > 10 or time.monotonic() - self._began > 120.0


class Joining(tune.Callback):
    """Has a machine join once trials run."""

    def __init__(self, cluster, served):
        self._cluster, self._served = cluster, served

    def on_trial_complete(self, *args, **info):
        del args, info
        self._served.late = self._served.late or self._cluster.add_node(num_cpus=1).node_id


def test_a_machine_that_joins_late_gets_trials_though_those_of_others_are_shorter_than_its_setup(
    cluster, tmp_path, monkeypatch
):
    class Short(tune.Trainable):  # here, so that workers need not import this module
        def setup(self, config):
            del config
            time.sleep(2.0)

        def step(self):
            time.sleep(0.2)
            return {"done": True, "on": ray.get_runtime_context().get_node_id()}

        def reset_config(self, new_config):
            del new_config
            return True

    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "16")
    served = Served()
    tune.run(
        Short,
        num_samples=1000,  # that are never over before
        reuse_actors=True,
        storage_path=str(tmp_path),
        verbose=0,
        stop=served,
        callbacks=[Joining(cluster, served)],
    )
    assert served.places[served.late] > 10, served.places
