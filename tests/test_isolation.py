"""vae trains, evaluates and draws from a cached `.npz` with torch, numpy and safetensors alone: a bare GPU machine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from tiny import make_corpus

from vae.corpus import save_corpus

PROGRAM = """
import sys

BLOCKED = {"symusic", "music21", "pretty_midi", "mido", "matplotlib", "ray", "optuna", "tensorboard", "rich", "scipy"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())
import numpy as np
import vae.evaluate, vae.train
from pathlib import Path
from vae import checkpoint
from vae.sample import draw

small = ["--epoch-steps", "300", "--max-epochs", "1", "--set", "rnn_width=6", "--set", "dense_width=6"]
for family in ("dense", "recurrent"):
    if vae.train.main(["--data", "made.npz", "--family", family, "--out", family, *small]):
        sys.exit(1)
    if vae.evaluate.main(["--checkpoint", family, "--data", "made.npz", "--split", "test", "--iwae", "2"]):
        sys.exit(1)
    loaded = checkpoint.load(Path(family))
    np.save(f"{family}.npy", draw(loaded.model, loaded.spec, 3, 1.0, 0))
assert not BLOCKED & set(sys.modules)
"""


def test_training_evaluating_and_drawing_need_torch_alone(tmp_path):
    save_corpus(make_corpus(), tmp_path / "made.npz")
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{PROGRAM}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"iwae":') == 2
    for family in ("dense", "recurrent"):
        assert np.load(tmp_path / f"{family}.npy").shape == (3, 8, 6)
