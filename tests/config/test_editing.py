"""params.yaml keeps its comments, order and spelling when values are set."""

import difflib

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.config.editing import set_values
from anymodal.config.params import TranslateParams, load_params
from anymodal.core.errors import AnymodalError
from helpers.paths import ROOT

FILE = """\
# all of it
seed: 3   # mine

translate:      # two MLPs
  hidden: 256   # wide
  # the paper's
  margin: 1.0
  loss: 'hinge'

  learning_rate: 1.0e-3
classify: {trees: 100, max_depth: null}   # one line
"""


def write(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode())
    return path


def changed_lines(before, after):
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in lines if line[0] in "+-"]


def test_values_change_and_comments_stay(tmp_path):
    path = write(tmp_path, FILE)
    values = {"hidden": 512, "loss": "infonce", "learning_rate": 0.00025, "depth": 3}
    old = set_values(path, "translate", values)
    assert old == {"hidden": 256, "loss": "hinge", "learning_rate": 0.001, "depth": 2}
    text = path.read_text()
    for line in (
        "# all of it",
        "seed: 3   # mine",
        "translate:      # two MLPs",
        "  # the paper's",
    ):
        assert line in text.splitlines()
    assert load_params(path).translate.model_dump(include=set(values)) == values


def test_a_flow_section_and_null(tmp_path):
    path = write(tmp_path, FILE)
    old = set_values(path, "classify", {"max_depth": 8, "trees": 50, "min_leaf": 2})
    assert old == {"max_depth": None, "trees": 100, "min_leaf": 1}
    set_values(path, "classify", {"max_depth": None})
    assert "{trees: 50, max_depth: null, min_leaf: 2} # one line" in path.read_text()


@pytest.mark.parametrize("text", ["", "# nothing\n", "seed: 1", "translate: {}  # later\n"])
def test_missing_and_empty_sections(tmp_path, text):
    path = write(tmp_path, text)
    set_values(path, "translate", {"hidden": 8, "weight_decay": 0.00001})
    params = load_params(path)
    assert (params.translate.hidden, params.translate.weight_decay) == (8, 0.00001)
    assert ("seed: 1" in text) == ("seed: 1" in path.read_text())


def test_windows_line_ends_and_unicode_stay(tmp_path):
    path = write(tmp_path, "# Größe\r\ntranslate:\r\n  hidden: 256\r\n")
    set_values(path, "translate", {"hidden": 128, "depth": 3})
    expected = "# Größe\r\ntranslate:\r\n  hidden: 128\r\n  depth: 3\r\n"
    assert path.read_bytes().decode() == expected


@pytest.mark.parametrize("values", [{"hidden": -1}, {"depht": 3}, {"loss": "other"}])
def test_invalid_values_change_nothing(tmp_path, values):
    path = write(tmp_path, FILE)
    with pytest.raises(AnymodalError, match=f"translate.{next(iter(values))}") as caught:
        set_values(path, "translate", values)
    assert "\n" not in str(caught.value)
    assert path.read_text() == FILE


def test_the_projects_own_file(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    path = write(tmp_path, text)
    now = load_params(path).translate
    set_values(path, "translate", {n: getattr(now, n) for n in TranslateParams.model_fields})
    assert path.read_text() == text
    set_values(path, "translate", {"margin": 0.3125})
    assert changed_lines(text, path.read_text()) == ["-   margin: 1.0", "+   margin: 0.3125"]


@settings(max_examples=40, deadline=None)
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "hidden": st.integers(1, 4096),
            "margin": st.floats(1e-6, 1e6),
            "learning_rate": st.floats(1e-9, 1.0),
            "same_class_negatives": st.booleans(),
        },
    )
)
def test_any_valid_value_reads_back(tmp_path_factory, values):
    path = write(tmp_path_factory.mktemp("project"), FILE)
    set_values(path, "translate", values)
    before = yaml.safe_load(FILE)
    expected = {**before, "translate": {**before["translate"], **values}}
    assert yaml.safe_load(path.read_text()) == expected
