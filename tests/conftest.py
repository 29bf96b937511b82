"""What several test modules share: the chorales, the data beside the repository, a cache of their own."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sweeping import SETTINGS, new_folder

from benchmarks.common import made_songs
from sweep.results import SweepFolder
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
    """A piano-roll file of songs that are soon learnt."""
    return made_songs(tmp_path_factory.mktemp("data") / "chords.json", 300, 60)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Of a sweep that begins."""
    return new_folder(tmp_path / "results")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """Opens a study; twice the same journal is what a resumed sweep does."""

    def make(trials: int, path: Path | None = None, **changes) -> Study:
        settings = replace(SETTINGS, **changes)
        return Study(path or tmp_path / "study.log", settings, trials, warm_start(tmp_path, settings))

    return make
