"""What several test modules share: the chorales, the data beside the repository, a cache of their own."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sweeping import SETTINGS

from sweep.study import Study
from sweep.warm_start import warm_start
from vae.corpus import Corpus, load_corpus

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the session fills once; tests that need an empty one set their own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(cache_home: Path) -> Iterator[None]:
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        yield


@pytest.fixture(scope="session")
def bach_corpus(_own_cache: None) -> Corpus:
    return load_corpus("bach")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Files that are data only and stand beside the repository, on some machines."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no test data beside the repository: {os.path.relpath(SHARED_DATA)}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def chords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A piano-roll file of songs of two chords anywhere on the keyboard: a code has much to say, soon learnt."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "chords.json"

    def song() -> list[list[int]]:
        return [[int(root), int(root) + 4, int(root) + 7] for root in random.integers(30, 90, 2) for _ in range(4)]

    sizes = {"train": 300, "valid": 60, "test": 60}
    path.write_text(json.dumps({name: [song() for _ in range(size)] for name, size in sizes.items()}))
    return path


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """Opens a study; twice the same journal is what a resumed sweep does."""

    def make(trials: int, path: Path | None = None, **changes) -> Study:
        settings = replace(SETTINGS, **changes)
        return Study(path or tmp_path / "study.log", settings, trials, warm_start(tmp_path, settings))

    return make
