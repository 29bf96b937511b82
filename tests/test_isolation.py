"""vae trains, evaluates and draws from a cached `.npz` with torch, numpy and safetensors alone: a bare GPU machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from tiny import SMALL, make_corpus, make_music

from vae.corpus import save_corpus
from vae.models.registry import FAMILIES

PROGRAM = """
import sys

BLOCKED = {"symusic", "music21", "pretty_midi", "mido", "matplotlib", "ray", "optuna", "tensorboard", "rich", "scipy"}
BLOCKED |= {"pyarrow"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
import numpy as np
import vae.evaluate, vae.train
from pathlib import Path
from vae import checkpoint
from vae.pieces import draw

for family, data, *settings in RUNS:
    out = f"{family}-{data}"
    small = [part for setting in settings for part in ("--set", setting)]
    command = ["--data", data, "--family", family, "--out", out, "--epoch-steps", "300", "--max-epochs", "1", *small]
    if vae.train.main(command):
        sys.exit(1)
    if vae.evaluate.main(["--checkpoint", out, "--data", data, "--split", "test", "--iwae", "2"]):
        sys.exit(1)
    loaded = checkpoint.load(Path(out))
    np.save(f"{out}.npy", draw(loaded.model, 3, 1.0, 0))
assert not BLOCKED & set(sys.modules)
"""


def test_training_evaluating_and_drawing_need_torch_alone(tmp_path):
    save_corpus(make_corpus(), tmp_path / "made.npz")
    save_corpus(make_music(), tmp_path / "music.npz")
    root = Path(__file__).parents[1]
    runs = [(family, "made.npz") for family in FAMILIES] + [("dense", "music.npz"), ("sequential", "music.npz")]
    runs = [(*run, *(f"{name}={value}" for name, value in SMALL[run[0]].items() if name != "family")) for run in runs]
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"import sys; sys.path.insert(0, {str(root)!r}); RUNS = {runs}\n{PROGRAM}",
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads wait for each other on busy cores
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"iwae":') == len(runs)
    for family, data, *_ in runs:
        drawn = np.load(tmp_path / f"{family}-{data}.npy")
        assert drawn.shape == ((3, 16, 88) if data == "music.npz" else (3, 8, 6))
