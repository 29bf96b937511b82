"""Workers of a cluster whose machines come and go; those that are killed are in test_kill."""

import time

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from sweep.crash import WORKER, Crash, classify
from sweep.workers import error_of, mind_workers

pytestmark = pytest.mark.xdist_group("ray")  # a core for all that starts Ray, the other for the rest


def test_a_worker_that_hangs_is_ended_and_the_rest_goes_on(tmp_path, monkeypatch):
    class Hanging(tune.Trainable):  # here, so that workers need not import this module
        def setup(self, config):
            self._hangs = config["number"] == 1

        def step(self):
            time.sleep(1000.0 if self._hangs else 0.1)
            return {"done": self.iteration == 3}

        def save_checkpoint(self, checkpoint_dir):
            pass

    monkeypatch.setattr("sweep.workers._SILENT_SECONDS", 15.0)
    monkeypatch.setattr("sweep.workers._SILENT_REPORTS", 1.0)
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        mind_workers()
        found = tune.run(
            Hanging,
            config={"number": tune.grid_search([0, 1, 2, 3])},
            storage_path=str(tmp_path),
            verbose=0,
            raise_on_failed_trial=False,
        )
        assert [trial.status for trial in found.trials] == ["TERMINATED", "ERROR", "TERMINATED", "TERMINATED"]
        assert classify(error_of(found.trials[1])) == Crash(WORKER, "its worker gave no answer for 0 minutes")
    finally:
        ray.shutdown()


class Joining(tune.Callback):
    """Has a machine join once trials run."""

    def __init__(self, cluster):
        self._cluster, self.node = cluster, None

    def on_trial_complete(self, *args, **info):
        del args, info
        self.node = self.node or self._cluster.add_node(num_cpus=1)


def test_a_machine_that_joins_late_gets_trials_though_those_of_others_are_shorter_than_its_setup(tmp_path):
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

    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
    late = Joining(cluster)
    try:
        mind_workers()
        place = str(tmp_path)
        found = tune.run(Short, num_samples=60, reuse_actors=True, storage_path=place, verbose=0, callbacks=[late])
        places = [trial.last_result["on"] for trial in found.trials]
        assert places.count(late.node.node_id) > 10, places
    finally:
        ray.shutdown()
        cluster.shutdown()
