"""What a sweep that is gone on with is to be."""

import json

import numpy as np
import pytest
from sweeping import open_study
from tiny import make_wide_rows

from sweep.arguments import parse
from sweep.prepare import prepare
from sweep.results import SweepFolder
from vae.corpus import save_corpus
from vae.encoding import PITCHES
from vae.errors import UserError


def test_data_that_another_version_kept_are_read_anew_where_they_are(tmp_path):
    data, results = tmp_path / "wide.npz", ["--results", str(tmp_path / "results")]
    save_corpus(make_wide_rows(PITCHES), data)
    settings, corpus = prepare(parse(["--data", str(data), "--name", "test", *results]))
    folder = SweepFolder(tmp_path / "results", "test")
    folder.create()
    open_study(folder.journal, 3, **{name: getattr(settings, name) for name in ("data", "spec", "fingerprint")})
    save_corpus(corpus, folder.data)
    resumed = ["--resume", "test", *results]
    assert prepare(parse(resumed))[1].fingerprint == corpus.fingerprint
    with np.load(folder.data) as saved:
        arrays = dict(saved)
    arrays["meta"] = np.array(json.dumps(json.loads(str(arrays["meta"])) | {"format": 0}))
    np.savez(folder.data, **arrays)
    with pytest.raises(UserError, match=r"data\.npz: damaged, or kept by another version .* pass --data PLACE"):
        prepare(parse(resumed))
    assert prepare(parse([*resumed, "--data", str(data)]))[1].fingerprint == corpus.fingerprint
