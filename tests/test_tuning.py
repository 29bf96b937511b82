"""What a trial takes, and how many run at a time, on machines that come and go."""

import pytest
import ray
from ray.cluster_utils import Cluster
from sweeping import wait_for

from sweep.tuning import Resources, find_resources


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


def test_what_runs_at_a_time_follows_the_machines_of_a_cluster():
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
    try:
        said = []
        resources = find_resources(1, None, joined=True, tell=said.append)
        assert resources.most() == 2
        node = cluster.add_node(num_cpus=2)
        wait_for(lambda: resources.most() == 4)
        cluster.remove_node(node)
        wait_for(lambda: resources.most() == 2)
        assert resources.peak == 3
        assert [line.split("; ")[1] for line in said] == ["3 trials at a time now", "1 trial at a time now"]
    finally:
        ray.shutdown()
        cluster.shutdown()
