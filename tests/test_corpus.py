import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from music import tune, write_tunes

from vae.corpus import Corpus, load_corpus, read_saved, save_corpus
from vae.encoding import Song, decode
from vae.errors import UserError
from vae.library import read_files, table_of_songs
from vae.midi import write_midi

TUNES = {f"song{seed}": tune(seed) for seed in range(8)}


def songs_of(corpus: Corpus) -> dict[str, set[bytes]]:
    """The songs of each split, up to transposition."""
    found = {}
    for name, split in corpus.splits.items():
        notes = [decode(song, "roll_onset") for song in np.split(split.values, np.cumsum(split.lengths)[:-1])]
        found[name] = {(song - [song[0, 0], 0, 0]).tobytes() for song in notes}
    return found


def python(code: str, **environment: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    env = os.environ | environment
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, env=env, text=True, stdout=subprocess.PIPE)


def test_the_chorales(bach_corpus):
    assert sum(len(split.lengths) for split in bach_corpus.splits.values()) > 340
    polyphony = np.concatenate([split.values[:, :88].sum(axis=1) for split in bach_corpus.splits.values()])
    assert (polyphony > 4).sum() <= 2  # two runs faster than the grid leave a note in its neighbour's step
    assert np.median(polyphony) == 4
    spec = bach_corpus.spec
    assert (spec.encoding, spec.steps_per_beat, spec.steps_per_bar, spec.window) == ("roll_onset", 4, 16, 64)
    assert bach_corpus.report[0].startswith("bach: 371 chorales listed, 350 songs (21 duplicates dropped)")


@pytest.mark.parametrize(
    ("bars", "expected", "line"),
    [
        ([16] * 4, 16, None),
        ([16, 16, 16, 12, 12, None], 16, "steps a bar: 16 in 3, 12 in 2, unknown in 1 songs; taken: 16,"),
        ([12, 12, 16, None, None, None], 12, "steps a bar: 12 in 2, 16 in 1, unknown in 3 songs; taken: 12,"),
        ([16, None, None, None], None, "steps a bar: 16 in 1, unknown in 3 songs; taken: none,"),
        ([None] * 4, None, None),
    ],
)
def test_the_metre_is_that_of_most_songs_that_state_one(bars, expected, line):
    songs = [Song("a", tune(seed), 96, 120.0, bar) for seed, bar in enumerate(bars)]
    table = table_of_songs("folder", "folder: songs", songs, "roll", 4)
    assert table.steps_per_bar == expected
    assert [text.startswith(line or "") for text in table.report if "bar" in text] == [True] * (line is not None)


def test_the_chorales_are_read_again_in_a_second_without_music21(bach_corpus):
    code = (
        "import sys, time; sys.modules['music21'] = sys.modules['symusic'] = None\n"
        "start = time.process_time()\n"
        "from vae.corpus import load_corpus\n"
        "print(load_corpus('bach').fingerprint, time.process_time() - start)"
    )
    output, _ = python(code).communicate(timeout=60)
    fingerprint, seconds = output.split()
    assert fingerprint == bach_corpus.fingerprint
    assert float(seconds) < 1


def test_a_folder_is_split_by_what_it_holds(tmp_path):
    first = load_corpus(str(write_tunes(tmp_path / "one", TUNES)))
    (tmp_path / "two" / "inner").mkdir(parents=True)
    renamed = {f"inner/x{i}": notes for i, notes in enumerate(reversed(TUNES.values()))}
    assert songs_of(first) == songs_of(load_corpus(str(write_tunes(tmp_path / "two", renamed))))
    assert [len(split.lengths) for split in first.splits.values()] == [6, 1, 1]
    assert first.fingerprint == load_corpus(str(tmp_path / "two")).fingerprint
    assert (first.name, load_corpus(str(tmp_path / "two")).name) == (str(tmp_path / "one"), str(tmp_path / "two"))


def test_a_transposed_copy_stays_beside_its_original_and_an_exact_one_is_dropped(tmp_path):
    moved = {f"moved{seed}": tune(seed, transpose=2) for seed in range(8)}
    corpus = load_corpus(str(write_tunes(tmp_path, TUNES | moved | {"copy": tune(3)})))
    assert "16 songs (1 duplicates dropped)" in corpus.report[0]
    assert "8 tunes, 8 of them in several songs" in corpus.report[1]
    sides = list(songs_of(corpus).values())
    assert sum(map(len, sides)) == len(set.union(*sides)) == 8


def test_many_midi_files_are_read_in_processes(tmp_path, monkeypatch):
    paths = sorted(write_tunes(tmp_path, TUNES).iterdir())
    here, _, _ = read_files(paths, 4, "reading")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("vae.library.MIDI_FILES_A_PROCESS", 4)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    there, _, _ = read_files(paths, 4, "reading")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > before
    assert [song.notes.tolist() for song in there] == [song.notes.tolist() for song in here]


def test_broken_files_are_skipped_and_named(tmp_path):
    folder = write_tunes(tmp_path, TUNES)
    for number in range(12):
        (folder / f"broken{number:02}.MID").write_bytes(b"no music")
    (folder / "notes.txt").write_text("not music, and not looked at")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    corpus = load_corpus(str(folder))
    assert "20 files, 8 songs (0 duplicates dropped)" in corpus.report[0]
    (line,) = [line for line in corpus.report if line.startswith("skipped")]
    assert line.startswith("skipped 12 files: broken00.MID (not MIDI: no MThd at its start); broken01.MID")
    assert "broken09" in line
    assert line.endswith("and 2 more")


def test_what_was_found_can_be_printed_whatever_the_names(tmp_path):
    folder = write_tunes(tmp_path / os.fsdecode(b"caf\xe9"), TUNES)
    (folder / os.fsdecode(b"na\xefve.mid")).write_bytes(b"no music")
    np.save(folder / os.fsdecode(b"se\xf1or.npy"), np.eye(9))
    report = "\n".join(load_corpus(str(folder)).report)
    assert report.encode().startswith(b"caf?: 9 files")
    assert "na?ve.mid (not MIDI" in report
    assert load_corpus(str(folder / os.fsdecode(b"se\xf1or.npy"))).report[0].startswith("se?or.npy: 9 songs")


def test_real_songs(shared_data):
    corpus = load_corpus(str(shared_data / "midi"))
    assert "24 files, 18 songs (1 duplicates dropped)" in corpus.report[0]
    assert any(line.startswith("skipped 6 files: synth_drums_only.mid") for line in corpus.report)


@pytest.mark.parametrize("steps_per_bar", [None, 12, 8])
def test_music_in_six_eight_is_read_again_as_it_was(tmp_path, steps_per_bar):
    for name, notes in TUNES.items():
        write_midi(notes, tmp_path / f"{name}.mid", 100.0, 4, name, steps_per_bar=12, beat_type=8)
    corpus = load_corpus(str(tmp_path), steps_per_bar=steps_per_bar)
    assert corpus.spec.beat_type == (4 if steps_per_bar == 8 else 8)
    again = load_corpus(str(tmp_path), "roll_onset", corpus.spec.steps_per_beat, corpus.spec.steps_per_bar)
    assert again.fingerprint == corpus.fingerprint


def test_encoding_grid_and_bar_are_as_asked(tmp_path):
    folder = str(write_tunes(tmp_path, TUNES))
    spec = load_corpus(folder, encoding="roll", steps_per_beat=2, steps_per_bar=6).spec
    assert (spec.encoding, spec.features, spec.steps_per_beat, spec.steps_per_bar) == ("roll", 88, 2, 6)
    assert (spec.window, spec.longest_song) == (32, 48)
    plain = load_corpus(folder)
    assert (plain.spec.steps_per_bar, plain.spec.tempo) == (16, 100.0)
    assert plain.fingerprint != load_corpus(folder, steps_per_bar=12).fingerprint


def test_errors_name_place_rule_finding_and_way_out(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such file or folder\. Pass bach, a folder of music"):
        load_corpus("nowhere")
    with pytest.raises(UserError, match=r"no music files \(\.mid .*\) in it\. Pass a folder with some"):
        load_corpus(str(tmp_path))
    with pytest.raises(UserError, match=r"~no-one/music: cannot be opened: Could not determine home .* Pass bach"):
        load_corpus("~no-one/music")
    with pytest.raises(UserError, match=r"aaa: cannot be opened: File name too long\. Pass bach"):
        load_corpus("a" * 1000)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a\.txt: the suffix must be one of .* found \.txt"):
        load_corpus(str(tmp_path / "a.txt"))
    (tmp_path / "a.mid").touch()
    with pytest.raises(UserError, match=r"no file can be read; skipped 1 files: a\.mid \(not MIDI: the file is empty"):
        load_corpus(str(tmp_path))
    write_tunes(tmp_path, {"a": tune(1), "b": tune(2)})
    with pytest.raises(UserError, match=r"need a tune each; found 2 songs of 2 tunes\. Pass more music"):
        load_corpus(str(tmp_path))
    with pytest.raises(UserError, match=r"need a tune each; found 1 songs"):
        load_corpus(str(tmp_path / "a.mid"))
    with pytest.raises(UserError, match="the encoding of music must be roll or roll_onset, found real"):
        load_corpus("bach", encoding="real")
    with pytest.raises(UserError, match="steps per beat must be 1 or more, found 0"):
        load_corpus("bach", steps_per_beat=0)


def test_a_saved_corpus_is_read_as_it_was(tmp_path, bach_corpus):
    save_corpus(bach_corpus, tmp_path / "bach.npz")
    again = load_corpus(str(tmp_path / "bach.npz"))
    assert (again.spec, again.report) == (bach_corpus.spec, bach_corpus.report)
    assert again.fingerprint == bach_corpus.fingerprint
    for name, split in bach_corpus.splits.items():
        assert np.array_equal(again.splits[name].values, split.values)
        assert np.array_equal(again.splits[name].lengths, split.lengths)
    with pytest.raises(UserError, match="steps per beat cannot change any more, found 2; this file has 4"):
        load_corpus(str(tmp_path / "bach.npz"), steps_per_beat=2)


def test_a_saved_corpus_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    save_corpus(load_corpus(str(write_tunes(tmp_path / "music", TUNES))), path)
    with np.load(path) as saved:
        arrays = dict(saved)
    arrays["train_values"][0, 0] ^= 1
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="a damaged corpus, or one of another version"):
        read_saved(path)


@pytest.mark.parametrize("key", ["format", "fingerprint", "spec", "report"])
def test_an_npz_that_lacks_what_a_saved_corpus_states_is_refused(tmp_path, key):
    path = tmp_path / "a.npz"
    save_corpus(load_corpus(str(write_tunes(tmp_path / "music", TUNES))), path)
    with np.load(path) as saved:
        arrays = dict(saved)
    meta = json.loads(str(arrays["meta"]))
    del meta[key]
    np.savez(path, **arrays | {"meta": np.array(json.dumps(meta))})
    with pytest.raises(UserError, match=rf"a\.npz: not a corpus that save_corpus wrote \('{key}'\)\. Save it anew"):
        load_corpus(str(path))


def test_a_damaged_cache_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = str(write_tunes(tmp_path / "music", TUNES))
    fingerprint = load_corpus(folder).fingerprint
    (cached,) = (tmp_path / "cache" / "music-vae-sweep").iterdir()
    whole = cached.read_bytes()
    for data in (b"", b"damaged", whole[: len(whole) // 2]):
        cached.write_bytes(data)
        assert load_corpus(folder).fingerprint == fingerprint
        assert read_saved(cached).fingerprint == fingerprint


def test_without_a_cache_a_corpus_is_read_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    corpus = load_corpus(str(write_tunes(tmp_path / "music", TUNES)))
    assert corpus.report[-1].endswith("set XDG_CACHE_HOME to a writable folder")


def test_a_user_without_a_home_has_a_cache(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    load_corpus(str(write_tunes(tmp_path / "music", TUNES)))
    assert len(list((tmp_path / "scratch" / "music-vae-sweep").iterdir())) == 1


def test_two_processes_may_start_at_once(tmp_path):
    folder = write_tunes(tmp_path / "music", TUNES)
    code = f"from vae.corpus import load_corpus; print(load_corpus({str(folder)!r}).fingerprint)"
    started = [python(code, XDG_CACHE_HOME=str(tmp_path / "cache")) for _ in range(2)]
    printed = {process.communicate(timeout=60)[0].strip() for process in started}
    assert printed == {load_corpus(str(folder)).fingerprint}
    assert len(list((tmp_path / "cache" / "music-vae-sweep").iterdir())) == 1


def test_a_folder_once_read_is_read_fast(tmp_path):
    folder = str(write_tunes(tmp_path, TUNES))
    load_corpus(folder)
    start = time.process_time()
    load_corpus(folder)
    assert time.process_time() - start < 0.5
