"""What a trial takes, and how many run at a time, on machines that come and go."""

import errno
import gc
import json
import time
from types import SimpleNamespace

import pytest
import ray
import torch
import yaml
from ray import tune
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_get
from ray.tune.experiment import Trial
from sweeping import wait_for
from tiny import BINARY, make_corpus

from benchmarks.sleeping_sweep import SleepingTrial
from sweep.checkpoints import Checkpoints
from sweep.nodes import Newcomers, Preflight
from sweep.record import folder_of
from sweep.rungs import STOPPING
from sweep.scheduler import Asha
from sweep.searcher import StudySearcher
from sweep.tuning import Resources, _promised, find_resources, may_be_taken_back, run_trials
from vae.errors import UserError

pytestmark = pytest.mark.xdist_group("ray")  # a core for all that starts Ray, the other for the rest


@pytest.mark.parametrize(
    ("found", "trials_per_gpu", "limit", "per_trial", "slots", "most"),
    [
        ({"CPU": 2.0}, 1, None, {"cpu": 1.0}, 2, 3),
        ({"CPU": 32.0}, 1, None, {"cpu": 1.0}, 32, 36),
        ({"CPU": 32.0}, 1, 5, {"cpu": 1.0}, 5, 5),
        ({"CPU": 2.0}, 1, 5, {"cpu": 1.0}, 2, 3),
        ({"CPU": 8.0, "GPU": 2.0}, 1, None, {"cpu": 1.0, "gpu": 1.0}, 2, 3),
        ({"CPU": 2.0, "GPU": 2.0}, 4, None, {"cpu": 0.25, "gpu": 0.25}, 8, 9),
    ],
)
def test_a_gpu_is_shared_and_without_one_a_trial_takes_a_core(found, trials_per_gpu, limit, per_trial, slots, most):
    resources = Resources(found, trials_per_gpu, limit)
    assert (resources.per_trial, resources.slots, resources.most()) == (per_trial, slots, most)


@pytest.fixture(scope="module")
def bare():
    """A head that runs no trials; a start of it takes longer than most tests."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def head(bare, tmp_path, monkeypatch):
    """A cluster without workers, whose driver has a home folder of the test's own; what joins leaves with the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ray.init(address=bare.address)
    yield bare
    for node in list(bare.worker_nodes):
        bare.remove_node(node)
    wait_for(lambda: not ray.cluster_resources().keys() & {"CPU", "GPU"})
    ray.shutdown()


@pytest.fixture
def cluster(head):
    """Of one machine with one core, beside the head."""
    head.add_node(num_cpus=1)
    wait_for(lambda: ray.cluster_resources().get("CPU"))
    return head


def test_what_runs_at_a_time_follows_the_machines_of_a_cluster(cluster):
    said = []
    resources = find_resources(1, None, joined=True, tell=said.append)
    assert resources.most() == 2
    node = cluster.add_node(num_cpus=2)
    wait_for(lambda: resources.most() == 4)
    cluster.remove_node(node)
    wait_for(lambda: resources.most() == 2)
    assert resources.peak == 3
    assert [line.split("; ")[1] for line in said] == ["3 trials at a time now", "1 trial at a time now"]


def test_of_machines_that_start_on_demand_all_are_handed_trials_but_only_those_that_came_count(head, tmp_path):
    types = {"head": {"resources": {"CPU": 0}}, "plain": {"resources": {"CPU": 8}, "max_workers": 4}}
    config = {"provider": {"type": "aws"}, "available_node_types": types, "head_node_type": "head", "max_workers": 4}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
    said = []
    resources = find_resources(1, None, joined=True, tell=said.append)
    assert (resources.slots, resources.most(), resources.peak) == (32, 36, 1)
    for _ in range(2):
        head.add_node(num_cpus=8)
    wait_for(lambda: resources.most() == 36 and resources.peak == 16)
    assert resources.slots == 32
    assert said == ["machines start when trials ask for them; the first takes some minutes"]


def test_a_gpu_that_joins_a_sweep_without_is_told_once(cluster):
    said = []
    resources = find_resources(1, None, joined=True, tell=said.append)
    cluster.add_node(num_cpus=1, num_gpus=1)
    wait_for(lambda: resources.most() == 3)
    time.sleep(1.1)  # until it looks again
    assert resources.most() == 3
    assert [line for line in said if "--resume" in line] == said[1:]
    assert len(said) == 2
    assert resources.per_trial == {"cpu": 1.0}


def test_what_is_wrong_with_a_machine_that_joins_later_is_told_once(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.nodes._LOOK_SECONDS", 0.1)
    preflight, said = Preflight(str(tmp_path / "results")), []
    preflight.problems()
    newcomers = Newcomers(preflight, ["CPU"], said.append)
    seen = torch.cuda.device_count()
    cluster.add_node(num_cpus=1, num_gpus=seen + 1)

    def told(*parts):
        newcomers.on_step_end()
        return [line for line in said if all(part in line for part in parts)]

    wait_for(lambda: told("GPU"))
    (line,) = told("warning: ", f": torch can compute on {seen} of {seen + 1} GPUs; ")
    cluster.add_node(num_cpus=1, num_gpus=seen + 2)
    wait_for(lambda: told(f"{seen} of {seen + 2} GPUs"))
    assert said.count(line) == 1


def test_machines_that_the_cluster_file_names_are_waited_for_a_little(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("sweep.tuning._NAMED_SECONDS", 3.0)
    here = cluster.head_node.node_ip_address

    def waited(*names):
        config = {
            "provider": {"type": "local", "head_ip": here, "worker_ips": list(names)},
            "available_node_types": {"local.cluster.node": {"resources": {}}},
            "head_node_type": "local.cluster.node",
        }
        (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
        said, began = [], time.monotonic()
        find_resources(1, None, joined=True, tell=said.append)
        return said, time.monotonic() - began

    assert waited(here)[0] == []
    said, seconds = waited(here, "203.0.113.7")
    assert said == ["waiting up to 3 s for 203.0.113.7 of the cluster file, which may have GPUs"]
    assert seconds > 3.0


@pytest.mark.usefixtures("head")
def test_a_wait_for_workers_that_ends_in_vain_asks_for_none_any_more(monkeypatch):
    monkeypatch.setattr("sweep.tuning._WORKERS_SECONDS", 1.0)
    with pytest.raises(UserError, match="no worker has joined the cluster"):
        find_resources(1, None, joined=True, tell=[].append)
    asked = _internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL)
    assert json.loads(asked) == []


@pytest.mark.parametrize(
    ("terms", "taken_back"), [({"InstanceMarketOptions": {"MarketType": "spot"}}, True), ({}, False)]
)
def test_of_machines_that_start_on_demand_no_more_are_reckoned_with_than_may_be_there(
    tmp_path, monkeypatch, terms, taken_back
):
    monkeypatch.setenv("HOME", str(tmp_path))
    machine = {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 16}
    types = {"head": {"resources": {"CPU": 0}}, "cheap": {**machine, "node_config": terms}, "dear": machine}
    types["plain"] = {"resources": {"CPU": 8}, "max_workers": 4}
    config = {"provider": {"type": "aws"}, "available_node_types": types, "head_node_type": "head", "max_workers": 18}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
    assert _promised() == {"CPU": 72, "GPU": 18}
    assert may_be_taken_back() == taken_back


def test_a_sweep_that_no_worker_joins_says_so(head, tmp_path, monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr("sweep.nodes.time", SimpleNamespace(monotonic=lambda: now[0]))  # Ray's clock goes on
    preflight = Preflight(str(tmp_path / "results"))
    workers, gpus = (Newcomers(preflight, takes, said.append) for takes in (["CPU"], ["CPU", "GPU"]))

    def told(after):
        """What is told of, so many seconds later."""
        now[0] += after
        said.clear()
        workers.on_step_end()
        gpus.on_step_end()
        return [kind for kind in ("worker", "GPU") for line in said if f"no {kind} has been there for 10 min" in line]

    assert told(after=599.0) == []
    assert told(after=6.0) == ["worker", "GPU"]
    assert told(after=599.0) == []  # it says so every ten minutes
    head.add_node(num_cpus=1)
    wait_for(lambda: ray.cluster_resources().get("CPU"))
    assert told(after=6.0) == ["GPU"]
    assert told(after=606.0) == ["GPU"]


class Full(tune.Callback):
    """Writes to a disk that takes no more."""

    def on_trial_result(self, *args, **info):
        del args, info
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves files open, see below
def test_what_a_callback_raises_comes_out_as_it_is(cluster, make_study, tmp_path):
    cluster.add_node(num_cpus=1)
    study = make_study(trials=1, families=("dense",), spec=BINARY, max_epochs=1)
    checkpoints = Checkpoints(str(tmp_path / "checkpoints"))
    resources = find_resources(1, None, joined=True, tell=[].append)
    scheduler = Asha(study, lambda: False)
    with pytest.raises(OSError, match="Disk quota exceeded"):
        run_trials(
            make_corpus(),
            study.settings,
            resources,
            checkpoints,
            lambda config: str(config["number"]),
            search_alg=StudySearcher(scheduler, lambda: False, checkpoints.newest, resources.most),
            scheduler=scheduler,
            callbacks=[Full()],
            max_failures=0,
        )
    gc.collect()  # here, or another test would be told of them


class Losing(tune.Callback):
    """Takes a node away once two trials run, and keeps which trials begin, by number, before it is missed and after."""

    def __init__(self, cluster, node):
        self._cluster, self._node = cluster, node
        self.before, self.after, self.lost = [], None, None

    def on_trial_start(self, *args, trial, **info):
        del args, info
        (self.before if self.after is None else self.after).append(trial.config["number"])

    def on_trial_result(self, *args, **info):
        del args, info
        if len(self.before) == 2 and self._node is not None:
            self._cluster.remove_node(self._node)
            self._node = None

    def on_trial_error(self, *args, trial, **info):
        del args, info
        self.lost, self.after = trial.config["number"], []


def search(study, resources, folder, trial, callback, stopping=lambda: False):
    scheduler, checkpoints = Asha(study, stopping), Checkpoints(str(folder / "checkpoints"))
    run_trials(
        make_corpus(),
        study.settings,
        resources,
        checkpoints,
        folder_of,
        trial=trial,
        search_alg=StudySearcher(scheduler, stopping, checkpoints.newest, resources.most),
        scheduler=scheduler,
        callbacks=[callback],
        max_failures=0,
    )


def test_a_trial_lost_with_its_node_comes_before_those_that_wait_for_a_worker(cluster, make_study, tmp_path):
    class Brief(SleepingTrial):  # here, so that workers need not import this module
        NAP = 0.25

    losing = Losing(cluster, cluster.add_node(num_cpus=1))
    study = make_study(trials=5, families=("dense",), spec=BINARY, max_epochs=9, scheduler=STOPPING)
    resources = find_resources(1, None, joined=True, tell=[].append)
    assert resources.slots == 2
    search(study, resources, tmp_path, Brief, losing)
    assert losing.after[0] == losing.lost
    assert all(record.ended for record in study.records.values())


class Growing(tune.Callback):
    """Adds a node once a trial runs, and keeps how many trials have waited for a worker at once, at most."""

    def __init__(self, cluster):
        self._cluster, self._grown = cluster, False
        self.most_waiting = 0

    def on_trial_result(self, *args, **info):
        del args, info
        if not self._grown:
            self._cluster.add_node(num_cpus=3)
            self._grown = True

    def on_step_end(self, *args, trials, **info):
        del args, info
        waiting = sum(trial.status == Trial.PENDING for trial in trials)
        self.most_waiting = max(self.most_waiting, waiting)


def test_workers_of_machines_that_join_are_set_up_at_once(cluster, make_study, tmp_path):
    class Brief(SleepingTrial):  # here, so that workers need not import this module
        NAP = 0.5

    growing, study = Growing(cluster), make_study(trials=5, families=("dense",), spec=BINARY, max_epochs=9)
    resources = find_resources(1, None, joined=True, tell=[].append)
    assert resources.slots == 1
    search(study, resources, tmp_path, Brief, growing)
    assert growing.most_waiting >= 3


class Stopping(tune.Callback):
    """Asks the sweep to stop at its first report; keeps which trials have begun, by number."""

    def __init__(self):
        self.asked, self.begun = False, []

    def on_trial_start(self, *args, trial, **info):
        del args, info
        self.begun.append(trial.config["number"])

    def on_trial_result(self, *args, **info):
        del args, info
        self.asked = True


@pytest.mark.usefixtures("cluster")
def test_what_was_handed_out_and_waits_for_a_worker_does_not_begin_once_the_sweep_is_to_stop(make_study, tmp_path):
    class Brief(SleepingTrial):  # here, so that workers need not import this module
        NAP = 0.5

    stopping, study = Stopping(), make_study(trials=5, families=("dense",), spec=BINARY, max_epochs=9)
    search(study, Resources({"CPU": 4.0}, 1), tmp_path, Brief, stopping, lambda: stopping.asked)
    assert stopping.begun == [0]
    assert [record.state for record in study.records.values()] == ["paused"] * 5
    assert [record.epoch > 0 for record in study.records.values()] == [True, False, False, False, False]
