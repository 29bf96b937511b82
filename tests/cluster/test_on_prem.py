"""`clusters/on-prem.yaml`, brought up for real by `ray up` on hosts of the lab."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from launching import SMALL_STORE, rows
from sweeping import wait_for

ALONE = Path.home() / "alone"  # which each host has for itself
SMALL = "--max-epochs 9 --epoch-steps 8000 --family dense --final-seeds 1"


def sweep(lab, options, cluster):
    """The command as it is typed on the laptop."""
    return lab["laptop"].start(f"cd ~/music && python -m sweep.run --cluster {cluster} {options}")


def nodes(lab, name):
    """Those that have trained trials."""
    return {row["node"] for row in rows(lab, name) if row["epochs"] != "0"}


def end(process, seconds=500):
    """What it printed."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    return output


def assert_all_there(lab, name, trials, output):
    assert len(rows(lab, name)) == trials
    assert {row["state"] for row in rows(lab, name)} <= {"stopped", "completed"}, output
    assert json.loads((lab.shared / name / "summary.json").read_text())["best"]["test_elbo"] is not None


def test_a_sweep_from_the_laptop_loses_nothing_when_a_worker_is_powered_off_or_cut_off(lab, on_prem, music):
    longer = SMALL.replace("8000", "40000")  # than what happens to it
    process = sweep(lab, f"--data ~/{music.name} --name lost --trials 24 {longer}", on_prem)
    wait_for(lambda: nodes(lab, "lost") >= {"w1", "w2"}, process)
    lab["w2"].power_off()
    wait_for(lambda: _joined(lab, on_prem, 1), process)
    lab["w2"].power_on()
    wait_for(lambda: _joined(lab, on_prem, 2), process)
    with lab["w1"].unplugged():
        wait_for(lambda: _joined(lab, on_prem, 1), process)
    output = end(process, 800)
    wait_for(lambda: _joined(lab, on_prem, 2))
    assert_all_there(lab, "lost", 24, output)
    assert "its node died" in output
    assert (lab["laptop"].home / "music" / "results" / "lost" / "best" / "metrics.json").exists()
    assert "lost: dense" in lab["laptop"].run("cd ~/music && python -m vae.sample --best")


def _joined(lab, cluster, workers):
    """Whether the cluster has that many workers of its file."""
    status = lab["laptop"].run(f"cd ~/music && ray exec {cluster} 'ray status' || true")
    return f"{workers + 1} local.cluster.node" in status


def _alive(lab):
    """How many nodes there are, of its file or not."""
    asked = "import ray; ray.init(); print('alive:', sum(node['Alive'] for node in ray.nodes()))"
    output = lab["head"].run(f'python -c "{asked}"')  # which Ray's own lines may follow
    return int(re.search(r"alive: (\d+)", output)[1])


def test_a_sweep_goes_on_after_its_driver_was_killed_and_its_head_powered_off(lab, on_prem, music):
    wait_for(lambda: _joined(lab, on_prem, 2))
    process = sweep(lab, f"--data ~/{music.name} --name headless --trials 20 {SMALL}", on_prem)
    wait_for(lambda: nodes(lab, "headless"), process)
    lab["head"].run("pkill -9 -f '[p]ython -m sweep.run'")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "the sweep failed there" in output
    process = sweep(lab, "--resume headless", on_prem)
    before = sum(int(row["epochs"]) for row in rows(lab, "headless"))
    wait_for(lambda: sum(int(row["epochs"]) for row in rows(lab, "headless")) > before, process)
    lab["head"].power_off()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    lab["head"].power_on()
    lab["laptop"].run(f"cd ~/music && ray up -y {on_prem}", RAY_UP_enable_autoscaler_v2="0")
    output = end(sweep(lab, "--resume headless", on_prem))
    assert_all_there(lab, "headless", 20, output)


def test_a_sweep_that_is_stopped_as_the_guide_says_ends_as_cleanly_as_by_ctrl_c(lab, on_prem, music):
    wait_for(lambda: _joined(lab, on_prem, 2))
    process = sweep(lab, f"--data ~/{music.name} --name stopped --trials 200 {SMALL}", on_prem)
    wait_for(lambda: any(row["state"] in ("paused", "stopped") for row in rows(lab, "stopped")), process)
    jobs = lab["head"].run("ray job list --address http://127.0.0.1:8265 2>&1")
    (job,) = set(re.findall(r"stopped-\d{4}-\d{6}", jobs))
    keys = "until grep -q 'trials tried' ~/seen; do sleep 1; done; printf '\\003'; sleep 5"  # Ctrl-C, in a terminal
    watch = f"script -qefc 'exec python -m sweep.run --cluster {on_prem} --watch {job}' ~/seen"
    assert "it goes on there" in lab["laptop"].run(f"cd ~/music && touch ~/seen && ({keys}) | {watch}")
    lab["laptop"].run(f"cd ~/music && ray exec {on_prem} 'ray job stop --address http://127.0.0.1:8265 {job}'")
    output = end(process)
    assert "stopping; every trial is kept" in output
    assert "go on with: python -m sweep.run --resume stopped" in output
    assert json.loads((lab.shared / "stopped" / "summary.json").read_text())["best"]["test_elbo"] is not None
    assert (lab["laptop"].home / "music" / "results" / "stopped" / "best" / "metrics.json").exists()
    lab["laptop"].run("rm /tmp/ray/cluster-*.state")  # as a restart does, after which Ray knows of no head
    watched = lab["laptop"].run(f"cd ~/music && python -m sweep.run --cluster {on_prem} --watch {job}")
    assert "stopping; every trial is kept" in watched


WAYS = {
    "as printed": "python -m sweep.run --cluster {cluster} {options}",
    "submit": "ray submit {cluster} sweep/run.py -- {options}",
    "tmux": "ray exec {cluster} --tmux 'cd ~/music-vae-sweep && python -m sweep.run {options}'",
    "job": 'ray exec {cluster} "ray job submit --no-wait --address http://127.0.0.1:8265 -- bash -c '
    "'cd ~/music-vae-sweep && python -m sweep.run {options}'\"",
}


@pytest.mark.parametrize(("number", "way"), list(enumerate(WAYS.values())), ids=WAYS)
def test_a_sweep_begins_by_each_command_of_the_guide(lab, on_prem, music, number, way):
    """And but for the one that runs in the laptop's own terminal, it goes on when the laptop is off."""
    wait_for(lambda: _joined(lab, on_prem, 2))
    data = Path(shutil.copy(music, lab.shared / "chords.json"))
    options = f"--data {data} --name way-{number} --trials 4 {SMALL}"
    process = lab["laptop"].start(f"cd ~/music && {way.format(cluster=on_prem, options=options)}")
    if "ray exec" in way:  # which has the sweep go on by itself
        end(process)
    wait_for(lambda: rows(lab, f"way-{number}"), None if "ray exec" in way else process)
    summary = lab.shared / f"way-{number}" / "summary.json"

    def ended():
        return (json.loads(summary.read_text())["best"] or {}).get("test_elbo") is not None

    assert not ended()
    if "ray submit" in way:
        end(process)
        assert ended()
        return
    lab["laptop"].power_off()
    lab["laptop"].power_on()
    process.communicate(timeout=60)
    wait_for(ended)


def test_a_folder_of_data_is_on_the_head_what_it_is_here(lab, on_prem):
    """What is removed here is no data there; and nothing is left out unsaid."""
    laptop, send = lab["laptop"], "from sweep.remote import _sent; print(_sent(CLUSTER, FOLDER), end='')"
    send = send.replace("CLUSTER", f"Path('{on_prem}').expanduser()").replace("FOLDER", "str(Path.home() / 'tunes')")
    send = f'cd ~/music && python -c "from pathlib import Path; {send}"'
    laptop.run("mkdir ~/tunes && touch ~/tunes/a.mid ~/tunes/b.mid")
    place = laptop.run(send).splitlines()[-1]
    assert lab["head"].run(f"ls {place}").split() == ["a.mid", "b.mid"]
    laptop.run("rm ~/tunes/a.mid && touch ~/tunes/c.mid")
    laptop.run(send)
    assert lab["head"].run(f"ls {place}").split() == ["b.mid", "c.mid"]
    laptop.run("ln -s ~/tunes ~/linked && ln -s ~/chords.json ~/tunes/l.mid")
    assert "tunes/l.mid: is a link" in laptop.run(f"{send} 2>&1; true")
    laptop.run("rm ~/tunes/l.mid")
    assert lab["head"].run(f"ls {laptop.run(send.replace('tunes', 'linked')).splitlines()[-1]}").split() == [
        "b.mid",
        "c.mid",
    ]
    laptop.run("mkdir -p ~/tunes/more/results")
    assert "would be left out, by rsync_exclude" in laptop.run(f"{send} 2>&1; true")


def test_an_outsider_without_the_token_is_refused(lab, on_prem):
    """And who has it is not, by the same commands."""
    wait_for(lambda: _joined(lab, on_prem, 2))
    stranger, head = lab["stranger"], lab["head"].address
    token = (lab["laptop"].home / ".ray" / "auth_token").read_text().strip()
    known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    guessed = known | {"RAY_AUTH_TOKEN": "0" * 64}
    post = "curl -s -m 5 -o /dev/null -w '%{http_code}' -X POST -H 'Content-Type: application/json'"
    post += ' -d \'{"entrypoint": "id"}\''
    agent = f"http://{head}:52365/api/job_agent/jobs/"
    assert stranger.run(f"{post} http://{head}:8265/api/jobs/ || true") == "000"  # listens to the head alone
    assert lab["head"].run(f"{post} http://127.0.0.1:8265/api/jobs/") in ("401", "403")
    assert stranger.run(f"{post} {agent}") in ("401", "403")
    assert stranger.run(f"{post} -H 'Authorization: Bearer {token}' {agent}") == "200"
    tries = {  # the host where it works with the token, and the head's address there
        "python -c \"import ray; ray.init('ray://{}:10001')\"": ("w1", head),
        "ray status --address {}:6379 | grep -q 'Node status'": ("w1", head),
        "ray job submit --no-wait --address http://{}:8265 -- id": ("head", "127.0.0.1"),
    }
    for command, (host, address) in tries.items():
        for environment in ({}, guessed):
            assert_refused(stranger, command.format(head), environment)
        assert_let_in(lab[host], command.format(address), known)
    assert_refused(stranger, f"ray job submit --no-wait --address http://{head}:52365 -- id", {})
    join = f"RAY_NUM_REDIS_GET_RETRIES=5 ray start --address={head}:6379 --num-cpus=0{SMALL_STORE}"
    before = _alive(lab)
    for environment in ({}, guessed):
        assert_refused(stranger, join, environment)
        assert _alive(lab) == before
    assert_let_in(stranger, join, known)
    wait_for(lambda: _alive(lab) == before + 1)
    stranger.run("ray stop --force")
    wait_for(lambda: _alive(lab) == before)


def assert_refused(host, command, environment):
    assert not _try(host, command, environment)[0], command


def assert_let_in(host, command, environment, tries=3):
    """On a busy machine Ray's own patience (30 s for a client's server) ends before it is let in: not at every try."""
    for _ in range(tries):
        let_in, output = _try(host, command, environment)
        if let_in:
            return
    raise AssertionError(f"{command}: {output}")


def _try(host, command, environment):
    """Whether a command succeeds there, and what it printed."""
    output = host.run(f"timeout 60 bash -c {shlex.quote(command)} 2>&1 && echo LET IN || true", **environment)
    return "LET IN" in output, output


def test_the_doctor_finds_nothing_where_results_are_shared_and_names_nodes_where_they_are_not(lab, on_prem, music):
    wait_for(lambda: _joined(lab, on_prem, 2))
    output = _doctor(lab, on_prem, f"--results {lab.shared}")
    assert "3 nodes: nothing wrong found" in output, output
    output = _doctor(lab, on_prem, f"--results {ALONE}")
    for name in ("w1", "w2"):
        assert f"{name}: {ALONE} is not shared" in output, output
    with lab["w2"].unplugged():
        wait_for(lambda: _joined(lab, on_prem, 1))
        output = _doctor(lab, on_prem, f"--results {lab.shared}")
    assert f"{lab['w2'].address}: is in the cluster file but has not joined" in output, output
    wait_for(lambda: _joined(lab, on_prem, 2))
    process = sweep(lab, f"--data ~/{music.name} --trials 2 {SMALL} --results {ALONE} --name alone", on_prem)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "is not shared: what one node writes there, another does not find" in output
    assert "Traceback" not in output


def _doctor(lab, cluster, options):
    command = f"cd ~/music-vae-sweep && python -m sweep.doctor {options} 2>&1; true"
    return lab["laptop"].run(f"cd ~/music && ray exec {cluster} '{command}'")
