"""Who is to blame when a trial crashes; what becomes of it is in test_survival."""

import pytest
from ray.air.execution import ResourceManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
)
from ray.tune.experiment import Trial
from sweeping import raised

from sweep.crash import (
    NODE,
    OUTDATED,
    PREEMPTION,
    SETUP,
    STORAGE,
    TRIAL,
    WORKER,
    Crash,
    SetupError,
    classify,
    crash_of,
)
from sweep.workers import ActorManager, keep_error, known
from vae.errors import OtherRunError
from vae.store import StoreError

KILLED = "1 worker(s) were killed due to the node running low on memory.\nMemory on the node was 5.41GB used."


def died(message, **context):
    return ActorDiedError(cause=ActorDiedErrorContext(actor_id=bytes(16), error_message=message, **context))


ERRORS = {
    "raised in training": (raised(ValueError("no such\nthing")).as_instanceof_cause(), TRIAL, "ValueError: no such"),
    "raised in setup": (
        ActorDiedError(raised(OSError("disk full"))),
        SETUP,
        "its worker could not be set up: OSError: disk full",
    ),
    "a checkpoint that finds no room in setup": (
        ActorDiedError(raised(StoreError("s3://music/x: No space left on device"))),
        STORAGE,
        "its worker could not be set up: StoreError: s3://music/x: No space left on device",
    ),
    "a GPU's error in setup": (
        ActorDiedError(raised(RuntimeError("CUDA error: unspecified launch failure\nCompile with"))),
        WORKER,
        "its worker could not be set up: RuntimeError: CUDA error: unspecified launch failure",
    ),
    "a node whose GPU fails": (
        ActorDiedError(raised(SetupError("w1: RuntimeError: CUDA error: unspecified launch failure\nCompile with"))),
        SETUP,
        "its worker could not be set up: SetupError: w1: RuntimeError: CUDA error: unspecified launch failure",
    ),
    "a GPU's error": (
        raised(RuntimeError("CUDA error: an illegal memory access was encountered\nSearch for")).as_instanceof_cause(),
        WORKER,
        "CUDA error: an illegal memory access was encountered",
    ),
    "a GPU's memory in training": (
        raised(RuntimeError("CUDA out of memory. Tried to allocate")).as_instanceof_cause(),
        TRIAL,
        "RuntimeError: CUDA out of memory. Tried to allocate",
    ),
    "killed for memory": (
        OutOfMemoryError(KILLED),
        TRIAL,
        "its worker was killed because the node was running low on memory",
    ),
    "worker killed": (
        died("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"),
        WORKER,
        "its worker died",
    ),
    "node died": (
        died("The actor died because its node has died. Node Id: cde93ddf7f99"),
        NODE,
        "its node died or could not be reached",
    ),
    "node preempted": (
        died("drained", node_death_info=NodeDeathInfo(reason=NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED)),
        PREEMPTION,
        "its node was taken back",
    ),
    "unreachable": (
        ActorUnavailableError("rpc error: Connection timed out", None),
        NODE,
        "its node died or could not be reached",
    ),
    "node of a task died": (raised(NodeDiedError("gone")), NODE, "its node died or could not be reached"),
    "results not there": (
        raised(RuntimeError("Unable to set up cluster storage with the following settings: x")).as_instanceof_cause(),
        STORAGE,
        "its checkpoint could not be kept: cannot be reached (Unable to set up cluster storage with the following "
        "settings: x)",
    ),
    "checkpoint of another version": (
        raised(OtherRunError("x: a run goes on with the same config")),
        OUTDATED,
        "its checkpoint can't be gone on from: x: a run goes on with the same config",
    ),
    "a node that is not fit": (
        ActorDiedError(raised(SetupError("OutOfMemoryError: CUDA out of memory"))),
        SETUP,
        "its worker could not be set up: SetupError: OutOfMemoryError: CUDA out of memory",
    ),
    "the same in setup": (
        ActorDiedError(raised(OtherRunError("x: a run goes on with the same config"))),
        OUTDATED,
        "its worker could not be set up: OtherRunError: x: a run goes on with the same config",
    ),
    "data lost with a node": (
        raised(ObjectLostError("00" * 28, None, "put")).as_instanceof_cause(),
        NODE,
        "its node died or could not be reached",
    ),
}


@pytest.mark.parametrize(("error", "blamed", "reason"), ERRORS.values(), ids=ERRORS)
def test_an_error_tells_who_is_to_blame(error, blamed, reason):
    assert classify(error) == Crash(blamed, reason)


@pytest.mark.parametrize(("error", "blamed", "reason"), ERRORS.values(), ids=ERRORS)
def test_a_trial_that_ray_gave_up_tells_the_same(error, blamed, reason):
    trial = Trial("test", stub=True)
    keep_error(trial, known(error))
    assert crash_of(trial) == Crash(blamed, reason)


class Unlimited(ResourceManager):
    """Resources that need not be given back."""

    def free_resources(self, acquired_resource):
        pass


@pytest.mark.parametrize("error", [OutOfMemoryError(KILLED), NodeDiedError("gone")])
def test_a_worker_lost_in_training_is_told_to_its_trial(error):
    """Ray Tune's own manager would raise, which ends the search."""
    manager, actor, told = ActorManager(Unlimited()), TrackedActor(0), []
    manager._live_actors_to_ray_actors_resources[actor] = (None, None)
    manager._actor_task_failed(TrackedActorTask(actor, on_error=lambda _, lost: told.append(lost)), error)
    assert [classify(lost) for lost in told] == [classify(error)]
