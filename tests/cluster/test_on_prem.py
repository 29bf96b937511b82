"""`clusters/on-prem.yaml`, brought up for real by `ray up` on hosts of the lab."""

import csv
import json

import pytest
from lab import ROOT
from sweeping import wait_for

SMALL = "--max-epochs 9 --epoch-steps 4000 --family dense --final-seeds 1"


def rows(lab, name):
    path = lab.shared / name / "trials.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def test_a_sweep_from_the_laptop_loses_nothing_when_a_worker_is_powered_off(lab, on_prem, music):
    laptop = lab["laptop"]
    typed = f"python -m sweep.run --cluster {on_prem} --data ~/{music.name} --name lost --trials 12 {SMALL}"
    process = laptop.start(f"cd {ROOT} && {typed}")
    wait_for(lambda: {row["node"] for row in rows(lab, "lost") if row["epochs"] != "0"} >= {"w1", "w2"}, process)
    lab["w2"].power_off()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert len(rows(lab, "lost")) == 12
    assert {row["state"] for row in rows(lab, "lost")} <= {"stopped", "completed"}, output
    assert "its node died" in output
    assert json.loads((lab.shared / "lost" / "summary.json").read_text())["best"]["test_elbo"] is not None
    lab["w2"].power_on()


@pytest.mark.usefixtures("on_prem")
def test_an_outsider_without_the_token_is_refused(lab):
    stranger, head = lab["stranger"], lab["head"].address
    job = "-H 'Content-Type: application/json' -d '{\"entrypoint\": \"id\"}'"
    codes = {
        place: stranger.run(
            f"curl -s -m 5 -o /dev/null -w '%{{http_code}}' -X POST {job} http://{head}:{place} || true"
        )
        for place in ("8265/api/jobs/", "52365/api/job_agent/jobs/")
    }
    assert codes["8265/api/jobs/"] == "000"  # the dashboard listens to the head alone
    assert codes["52365/api/job_agent/jobs/"] in ("401", "403")
    tries = {
        "client": f"python -c \"import ray; ray.init('ray://{head}:10001'); print('CONNECTED')\"",
        "driver": f"python -c \"import ray; ray.init(address='{head}:6379'); print('CONNECTED')\"",
        "job": f"ray job submit --address http://{head}:8265 -- echo CONNECTED",
        "node": f"ray start --address={head}:6379 --num-cpus=1 && ray status && echo CONNECTED",
    }
    for kind, command in tries.items():
        output = stranger.run(f"timeout 60 {command} 2>&1 || true; ray stop --force > /dev/null 2>&1 || true", 120)
        assert "CONNECTED" not in output, (kind, output)
