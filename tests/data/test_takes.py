from itertools import pairwise

import pytest

from anymodal.data.takes import take_of


@pytest.mark.parametrize(
    "names",
    [
        ["fluidr3__Accordian_C5_L_.ogg", "fluidr3__Accordian_C5_R_.ogg"],
        ["C4.L.wav", "C4.R.wav"],
        ["C4_left.wav", "C4_right.wav"],
        ["piano (L) 3.wav", "piano (R) 3.wav"],
        ["L.wav", "R.wav"],
        ["trumpet_G4-chunk0.ogg", "trumpet_G4-chunk11.ogg"],
        ["solo part 1.mp3", "solo part 2.mp3"],
        ["C4.wav", "C4 - Copy.wav", "C4 - Copy (2).wav"],
        ["C4.wav", "C4.mp3"],
    ],
)
def test_one_take(names):
    assert len({take_of(f"audio/piano/{name}") for name in names}) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["C4.wav", "C5.wav"],
        ["C4_L.wav", "C5_R.wav"],
        ["Rhodes.wav", "Lhodes.wav"],
        ["guitar (1).wav", "guitar (2).wav"],
        ["chunk1.wav", "chunk2.wav"],
        ["brighter.wav", "lefter.wav"],
        ["C4.wav", "C4_L.wav"],
        ["C4.2.wav", "C4.3.wav"],
        ["a/C4_L.wav", "b/C4_R.wav"],
    ],
)
def test_separate_takes(names):
    for one, two in pairwise(names):
        assert take_of(f"audio/piano/{one}") != take_of(f"audio/piano/{two}")
