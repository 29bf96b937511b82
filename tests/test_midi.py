import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import symusic
from hypothesis import given
from hypothesis import strategies as st
from music import songs, tune

from vae.errors import UserError
from vae.grid import median_tempo
from vae.midi import read_midi, to_pretty_midi, write_midi

STRIKE = b"\x90\x3c\x50"  # middle C
RELEASE = b"\x90\x3c\x00"
END = b"\x00\xff\x2f\x00"


def track(*events: bytes) -> bytes:
    body = b"".join(events) + END
    return b"MTrk" + struct.pack(">I", len(body)) + body


def midi(*tracks: bytes, kind: int = 1, ticks: int = 4) -> bytes:
    return b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), ticks) + b"".join(tracks)


def read(folder: Path, data: bytes, steps_per_beat: int = 4):
    path = folder / "tune.mid"
    path.write_bytes(data)
    return read_midi(path, steps_per_beat)


@given(song=songs(), steps_per_beat=st.integers(1, 24))
def test_a_song_survives_a_midi_file(tmp_path_factory, song, steps_per_beat):
    first_beat = song.notes - [0, song.notes[0, 1], song.notes[0, 1]]
    path = tmp_path_factory.mktemp("midi") / "song.mid"
    write_midi(first_beat, path, song.tempo, steps_per_beat, "a song")
    (again,) = read_midi(path, steps_per_beat)
    assert np.array_equal(again.notes, first_beat)
    assert again.steps == first_beat[:, 2].max()
    assert again.tempo == pytest.approx(song.tempo, rel=1e-3)
    assert again.steps_per_bar == 4 * steps_per_beat


def test_the_same_notes_give_the_same_bytes_and_a_title(tmp_path):
    for name in ("a.mid", "b.mid"):
        write_midi(tune(1), tmp_path / name, 97.0, 4, "Préludé ♪")
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()
    assert "Préludé ?".encode("latin-1") in (tmp_path / "a.mid").read_bytes()[:60]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.mid", "b.mid"]  # no scratch file left


@pytest.mark.parametrize(
    ("steps_per_bar", "beat_type", "metre"),
    [
        *((None, 4, (4, 4)), (16, 4, (4, 4)), (12, 4, (3, 4)), (14, 4, (7, 8)), (1, 4, (1, 16))),
        *((12, 8, (6, 8)), (24, 8, (12, 8)), (16, 2, (2, 2)), (12, 2, (3, 4))),
    ],
)
def test_the_metre_is_written(tmp_path, steps_per_bar, beat_type, metre):
    write_midi(tune(1), tmp_path / "a.mid", 120.0, 4, "a", steps_per_bar, beat_type)
    score = symusic.Score(tmp_path / "a.mid")
    assert [(sign.numerator, sign.denominator) for sign in score.time_signatures] == [metre]
    assert [part.program for part in score.tracks] == [0]  # a piano


def test_a_metre_that_midi_cannot_state_becomes_common_time():
    signs = to_pretty_midi(tune(1), 120.0, 3, "a", steps_per_bar=10).time_signature_changes
    assert [(sign.numerator, sign.denominator) for sign in signs] == [(4, 4)]


def test_audio_lasts_as_long_as_the_notes():
    assert to_pretty_midi(tune(1), 120.0, 4, "a").get_end_time() == pytest.approx(24 * 0.5)


def test_a_change_of_tempo_does_not_bend_the_grid(tmp_path):
    write_midi(tune(1), tmp_path / "a.mid", 60.0, 4, "a")
    score = symusic.Score(tmp_path / "a.mid")
    score.tempos.append(symusic.Tempo(score.tpq, qpm=200))
    score.dump_midi(tmp_path / "b.mid")
    (song,) = read_midi(tmp_path / "b.mid", 4)
    assert np.array_equal(song.notes, tune(1))
    assert song.tempo == pytest.approx(200, abs=0.01)


def test_tempo_is_the_median_over_time():
    assert median_tempo([(0, 60.0), (1, 240.0)], 9) == 240  # 1 s against 2 s
    assert median_tempo([(0, 60.0), (1, 240.0)], 4) == 60
    assert median_tempo([(0, 60.0), (5, 240.0)], 5) == 60
    assert median_tempo([(0, 60.0)], 0) == 60


@pytest.mark.parametrize("micros", [b"\x00\x00\x00", b"\x00\x00\x01", b"\xff\xff\xff"])
def test_an_absurd_tempo_becomes_the_default(tmp_path, micros):
    (song,) = read(tmp_path, midi(track(b"\x00\xff\x51\x03" + micros, b"\x00" + STRIKE, b"\x04" + RELEASE)))
    assert song.tempo == 120


def test_times_are_rounded_and_a_short_note_keeps_a_step(tmp_path):
    events = [b"\x00" + STRIKE, b"\x01" + RELEASE, b"\x06" + STRIKE, b"\x09" + RELEASE]  # ticks 0-1 and 7-16
    (song,) = read(tmp_path, midi(track(*events), ticks=16))
    assert song.notes.tolist() == [[60, 0, 1], [60, 2, 4]]


def test_whole_beats_of_silence_are_left_out(tmp_path):
    (song,) = read(tmp_path, midi(track(b"\x0e" + STRIKE, b"\x04" + RELEASE)))  # tick 14: beat 3 and a half
    assert song.notes.tolist() == [[60, 2, 6]]


def test_bars_begin_at_multiples_of_their_length(tmp_path):
    """After a rest, and after an upbeat that is a bar of its own metre; silent bars are left out."""
    four, one = b"\xff\x58\x04\x04\x02\x18\x08", b"\xff\x58\x04\x01\x02\x18\x08"
    music = [b"\x00" + STRIKE, b"\x04" + RELEASE, b"\x00" + STRIKE, b"\x20" + RELEASE]
    rests = read(tmp_path, midi(track(b"\x00" + four, b"\x1c" + STRIKE, *music[1:])))  # tick 28: a bar and 3 beats
    upbeat = read(tmp_path, midi(track(b"\x00" + one, *music[:2], b"\x00" + four, *music[2:])))
    for (song,) in (rests, upbeat):
        assert (song.notes.tolist(), song.steps_per_bar) == ([[60, 12, 16], [60, 16, 48]], 16)


def test_a_bar_that_is_no_whole_number_of_steps_keeps_the_beats(tmp_path):
    three_eighths = b"\x00\xff\x58\x04\x03\x03\x18\x08"
    (song,) = read(tmp_path, midi(track(three_eighths, b"\x0e" + STRIKE, b"\x04" + RELEASE)), 1)
    assert (song.notes.tolist(), song.steps_per_bar) == ([[60, 0, 1]], None)


def test_a_song_ends_with_its_last_note_though_another_of_its_key_cuts_it(tmp_path):
    held, struck = track(b"\x00" + STRIKE, b"\x60" + RELEASE), track(b"\x08" + STRIKE, b"\x04" + RELEASE)
    (song,) = read(tmp_path, midi(held, struck))
    assert song.notes.tolist() == [[60, 0, 8], [60, 8, 96]]
    assert song.steps == 96


def test_pitches_beyond_the_piano_are_counted(tmp_path):
    events = [b"\x00\x90\x05\x50", b"\x04\x90\x05\x00", b"\x00" + STRIKE, b"\x04" + RELEASE]
    (song,) = read(tmp_path, midi(track(*events)))
    assert (song.notes.tolist(), song.out_of_range) == ([[60, 0, 4]], 1)


def test_the_metre_that_holds_longest_counts(tmp_path):
    three, four = b"\x00\xff\x58\x04\x03\x02\x18\x08", b"\x04\xff\x58\x04\x04\x02\x18\x08"
    (song,) = read(tmp_path, midi(track(three, four, b"\x00" + STRIKE, b"\x60" + RELEASE)))
    assert (song.steps_per_bar, song.beat_type) == (16, 4)
    (coarse,) = read(
        tmp_path, midi(track(b"\x00\xff\x58\x04\x03\x03\x18\x08" + b"\x00" + STRIKE, b"\x60" + RELEASE)), 1
    )
    assert coarse.steps_per_bar is None  # 3/8 is a beat and a half


def test_a_metre_that_no_number_holds_is_left_out(tmp_path):
    absurd = b"\x00\xff\x58\x04\x04\x08\x18\x08"  # 4/256
    (song,) = read(tmp_path, midi(track(absurd, b"\x00" + STRIKE, b"\x60" + RELEASE)))
    assert (song.notes.tolist(), song.steps_per_bar) == ([[60, 0, 96]], None)


def test_tracks_of_a_type_2_file_are_songs(tmp_path):
    note = [b"\x00" + STRIKE, b"\x04" + RELEASE]
    drums = track(b"\x00\x99\x23\x50", b"\x04\x99\x23\x00")
    one, drummed, two = read(tmp_path, midi(track(*note), drums, track(*note, *note), kind=2))
    assert [(song.name, len(song.notes)) for song in (one, two)] == [("tune track 1", 1), ("tune track 3", 2)]
    assert drummed == "tune track 2 (no notes between pitch 21 and 108 (piano range); all 1 notes are percussion)"


def test_a_file_that_is_wrapped_is_read(tmp_path):
    data = midi(track(b"\x00" + STRIKE, b"\x04" + RELEASE))
    wrapped = b"RIFF" + struct.pack("<I", len(data) + 12) + b"RMIDdata" + struct.pack("<I", len(data)) + data + b"\x00"
    (song,) = read(tmp_path, wrapped)
    assert song.notes.tolist() == [[60, 0, 4]]


LONG = b"\xff\xff\xff\x7f"  # 268,435,455 ticks
BROKEN = {
    "empty": (b"", r"tune\.mid: not MIDI: the file is empty\. Pass"),
    "text": (b"hello, this is no music", r"tune\.mid: not MIDI: no MThd at its start"),
    "cut": (midi(track(b"\x00" + STRIKE))[:-6], r"tune\.mid: broken MIDI: it ends too early\. Fetch or export it anew"),
    "cut in a head": (midi(track(), track())[:-9], r"tune\.mid: broken MIDI: it ends too early"),
    "cut in the first head": (midi()[:9], r"tune\.mid: broken MIDI: it ends too early"),
    "film time": (midi(track(), ticks=0xE728), r"tune\.mid: not MIDI: Division type is not ticks per quarter"),
    "no ticks": (midi(track(b"\x00" + STRIKE, b"\x04" + RELEASE), ticks=0), "not MIDI: 0 ticks per quarter"),
    "no notes": (midi(track()), r"no notes between pitch 21 and 108 \(piano range\); it has no notes at all"),
    "drums": (midi(track(b"\x00\x99\x23\x50", b"\x04\x99\x23\x00")), "all 1 notes are percussion"),
    "no length": (midi(track(b"\x00" + STRIKE, b"\x00" + RELEASE)), "all 1 notes have no length"),
    "too low": (midi(track(b"\x00\x90\x05\x50", b"\x04\x90\x05\x00")), "all 1 notes lie outside"),
    "too long": (midi(track(b"\x00" + STRIKE, LONG + RELEASE)), r"268,435,455 steps long, over 100,000\. Cut it"),
    "overflow": (midi(track(*[LONG + STRIKE, b"\x04" + RELEASE] * 9)), "a note starts before the file does"),
    "type 2 of nothing": (midi(kind=2), "a type 2 file without tracks"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_told_in_one_line(tmp_path, data, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, data)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(UserError, match=r"gone\.mid: cannot be opened: No such file"):
        read_midi(tmp_path / "gone.mid", 4)


READABLE = {
    "noteseq_example_is_drum": [38],
    "noteseq_melody": [12],
    "synth_tempo_zero": [8],
    "synth_type2_two_songs": [8, 8],
    "test_anacrusis": [6],
}


def test_awkward_files_are_read_or_refused(shared_data):
    for path in sorted((shared_data / "midi" / "awkward").iterdir()):
        if path.stem in READABLE:
            assert [len(song.notes) for song in read_midi(path, 4)] == READABLE[path.stem], path.name
        else:
            with pytest.raises(UserError, match=rf"{path.name}: ((not|broken) MIDI|no notes)"):
                read_midi(path, 4)


def test_real_songs_survive_writing(shared_data, tmp_path):
    for path in sorted((shared_data / "midi" / "cc0").glob("*.mid")):
        (song,) = read_midi(path, 4)
        write_midi(song.notes, tmp_path / path.name, song.tempo, 4, song.name)
        (again,) = read_midi(tmp_path / path.name, 4)
        shown = replace(again, tempo=song.tempo, steps_per_bar=song.steps_per_bar, out_of_range=song.out_of_range)
        assert np.array_equal(shown.notes, song.notes)
        assert shown.steps == song.steps
