"""`cluster.yaml`, brought up by `ray up` on hosts of the lab; EC2, IAM and S3 are moto's."""

import csv

from conftest import INSTANCES
from sweeping import wait_for

from benchmarks.common import made_songs

HOSTS = {"laptop": 1, **INSTANCES}
RESULTS = "s3://music/music-vae-sweep"
SMALL = "--max-epochs 9 --epoch-steps 40000 --family dense --final-seeds 1 --trials-per-gpu 2"
_READ = """
import sys
from vae.store import Store
sys.stdout.write((Store(sys.argv[1]).read(sys.argv[2]) or b"").decode())
"""
_MACHINES = """
import sys, boto3
ec2, found = boto3.client("ec2"), {}
states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
for reservation in ec2.describe_instances(Filters=states)["Reservations"]:
    for machine in reservation["Instances"]:
        found[machine["PrivateIpAddress"]] = machine["InstanceId"]
if sys.argv[1:]:
    ec2.terminate_instances(InstanceIds=[found[sys.argv[1]]])
print(*found)
"""


def script(lab, text, *words):
    """What a script prints on the laptop."""
    (lab["laptop"].home / "script.py").write_text(text)
    return lab["laptop"].run(f"cd ~/music && PYTHONPATH=. python ~/script.py {' '.join(words)}")


def rows(lab, name):
    return list(csv.DictReader(script(lab, _READ, RESULTS, f"{name}/trials.csv").splitlines()))


def epochs(lab, name):
    """Those trained by all."""
    return sum(int(row["epochs"]) for row in rows(lab, name))


def nodes(lab, name):
    """Those that have trained trials."""
    return {row["node"] for row in rows(lab, name) if row["epochs"] != "0"}


def test_the_three_commands_survive_a_lost_spot_machine_and_a_killed_driver(lab, aws):
    """From no machine to three, whose GPUs are made up and shared by two trials each, and back to none."""
    laptop = lab["laptop"]
    made_songs(laptop.home / "chords.json", 300, 60)
    laptop.run(f"cd ~/{aws.name} && ray up -y cluster.yaml", 240)
    typed = f"cd ~/{aws.name} && exec python -m sweep.run"
    said = laptop.home / "said"
    process = laptop.start(f"{typed} --trials 20 --data ~/chords.json --name spot {SMALL} > ~/said 2>&1")
    wait_for(lambda: len(nodes(lab, "spot")) == 3, process, 300)
    lost = lab[next(iter(nodes(lab, "spot")))]
    lost.power_off()
    script(lab, _MACHINES, lost.address)
    before = epochs(lab, "spot")
    wait_for(lambda: epochs(lab, "spot") > before, process, 240)  # on the others
    wait_for(lambda: "its node died" in said.read_text(), process)
    lab["i4"].run("pkill -9 -f '[p]ython -m sweep.run'")
    process.communicate(timeout=120)
    assert process.returncode == 2, said.read_text()
    assert "sweep spot on the Ray cluster at" in said.read_text()
    assert ": torch can compute on 0 of 1 GPUs; it is built without CUDA: install a build for" in said.read_text()
    lab["i4"].run("rm -r ~/sweep-data")  # as on a head that is new
    output = laptop.run(f"{typed} --resume spot --force", 600)
    found = rows(lab, "spot")
    assert len(found) == 20
    assert {row["state"] for row in found} <= {"stopped", "completed"}, output
    output = laptop.run(f"cd ~/{aws.name} && python -m vae.sample --best")
    assert "spot: dense" in output
    assert (aws / "results" / "spot" / "samples" / "015.mid").exists()
    wait_for(lambda: script(lab, _MACHINES).split() == [lab["i4"].address], seconds=180)  # the head alone
