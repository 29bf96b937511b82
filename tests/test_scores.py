import zipfile

import pytest

from vae.encoding import encode
from vae.errors import UserError
from vae.library import read_files
from vae.scores import chorales, read_score

ABC = "X:1\nT:one\nM:3/4\nL:1/4\nQ:1/4=90\nK:C\n|:CDE|F2-F|{g}A3:|\n\nX:2\nT:two\nM:4/4\nL:1/4\nK:G\nGABc|\n"


def musicxml(*parts: tuple[str, str | list[str]]) -> str:
    """A score in 4/4, a division a beat; the parts' names and notes, of one bar or of several."""
    listed = "".join(
        f'<score-part id="P{i}"><part-name>{name}</part-name></score-part>' for i, (name, _) in enumerate(parts)
    )
    attributes = (
        "<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
    )
    bars = ""
    for i, (_, music) in enumerate(parts):
        first, *others = [music] if isinstance(music, str) else music
        measures = [attributes + first, *others]
        bars += f'<part id="P{i}">{"".join(f"<measure>{notes}</measure>" for notes in measures)}</part>'
    return f'<?xml version="1.0"?><score-partwise version="4.0"><part-list>{listed}</part-list>{bars}</score-partwise>'


def note(step: str, octave: int, beats: int = 1, extra: str = "") -> str:
    pitch = f"<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
    return f"<note>{pitch}<duration>{beats}</duration>{extra}</note>"


def test_an_abc_file_holds_several_songs(tmp_path):
    path = tmp_path / "tunes.abc"
    path.write_text(ABC)
    one, two = read_score(path, 4)
    assert (one.name, two.name) == ("tunes 1", "tunes 2")
    # The tie is merged, the grace note dropped, the repeat not expanded.
    assert one.notes.tolist() == [[60, 0, 4], [62, 4, 8], [64, 8, 12], [65, 12, 24], [69, 24, 36]]
    assert (one.tempo, one.steps_per_bar) == (90, 12)
    assert (two.tempo, two.steps_per_bar) == (120, 16)
    assert two.notes[:, 0].tolist() == [67, 69, 71, 72]


def test_a_jig_stays_in_six_eight(tmp_path):
    path = tmp_path / "jig.abc"
    path.write_text("X:1\nT:jig\nM:6/8\nL:1/8\nK:G\nGAB cBA|GAB c3|\n")
    (song,) = read_score(path, 4)
    assert (song.steps_per_bar, song.beat_type) == (12, 8)


def test_tied_notes_are_one_and_percussion_is_left_out(tmp_path):
    path = tmp_path / "score.musicxml"
    place = "<display-step>E</display-step><display-octave>4</display-octave>"
    drum = f"<note><unpitched>{place}</unpitched><duration>4</duration></note>"
    tied = note("C", 4, 2, '<tie type="start"/>') + note("C", 4, 1, '<tie type="stop"/>') + note("C", 4, 1)
    path.write_text(musicxml(("Piano", tied), ("Drums", drum)))
    (song,) = read_score(path, 2)
    assert song.notes.tolist() == [[60, 0, 6], [60, 6, 8]]


def rest(beats: int) -> str:
    return f"<note><rest/><duration>{beats}</duration></note>"


FULL = note("C", 4, 4)
TIED = ('<notations><tied type="start"/></notations>', '<notations><tied type="stop"/></notations>')


def metronome(per_minute: str) -> str:
    stated = f"<beat-unit>half</beat-unit><per-minute>{per_minute}</per-minute>"
    return f"<direction><direction-type><metronome>{stated}</metronome></direction-type></direction>"


def test_a_tie_that_is_only_drawn_ties(tmp_path):
    path = tmp_path / "score.xml"
    path.write_text(musicxml(("Flute", [note("C", 4, 4, TIED[0]), note("C", 4, 4, TIED[1])])))
    (song,) = read_score(path, 1)
    assert song.notes.tolist() == [[60, 0, 8]]


def test_a_tie_across_the_staves_of_a_piano_ties(tmp_path):
    path = tmp_path / "score.xml"
    upper = note("C", 4, 4, '<tie type="start"/><staff>1</staff>')
    lower = note("C", 4, 4, '<tie type="stop"/><staff>2</staff>')
    path.write_text(musicxml(("Piano", ["<attributes><staves>2</staves></attributes>" + upper, lower])))
    (song,) = read_score(path, 1)
    assert song.notes.tolist() == [[60, 0, 8]]


def test_cue_notes_are_rests(tmp_path):
    """The notes of another player, in small print."""
    path = tmp_path / "score.xml"
    cue = note("D", 5, 2, "<cue/>") + note("F", 5, 2, "<chord/><cue/>")
    path.write_text(musicxml(("Flute", note("C", 4, 1) + cue + note("C", 4, 1))))
    (song,) = read_score(path, 1)
    assert song.notes.tolist() == [[60, 0, 1], [60, 3, 4]]


@pytest.mark.parametrize(("stated", "tempo"), [("33", 66), ("c. 30", 60), ("30-36", 66), ("fast", 120)])
def test_a_tempo_may_stand_in_a_part_that_is_left_out_and_in_words(tmp_path, stated, tempo):
    path = tmp_path / "score.xml"
    place = "<display-step>E</display-step><display-octave>4</display-octave>"
    drum = f"<note><unpitched>{place}</unpitched><duration>4</duration></note>"
    channel = '<midi-instrument id="I0"><midi-channel>10</midi-channel><midi-program>1</midi-program></midi-instrument>'
    kit = f'<score-instrument id="I0"><instrument-name>Kit</instrument-name></score-instrument>{channel}'
    score = musicxml(("Drums", metronome(stated) + drum), ("Flute", FULL))
    path.write_text(score.replace("Drums</part-name>", f"Drums</part-name>{kit}"))
    (song,) = read_score(path, 1)
    assert (song.tempo, len(song.notes)) == (tempo, 1)


def test_a_compressed_score_is_read_whatever_it_is_called(tmp_path):
    for name in ("score.mxl", "score.xml"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("META-INF/container.xml", "<container/>")
            archive.writestr("inner.xml", musicxml(("Flute", FULL)))
        (song,) = read_score(tmp_path / name, 1)
        assert song.notes.tolist() == [[60, 0, 4]]


_SCORE, _OTHER = '<rootfile full-path="b/Score.XML"/>', '<rootfile full-path="a.xml"/>'


@pytest.mark.parametrize("space", ["", ' xmlns="urn:oasis:names:tc:opendocument:xmlns:container"'])
def test_of_a_compressed_score_that_is_read_which_its_container_names_first(tmp_path, space):
    with zipfile.ZipFile(tmp_path / "score.mxl", "w") as archive:
        archive.writestr("a.xml", "<settings/>")
        archive.writestr("b/Score.XML", musicxml(("Flute", FULL)))
        rootfiles = f"<rootfiles>{_SCORE}{_OTHER}</rootfiles>"
        archive.writestr("META-INF/container.xml", f"<container{space}>{rootfiles}</container>")
    (song,) = read_score(tmp_path / "score.mxl", 1)
    assert song.notes.tolist() == [[60, 0, 4]]


@pytest.mark.parametrize("container", [f"<container>{_OTHER}</container>", "<container", None])
def test_a_compressed_score_is_found_without_its_container(tmp_path, container):
    with zipfile.ZipFile(tmp_path / "score.mxl", "w") as archive:
        archive.writestr("__MACOSX/b/._Score.xml", "no score")
        if container is not None:
            archive.writestr("META-INF/container.xml", container)
        archive.writestr("b/Score.XML", musicxml(("Flute", FULL)))
    (song,) = read_score(tmp_path / "score.mxl", 1)
    assert song.notes.tolist() == [[60, 0, 4]]


@pytest.mark.parametrize("odd", [note("E", 4, 4) + rest(1), note("E", 4, 2), note("E", 4, 4) + rest(4)])
def test_a_bar_that_is_not_well_filled_shifts_no_part(tmp_path, odd):
    path = tmp_path / "score.xml"
    path.write_text(musicxml(("Violin", [FULL, odd, note("D", 5, 4)]), ("Cello", [FULL, FULL, note("D", 3, 4)])))
    (song,) = read_score(path, 1)
    assert [start for pitch, start, _ in song.notes.tolist() if pitch in (50, 74)] == [8, 8]


def test_a_bar_is_as_long_as_in_most_parts(tmp_path):
    path = tmp_path / "score.xml"
    parts = [("Violin", [FULL, note("E", 4, 2), FULL]), ("Viola", [FULL, note("G", 4, 2), FULL])]
    path.write_text(musicxml(*parts, ("Cello", [FULL, FULL, note("D", 3, 4)])))
    (song,) = read_score(path, 1)
    assert [50, 6, 10] in song.notes.tolist()


def test_an_upbeat_ends_with_the_first_bar_of_all_parts(tmp_path):
    path = tmp_path / "score.xml"
    path.write_text(musicxml(("Violin", [note("G", 4), FULL]), ("Cello", [rest(3) + note("G", 3), FULL])))
    (song,) = read_score(path, 1)
    assert [note for note in song.notes.tolist() if note[0] in (55, 67)] == [[55, 3, 4], [67, 3, 4]]


@pytest.mark.parametrize("first", [note("G", 4), rest(3) + note("G", 4)])
def test_bars_begin_at_multiples_of_their_length(tmp_path, first):
    """Whether an upbeat is a short bar, or a whole one that begins with rests."""
    path = tmp_path / "score.xml"
    path.write_text(musicxml(("Piano", [first, FULL, FULL])))
    (song,) = read_score(path, 2)
    assert song.notes.tolist() == [[67, 6, 8], [60, 8, 16], [60, 16, 24]]


def test_an_upbeat_of_a_tune_ends_its_first_bar(tmp_path):
    path = tmp_path / "jig.abc"
    path.write_text("X:1\nM:6/8\nL:1/8\nK:C\nG|c3 d3|e6|\n")
    (song,) = read_score(path, 2)
    assert song.notes.tolist() == [[67, 5, 6], [72, 6, 9], [74, 9, 12], [76, 12, 18]]


def test_silent_bars_before_the_music_are_left_out(tmp_path):
    path = tmp_path / "score.xml"
    path.write_text(musicxml(("Piano", [rest(4), rest(4), rest(2) + note("G", 4, 2)])))
    (song,) = read_score(path, 1)
    assert song.notes.tolist() == [[67, 2, 4]]


def test_a_tune_that_cannot_be_read_does_not_take_others_with_it(tmp_path):
    path = tmp_path / "tunes.abc"
    path.write_text(ABC + "\nX:3\nT:silent\nM:4/4\nL:1/4\nK:G\nzzzz|\n")
    one, two, silent = read_score(path, 4)
    assert (one.name, two.name) == ("tunes 1", "tunes 2")
    assert silent == "tunes 3 (no notes between pitch 21 and 108 (piano range); it has no notes at all)"
    songs, skipped, missed = read_files([path], 4, "reading")
    assert ([song.name for song in songs], skipped, missed) == (["tunes 1", "tunes 2"], [], [silent])


def test_of_chorales_voices_are_taken_without_the_instruments_that_double_them(tmp_path):
    """Of other scores all parts, even if they have the voices too."""
    path = tmp_path / "cantata.xml"
    voices = [("Soprano", 5), ("Alto", 4), ("Tenor", 4), ("Bass", 3)]
    parts = [("Horn 1", note("E", 5, 4)), *((name, note("C", octave, 4)) for name, octave in voices)]
    path.write_text(musicxml(*parts))
    (chorale,) = read_score(path, 1, voices=True)
    assert chorale.notes[:, 0].tolist() == [48, 60, 72]
    (song,) = read_score(path, 1)
    assert song.notes[:, 0].tolist() == [48, 60, 72, 76]


@pytest.mark.parametrize("text", ["", "no score at all", "<html></html>", "<score-partwise><part"])
@pytest.mark.parametrize("suffix", [".xml", ".mxl", ".abc"])
def test_a_broken_score_is_told_in_one_line(tmp_path, text, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"broken\{suffix}: (not a score|no notes)") as caught:
        read_score(path, 4)
    assert "\n" not in str(caught.value)


def test_reading_in_processes_gives_what_reading_here_gives():
    paths = sorted(set(chorales()))[:16]
    parallel, skipped, missed = read_files(paths, 4, "reading", voices=True)
    assert not skipped
    assert not missed
    first, last = read_score(paths[0], 4, voices=True), read_score(paths[-1], 4, voices=True)
    for song, (expected,) in ((parallel[0], first), (parallel[-1], last)):
        assert song.notes.tolist() == expected.notes.tolist()
    assert all(encode(song, "roll").sum(axis=1).max() <= 4 for song in parallel)
