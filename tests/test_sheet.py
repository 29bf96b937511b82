"""vae.sheet: what the pictures show, and that the same samples give the same bytes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from vae.encoding import LOWEST_PITCH, PITCHES, DataSpec
from vae.sheet import PANELS, as_image, piano_roll_sheet

ROLL = DataSpec("roll", PITCHES, 4, 16, 100.0, 32, 640)
ROLL_ONSET = DataSpec("roll_onset", 2 * PITCHES, 4, None, 100.0, 32, 640)
BINARY = DataSpec("binary", 12, 1, None, 100.0, 32, 32)
REAL = DataSpec("real", 12, 1, None, 100.0, 1, 1)
UNIT = DataSpec("real", 12, 1, None, 100.0, 1, 1, unit_interval=True)


def samples_of(spec, n=5):
    generator = np.random.default_rng(0)
    if spec.is_binary:
        return (generator.random((n, spec.window, spec.features)) < 0.05).astype(np.uint8)
    return generator.random((n, 1, spec.features)).astype(np.float32)


@pytest.mark.parametrize("spec", [ROLL, ROLL_ONSET, BINARY, REAL, UNIT])
def test_the_same_samples_give_the_same_bytes(spec, tmp_path):
    samples = samples_of(spec)
    piano_roll_sheet(samples, spec, tmp_path / "one.png", "tunes")
    piano_roll_sheet(samples, spec, tmp_path / "two.png", "tunes")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_a_picture_names_no_date_and_no_version(tmp_path):
    piano_roll_sheet(samples_of(ROLL), ROLL, tmp_path / "one.png")
    data = (tmp_path / "one.png").read_bytes()
    assert data.count(b"tEXt") == 1
    assert b"tEXtSoftware\0music-vae-sweep" in data
    assert b"tIME" not in data


def test_names_are_text_and_no_formulas(tmp_path):
    for name, title in (("one.png", "cash"), ("two.png", r"$\cash$")):
        piano_roll_sheet(samples_of(ROLL), ROLL, tmp_path / name, title)
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_labels_are_text_and_no_formulas(tmp_path):
    piano_roll_sheet(samples_of(ROLL), ROLL, tmp_path / "one.png", labels={0: r"$\cash$"})
    assert (tmp_path / "one.png").exists()


@pytest.mark.parametrize("spec", [ROLL, REAL])
def test_the_image_is_the_file(spec, tmp_path):
    samples = samples_of(spec)
    piano_roll_sheet(samples, spec, tmp_path / "one.png")
    image = as_image(samples, spec)
    assert image.dtype == np.uint8
    assert np.array_equal(image, (imread(tmp_path / "one.png")[..., :3] * 255).round().astype(np.uint8))


def test_other_notes_give_another_picture():
    one = samples_of(ROLL)
    other = one.copy()
    other[3, 8:12, 40] = 1 - other[3, 8:12, 40]
    assert not np.array_equal(as_image(one, ROLL), as_image(other, ROLL))


def test_a_repeated_note_looks_unlike_a_long_one():
    long = np.zeros((1, 32, 2 * PITCHES), np.uint8)
    long[0, :8, 60 - LOWEST_PITCH] = 1
    repeated = long.copy()
    repeated[0, 4, PITCHES + 60 - LOWEST_PITCH] = 1
    assert not np.array_equal(as_image(long, ROLL_ONSET), as_image(repeated, ROLL_ONSET))


@pytest.mark.parametrize("steps", [32, 400, 900, 3000])
def test_a_note_of_one_step_is_seen_however_long_the_piece(steps):
    without = np.zeros((4, steps, PITCHES), np.uint8)
    without[:, :, [48 - LOWEST_PITCH, 72 - LOWEST_PITCH]] = 1
    samples = without.copy()
    samples[:, steps // 3, 60 - LOWEST_PITCH] = 1
    darker = (as_image(without, ROLL).astype(int) - as_image(samples, ROLL))[..., 0]
    panels = np.array_split(darker.max(axis=0), 4)
    assert all(columns.sum() > 150 for columns in panels)  # a pixel of navy has 232 less red than white


@pytest.mark.parametrize("spec", [ROLL, ROLL_ONSET])
def test_rules_of_long_pieces_leave_room_between(spec):
    image = as_image(np.zeros((4, 3000, spec.features), np.uint8), spec)
    assert (image.min(axis=2) > 240).mean() > 0.8


def test_transposing_by_an_octave_moves_labels_alone():
    low = np.zeros((1, 32, PITCHES), np.uint8)
    low[0, ::4, 50 - LOWEST_PITCH] = 1
    low[0, ::4, 62 - LOWEST_PITCH] = 1
    difference = (as_image(low, ROLL) != as_image(np.roll(low, 12, axis=2), ROLL)).any(axis=2)
    columns = np.flatnonzero(difference.any(axis=0))
    assert len(columns)
    assert columns.max() < 0.1 * difference.shape[1]  # "C3" has become "C4" at the left edge


def test_samples_beyond_the_last_panel_are_left_out():
    samples = samples_of(ROLL, PANELS + 3)
    assert np.array_equal(as_image(samples, ROLL), as_image(samples[:PANELS], ROLL))


@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("spec", [ROLL, BINARY, REAL])
def test_any_number_of_samples_fits(spec, n):
    height, width, channels = as_image(samples_of(spec, n), spec).shape
    assert channels == 3
    assert min(height, width) > 100


def test_silence_and_a_single_step_can_be_drawn():
    assert as_image(np.zeros((2, 32, PITCHES), np.uint8), ROLL).min() < 255
    assert as_image(np.ones((1, 1, PITCHES), np.uint8), ROLL).min() < 255


def most_yellow(image):
    """Pixels left of the colour bar in the colour of viridis's upper end."""
    return int((image[:, :900] == (253, 231, 36)).all(axis=2).sum())


def test_colours_of_real_data_span_its_range_unless_that_is_known():
    samples = samples_of(REAL)
    assert most_yellow(as_image(samples, REAL)) > 100
    assert most_yellow(as_image(samples / 4, REAL)) > 100
    assert most_yellow(as_image(samples / 4, UNIT)) == 0


def test_importing_loads_neither_matplotlib_nor_readers_of_music():
    heavy = "{'matplotlib', 'pretty_midi', 'symusic', 'music21'}"
    code = f"import sys, vae.sheet, vae.sample, vae.statistics; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert run.stdout.strip() == "[]"
