import pytest

from anymodal.report.palette import HEAT_TURN, PALETTE, SYSTEM_COLOURS
from helpers.contrast import blend, contrast

THEMES = (0, 1)


def test_contrast_of_known_colours():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#777777") == 1.0
    assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_text_reads_on_the_page(theme):
    colours = {name: values[theme] for name, values in PALETTE.items()}
    for name in ("ink", "muted", "translated"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    for name in set(SYSTEM_COLOURS.values()):
        assert contrast(colours[name], colours["paper"]) >= 3.0, name


@pytest.mark.parametrize("theme", THEMES)
def test_numbers_read_on_every_shade_of_the_matrix(theme):
    colours = {name: values[theme] for name, values in PALETTE.items()}
    for step in range(101):
        share = step / 100
        under = blend(colours["heat"], colours["paper"], share)
        text = colours["heat-high" if share > HEAT_TURN else "heat-low"]
        assert contrast(text, under) >= 4.4, (theme, share)


def test_a_light_colour_names_one_thing():
    light = [values[0] for values in PALETTE.values()]
    assert len(set(light)) == len(light)
