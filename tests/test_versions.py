"""The revision that a result comes from, in a checkout and in a copy of one."""

import pytest

from sweep.versions import git, revision


@pytest.fixture(autouse=True)
def _afresh():
    """As in a process that begins."""
    revision.cache_clear()
    yield
    revision.cache_clear()


def test_a_copy_without_git_has_the_revision_that_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("sweep.versions.ROOT", tmp_path)
    monkeypatch.delenv("SWEEP_REVISION", raising=False)
    assert revision() is None
    revision.cache_clear()
    monkeypatch.setenv("SWEEP_REVISION", "0123456789ab+changes")
    assert revision() == "0123456789ab+changes"


def test_a_checkout_has_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr("sweep.versions.ROOT", tmp_path)
    monkeypatch.delenv("SWEEP_REVISION", raising=False)
    git("init", "--quiet")
    git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--allow-empty", "--message", "empty")
    assert revision() == git("rev-parse", "--short=12", "HEAD")
