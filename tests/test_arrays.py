import json
import time

import numpy as np
import pytest

from vae.corpus import load_corpus
from vae.errors import UserError

RNG = np.random.default_rng(0)
ROLLS = (RNG.random((20, 12, 88)) < 0.1).astype(np.uint8)
ROWS = RNG.random((30, 5))


def save(path, array):
    np.save(path, array)
    return str(path)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_the_published_chorales_are_read_as_split(shared_data):
    corpus = load_corpus(str(shared_data / "pianorolls" / "jsb_chorales.json"))
    assert [len(split.lengths) for split in corpus.splits.values()] == [229, 76, 77]
    assert [len(split.values) for split in corpus.splits.values()] == [13_807, 4_602, 4_725]
    assert (corpus.spec.encoding, corpus.spec.steps_per_beat, corpus.spec.window) == ("roll", 1, 16)
    assert corpus.spec.tempo == 100


def test_how_long_songs_are_is_what_training_shows(tmp_path):
    songs = {"train": [SONG, SONG[:1]], "valid": [SONG * 9], "test": [SONG * 9]}
    spec = load_corpus(str(write(tmp_path / "a.json", songs))).spec
    assert (spec.window, spec.longest_song) == (len(SONG), len(SONG))
    rolls = {name: np.ones((2, steps, 88)) for name, steps in (("train", 8), ("valid", 8), ("test", 50))}
    np.savez(tmp_path / "a.npz", **rolls)
    spec = load_corpus(str(tmp_path / "a.npz")).spec
    assert (spec.window, spec.longest_song) == (8, 8)


def test_json_songs_become_rolls_and_empty_ones_are_dropped(tmp_path):
    songs = {"train": [[[60, 64], []], []], "valid": [[[21]]], "test": [[[108]]]}
    corpus = load_corpus(write(tmp_path / "a.json", songs))
    train = corpus.splits["train"]
    assert train.lengths.tolist() == [2]
    assert np.argwhere(train.values).tolist() == [[0, 39], [0, 43]]
    assert corpus.splits["test"].values[0, 87] == 1
    assert "1 songs without steps dropped" in corpus.report


SONG = [[60]]
BROKEN_JSON = {
    "pitch": (
        {"train": [SONG] * 3 + [[*SONG * 17, [130]]]},
        r"a\.json: train\[3\]\[17\] has pitch 130; pitches must lie in 21\.\.108",
    ),
    "fraction": ({"train": [[[60.5]]]}, r"train\[0\]\[0\] has pitch 60\.5"),
    "bool": ({"valid": [[[True]]]}, r"valid\[0\]\[0\] has pitch true"),
    "step": ({"train": [[60]]}, r"train\[0\]\[0\] must be a list of pitches, found 60"),
    "song": ({"test": [7]}, r"test\[0\] must be a list of steps, found 7"),
    "split": ({"test": None}, r"test must be a list of songs, found null"),
    "no songs": ({"valid": []}, r"valid has no song with a step in it"),
    "empty songs": ({"valid": [[], []]}, r"valid has no song with a step in it"),
    "key": ({"dev": [SONG]}, r"found keys \['dev', 'test', 'train', 'valid'\]"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN_JSON.values(), ids=BROKEN_JSON)
def test_a_broken_roll_is_told_by_its_place(tmp_path, change, message):
    content = {"train": [SONG], "valid": [SONG], "test": [SONG]} | change
    with pytest.raises(UserError, match=message):
        load_corpus(write(tmp_path / "a.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", r"a\.json: not JSON"), ("[" * 100_000, "not JSON"), ("[]", "found a list"), ("\ud800", "not JSON")],
    ids=["cut", "deep", "list", "no text"],
)
def test_what_is_no_json_is_told(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=message):
        load_corpus(str(path))


def test_rolls_have_no_onsets(tmp_path):
    path = write(tmp_path / "a.json", {"train": [SONG], "valid": [SONG], "test": [SONG]})
    with pytest.raises(UserError, match="the encoding must be that of the data, found roll_onset; the data are roll"):
        load_corpus(path, encoding="roll_onset")


def test_rows_are_songs_of_one_step(tmp_path):
    spec = load_corpus(save(tmp_path / "a.npy", ROWS)).spec
    assert (spec.encoding, spec.features, spec.window, spec.longest_song) == ("real", 5, 1, 1)
    assert spec.unit_interval
    assert not load_corpus(save(tmp_path / "b.npy", ROWS - 0.5)).spec.unit_interval
    binary = load_corpus(save(tmp_path / "c.npy", ROWS > 0.5))
    assert (binary.spec.encoding, binary.splits["train"].values.dtype) == ("binary", np.uint8)


@pytest.mark.parametrize(("width", "encoding"), [(88, "roll"), (176, "roll_onset")])
def test_rolls_are_songs_of_t_steps(tmp_path, width, encoding):
    rolls = RNG.random((20, 12, width)) < 0.1
    corpus = load_corpus(save(tmp_path / "a.npy", rolls), steps_per_beat=2, steps_per_bar=8)
    spec = corpus.spec
    assert (spec.encoding, spec.features, spec.window) == (encoding, width, 12)
    assert (spec.steps_per_beat, spec.steps_per_bar) == (2, 8)
    kept = np.concatenate([split.values for split in corpus.splits.values()]).reshape(-1, 12, width)
    assert sorted(roll.tobytes() for roll in kept) == sorted(roll.astype(np.uint8).tobytes() for roll in rolls)


def test_of_long_rolls_no_more_are_held_out_than_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.splitting.HELD_OUT_STEPS", 24)
    corpus = load_corpus(save(tmp_path / "a.npy", (RNG.random((40, 12, 88)) < 0.1)))
    assert [len(split.lengths) for split in corpus.splits.values()] == [36, 2, 2]


def test_of_rows_as_wide_as_long_rolls_no_more_are_held_out(tmp_path, monkeypatch):
    monkeypatch.setattr("vae.splitting.HELD_OUT_STEPS", 24)
    corpus = load_corpus(save(tmp_path / "a.npy", RNG.random((40, 12 * 88))))
    assert [len(split.lengths) for split in corpus.splits.values()] == [36, 2, 2]


def test_identical_rows_are_kept_and_stay_on_one_side(tmp_path):
    rows = np.repeat(ROWS, 3, axis=0)
    corpus = load_corpus(save(tmp_path / "a.npy", rows))
    sides = [{row.tobytes() for row in split.values} for split in corpus.splits.values()]
    assert sum(len(split.values) for split in corpus.splits.values()) == 90
    assert sum(map(len, sides)) == len(set.union(*sides)) == 30


@pytest.mark.parametrize("onsets", [False, True])
def test_transposed_rolls_stay_on_one_side(tmp_path, onsets):
    rolls = np.zeros((30, 12, 2, 88), np.uint8)
    rolls[:, :, :, 30:50] = RNG.random((30, 12, 2, 20)) < 0.3
    moved = np.concatenate([np.roll(rolls, keys, axis=3) for keys in (-30, -3, 0, 7, 38)])
    array = moved.reshape(150, 12, 176) if onsets else moved[:, :, 0]
    corpus = load_corpus(save(tmp_path / "a.npy", array))
    sides = []
    for split in corpus.splits.values():
        keys = [np.nonzero(song[:, :88])[1] for song in split.songs()]
        sides.append({(key - key.min()).tobytes() for key in keys})
    assert sum(len(split.lengths) for split in corpus.splits.values()) == 150
    assert sum(map(len, sides)) == len(set.union(*sides)) == 30


def test_a_piece_in_nine_keys_and_silence_are_too_few_to_split(tmp_path):
    copies = np.stack([np.zeros((12, 88)), *(np.roll(np.eye(12, 88), key, axis=1) for key in range(9))])
    with pytest.raises(UserError, match="needs 3 pieces that differ, transposed or not, found 2 among 10"):
        load_corpus(save(tmp_path / "a.npy", copies))


def test_an_npz_keeps_its_own_split(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, train=ROLLS[:10], valid=ROLLS[10:13, :4], test=ROLLS[13:])
    corpus = load_corpus(str(path))
    assert [split.lengths.tolist() for split in corpus.splits.values()] == [[12] * 10, [4] * 3, [12] * 7]
    np.savez(path, music=ROWS)
    assert load_corpus(str(path)).spec.encoding == "real"


BROKEN_ARRAYS = {
    "one dimension": (ROWS[0], r"a\.npy: must have 2 or 3 dimensions, found shape \(5,\)"),
    "four dimensions": (np.zeros((2, 2, 2, 2)), "must have 2 or 3 dimensions"),
    "no rows": (np.zeros((0, 5)), r"must not be empty, found shape \(0, 5\)"),
    "no columns": (np.zeros((5, 0)), "must not be empty"),
    "text": (np.array([["a", "b"]]), "must hold real numbers, found dtype <U1"),
    "complex": (ROWS * 1j, "must hold real numbers, found dtype complex128"),
    "nan": (np.where(ROWS[7, 2] == ROWS, np.nan, ROWS), "must be finite .* found nan in row 7, column 2"),
    "inf": (np.where(ROWS[7, 2] == ROWS, -np.inf, ROWS), "found -inf in row 7"),
    "beyond float32": (np.where(ROWS[7, 2] == ROWS, 1e300, ROWS), r"found 1e\+300 in row 7"),
    "keys": (
        np.zeros((5, 4, 12)),
        r"last of 3 dimensions must be 88 keys, or 176 with onsets, found shape \(5, 4, 12\)",
    ),
    "velocities": (ROLLS * 90, r"a piano roll must hold only 0 and 1, found 90\. Save array > 0 instead"),
    "too few": (np.tile(ROWS[:2], (9, 1)), "a split needs 3 rows that differ, found 2 among 18"),
    "objects": (np.array([[{}]]), "must be an array of numbers; numpy says: Object arrays cannot be loaded"),
}


@pytest.mark.parametrize(("array", "message"), BROKEN_ARRAYS.values(), ids=BROKEN_ARRAYS)
def test_a_broken_array_is_told(tmp_path, array, message):
    with pytest.raises(UserError, match=message):
        load_corpus(save(tmp_path / "a.npy", array))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_are_told(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, ROWS)
    whole = path.read_bytes()
    for data in (b"", b"no array", whole[: len(whole) // 2], whole.replace(b"(30, 5)", b"(30, 5(")):
        path.write_bytes(data)
        with pytest.raises(UserError, match="must be an array of numbers; numpy says"):
            load_corpus(str(path))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": ROWS, "b": ROWS}, r"must hold one array, or train, valid and test; found \['a', 'b'\]"),
        (
            {"train": ROWS, "valid": ROWS[:, :4], "test": ROWS},
            r"must agree in dimensions and width, found train \(30, 5\)",
        ),
        ({"train": ROWS, "valid": ROWS[:0], "test": ROWS}, r"a\.npz: valid: must not be empty"),
        ({"meta": ROWS}, "not a corpus that save_corpus wrote"),
    ],
)
def test_a_broken_npz_is_told(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_corpus(str(tmp_path / "a.npz"))


def test_many_rows_are_read_fast(tmp_path):
    path = save(tmp_path / "a.npy", RNG.random((100_000, 64), np.float32))
    start = time.process_time()
    corpus = load_corpus(path)
    assert time.process_time() - start < 5
    assert [len(split.values) for split in corpus.splits.values()] == [80_000, 10_000, 10_000]


def test_many_rolls_are_read_fast(tmp_path):
    path = save(tmp_path / "a.npy", (RNG.random((50_000, 16, 88), np.float32) < 0.05).astype(np.uint8))
    start = time.process_time()
    load_corpus(path)
    assert time.process_time() - start < 10
