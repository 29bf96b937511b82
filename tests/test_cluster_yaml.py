"""Cluster files, held against Ray's own validator, or read where it knows none."""

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster.yaml"


def test_ray_accepts_the_cluster_file():
    validate_config(prepare_config(yaml.safe_load(CLUSTER.read_text())))


def test_ray_would_refuse_a_key_it_does_not_know():
    cluster = yaml.safe_load(CLUSTER.read_text()) | {"max_wrokers": 3}
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(prepare_config(cluster))


def test_no_trial_runs_on_the_head():
    cluster = yaml.safe_load(CLUSTER.read_text())
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"]["CPU"] == 0


def test_at_google_disks_are_of_the_zone_and_none_is_a_hard_disk():
    config = yaml.safe_load((ROOT / "clusters" / "gcp.yaml").read_text())
    zone = config["provider"]["availability_zone"]
    for kind in config["available_node_types"].values():
        (disk,) = kind["node_config"]["disks"]
        assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"


def test_on_kubernetes_head_and_workers_have_the_account_that_may_use_the_bucket():
    """KubeRay gives a head without a name an account of its own, which has no credentials."""
    spec = yaml.safe_load((ROOT / "clusters" / "kuberay.yaml").read_text())["spec"]
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    assert [pod.get("serviceAccountName") for pod in pods] == ["YOUR-SERVICE-ACCOUNT"] * 2


def test_idle_workers_are_given_back_after_as_long_everywhere():
    """Not after Ray's own minute on Kubernetes, in which the first worker may not have been given a trial."""
    spec = yaml.safe_load((ROOT / "clusters" / "kuberay.yaml").read_text())["spec"]
    for name in ("cluster.yaml", "clusters/gcp.yaml"):
        minutes = yaml.safe_load((ROOT / name).read_text())["idle_timeout_minutes"]
        assert spec["autoscalerOptions"]["idleTimeoutSeconds"] == 60 * minutes
