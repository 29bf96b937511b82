"""What several test modules share: the chorales, the data beside the repository, a cache of their own."""

import contextlib
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from hypothesis import settings
from moto.server import ThreadedMotoServer
from processes import end_all
from sweeping import SETTINGS, new_folder

from benchmarks.common import made_songs
from sweep.results import SweepFolder
from sweep.study import Study
from sweep.warm_start import warm_start
from vae.corpus import Corpus, load_corpus

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

settings.register_profile("tests", deadline=None)  # an example may take long where other processes want the cores
settings.load_profile("tests")


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the session fills once, in whichever process; tests that need an empty one set their own."""
    own = tmp_path_factory.getbasetemp()  # lies in that of the session, if this is one of its processes
    home = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings(cache_home: Path) -> Iterator[None]:
    """No test reads or writes the user's cache, takes his settings, or joins a cluster that happens to be up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        for name in ("RAY_ADDRESS", "SWEEP_RESULTS", "SWEEP_REVISION"):
            patch.delenv(name, raising=False)
        patch.setattr("sweep.tuning.read_ray_address", lambda: None)
        yield


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """What a test that failed has started ends with it."""
    yield
    end_all()


@pytest.fixture(scope="session")
def bach_corpus(_own_surroundings: None) -> Corpus:
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
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """An object store on this machine, which the environment leads to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    settings |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "made-up")
    settings |= dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.fixture
def away(s3: ThreadedMotoServer) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Has the object store be away for a while; then it is back with its buckets, for they are this process's."""
    (host, port), back = s3.get_host_and_port(), []

    @contextlib.contextmanager
    def leave() -> Iterator[None]:
        s3.stop()
        with socket.socket() as held:  # it does not listen, and no other process takes the port meanwhile
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((host, port))
            yield
        back.append(ThreadedMotoServer(ip_address=host, port=port, verbose=False))
        back[-1].start()

    yield leave
    for server in back:
        server.stop()


@pytest.fixture
def bucket(s3: ThreadedMotoServer) -> str:
    """The URI of a bucket of a test's own."""
    del s3
    name = f"music-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Of a sweep that begins."""
    return new_folder(tmp_path / "results")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """Opens a study; twice the same journal is what a resumed sweep does."""

    def make(trials: int | None, path: Path | None = None, **changes) -> Study:
        settings = replace(SETTINGS, **changes)
        return Study(path or tmp_path / "study.log", settings, trials, warm_start(tmp_path, settings))

    return make
