import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vae.abc_text import tunes
from vae.encoding import Song
from vae.scores import read_score

HEADER = "X:1\nT:a\nM:4/4\nL:1/4\nK:C\n"


def read(folder, text: str) -> list[Song | str]:
    path = folder / "book.abc"
    path.write_text(text)
    return read_score(path, 1)


def notes(folder, music: str, header: str = HEADER) -> list[list[int]]:
    """Pitch, start and end in beats."""
    (song,) = read(folder, header + music)
    assert isinstance(song, Song)
    return song.notes.tolist()


def pitches(folder, music: str, header: str = HEADER) -> list[int]:
    return [pitch for pitch, _, _ in notes(folder, music, header)]


TWO_VOICES = [[48, 0, 4], [60, 0, 1], [62, 1, 2], [64, 2, 3], [65, 3, 4], [50, 4, 8], [67, 4, 8]]


@pytest.mark.parametrize(
    "music",
    [
        "V:1\nCDEF|G4|\nV:2\nC,4|D,4|\n",
        "V:1\nCDEF|\nV:2\nC,4|\nV:1\nG4|\nV:2\nD,4|\n",
        "V:T\nV:B clef=bass\nV:T\nCDEF|\nV:B\nC,4|\nV:T\nG4|\nV:B\nD,4|\n",
        "[V:S1]CDEF|\n[V:B]C,4|\n[V:S1]G4|\n[V:B]D,4|\n",
        "CDEF|G4|\nV:2\nC,4|D,4|\n",
    ],
    ids=["whole", "by systems", "named", "inline", "the first unnamed"],
)
def test_voices_sound_together(tmp_path, music):
    assert notes(tmp_path, music) == TWO_VOICES


def test_a_key_of_one_voice_is_none_of_the_next(tmp_path):
    assert pitches(tmp_path, "V:1\nF4|[K:D]F4|\nV:2\nF,4|F,4|\n") == [53, 65, 53, 66]
    assert pitches(tmp_path, "K:D\nV:1\nF4|\nV:2\nF,4|\n") == [54, 66]


def test_rests_that_are_not_shown_last_too(tmp_path):
    assert notes(tmp_path, "C4|Z2|xx2y2x|D4|X|D4|\n") == [[60, 0, 4], [62, 16, 20], [62, 24, 28]]
    waltz = "X:1\nM:3/4\nL:1/8\nK:C\n"
    assert notes(tmp_path, "C6|Z|D6|[M:2/4]Z|E4|\n", waltz) == [[60, 0, 3], [62, 6, 9], [64, 11, 13]]


def test_tunes_of_one_number_are_all_read(tmp_path):
    first, second = read(tmp_path, HEADER + "C4|\n\n" + HEADER + "D4|\n")
    assert (first.name, first.notes.tolist()) == ("book 1", [[60, 0, 4]])
    assert (second.name, second.notes.tolist()) == ("book 2", [[62, 0, 4]])


@pytest.mark.parametrize("odd", ["Q:Allegro", "M:free", "M:", "M:none", "L:1", "L:foo", "X:2a", "X:", "K:H"])
def test_an_odd_field_loses_no_tune(tmp_path, odd):
    number = "" if odd.startswith("X") else "X:2\n"
    songs = read(tmp_path, f"{HEADER}C4|\n\n{number}{odd}\nK:C\nL:1/4\nDEFG|\n\n{HEADER}E4|\n")
    assert [song.notes[0, 0] for song in songs] == [60, 62, 64]


def test_a_broken_tune_is_told_and_the_others_are_read(tmp_path):
    first, broken, last = read(tmp_path, f"{HEADER}C4|\n\n{HEADER}D[Bc|\n\n{HEADER}E4|\n")
    assert (first.notes.tolist(), last.notes.tolist()) == ([[60, 0, 4]], [[64, 0, 4]])
    assert broken.startswith("book 2 (not a score: ABCHandlerException Bad chord")


@given(st.text("XVKMLQZx:|[]&-/\"%{}!+^_='1289 \nABCabc"))
@example("Z" + "9" * 5000)
@example("M:" + "9" * 5000 + "/4")
@example("L:1/" + "9" * 5000)
def test_no_text_of_one_tune_loses_the_others(text):
    *_, (last,) = tunes(f"X:1\nK:C\n{text}\n\n{HEADER}C4|\n")
    assert last == "M:4/4\nL:1/4\nK:C\nC4|\n"


def test_without_metre_and_length_notes_are_eighths():
    assert tunes("X:1\nK:C\nCDEF|\n") == [["L:1/8\nK:C\nCDEF|\n"]]
    assert tunes("X:1\nM:2/4\nK:C\nCDEF|\n") == [["M:2/4\nL:1/16\nK:C\nCDEF|\n"]]


def test_the_head_of_a_book_holds_for_all_its_tunes():
    book = "%abc-2.1\nM:3/4\nL:1/4\n\nAbout this book.\n\nX:1\nK:C\nCDE|\n\nX:2\nM:C|\nK:G\nGAB|\n"
    assert tunes(book) == [["M:3/4\nL:1/4\nK:C\nCDE|\n"], ["M:2/2\nL:1/4\nK:G\nGAB|\n"]]


def test_text_between_tunes_is_not_played():
    book = f"{HEADER}C4|\n\nSome text about Georgia.\n%%begintext\n\nABC\n%%endtext\n\n{HEADER}D4|\n"
    assert [voice.splitlines()[3:] for (voice,) in tunes(book)] == [["C4|"], ["D4|"]]


@pytest.mark.parametrize("text", ["", "no score at all", "T:CDEF\n"])
def test_a_text_without_number_and_key_holds_no_tune(text):
    assert tunes(text) == []


@pytest.mark.parametrize(
    ("music", "expected"),
    [
        ("^FFGF|F4|", [66, 66, 67, 66, 65]),
        ("^Ff=FF|", [66, 78, 65, 65]),  # in all octaves, as the standard has it
        ("[^FA]2[FA]2|", [66, 69, 66, 69]),
        ("_B4-|B2B2|", [70, 71]),
        ("^F2-F2|F4|", [66, 65]),
        ("K:D\n=F2F2|F4|", [65, 65, 66]),
    ],
)
def test_accidentals_last_to_the_end_of_the_bar_or_of_the_tie(tmp_path, music, expected):
    assert pitches(tmp_path, music + "\n") == expected


def test_fields_within_a_line_count(tmp_path):
    assert pitches(tmp_path, "F4|[K:D]F4|\n") == [65, 66]
    assert notes(tmp_path, "C4|[L:1/2]D2|[r:a bad game]E2|[P:B]F2|\n")[1:] == [[62, 4, 8], [64, 8, 12], [65, 12, 16]]
    (song,) = read(tmp_path, HEADER + "[M:3/4][Q:1/4=80]C3|D3|\n")
    assert (song.steps_per_bar, song.tempo) == (3, 80)


@pytest.mark.parametrize(
    "music",
    [
        "|:CD::EF:|",
        '"Am7"CD"^slow, Eb"EF|',
        "C!trill!D+fermata+E{ag}F|",
        "~C.DuEvF|w",
        "CDEF&A4|",
        "CD\\\nm:~n2=ABC\nw:abc de\nEF| % and a cadence",
    ],
)
def test_what_makes_no_sound_is_left_out(tmp_path, music):
    assert pitches(tmp_path, music + "\n") == [60, 62, 64, 65]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        *(("G clef=bass", "G"), ("G bass", "G"), ("Ador", "G"), ("A Dorian", "G"), ("Am", "C"), ("Bb", "Bb")),
        *(("Ebminor", "Gb"), ("F# mix", "B"), ("B locrian", "C"), ("none", "C"), ("HP", "D"), ("C#", "C#"), ("", "C")),
        *(("clef=bass", "C"), ("bass", "C"), ("D exp _b", "D"), ("d mix % the key", "G")),
    ],
)
def test_a_key_is_read_without_its_clef(key, expected):
    assert tunes(f"X:1\nK:{key}\nC|\n") == [[f"L:1/8\nK:{expected}\nC|\n"]]


@pytest.mark.parametrize("metre", ["2+3/8", "(2+3)/8", " ( 2 + 3 ) / 8"])
def test_a_metre_of_parts_is_their_sum(metre):
    assert tunes(f"X:1\nM:{metre}\nK:C\nC|\n") == [["M:5/8\nL:1/16\nK:C\nC|\n"]]


@pytest.mark.parametrize(
    ("stated", "tempo"), [("3/8=100", 150), ('"Slow" 1/4=66', 66), ("90", 90), ("1/4 1/8=40", 60), ("1/4=c. 60", 120)]
)
def test_a_tempo_is_in_quarters(tmp_path, stated, tempo):
    (song,) = read(tmp_path, f"X:1\nM:4/4\nL:1/4\nQ:{stated}\nK:C\nCDEF|\n")
    assert song.tempo == tempo
