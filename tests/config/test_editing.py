"""params.yaml is edited in place: the values asked for, and not one byte more."""

import difflib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.errors import AnymodalError
from anymodal.params import TranslateParams, load_params
from anymodal.params_file import edited, set_values

ROOT = Path(__file__).parent.parent
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
    old = set_values(
        path, "translate", {"hidden": 512, "loss": "infonce", "learning_rate": 0.00025}
    )
    assert old == {"hidden": 256, "loss": "hinge", "learning_rate": 0.001}
    assert path.read_text() == FILE.replace("256", "512").replace("'hinge'", "infonce").replace(
        "1.0e-3", "0.00025"
    )
    assert load_params(path).translate.learning_rate == 0.00025


def test_a_flow_section_and_null(tmp_path):
    path = write(tmp_path, FILE)
    assert set_values(path, "classify", {"max_depth": 8, "trees": 50}) == {
        "max_depth": None,
        "trees": 100,
    }
    set_values(path, "classify", {"max_depth": None})
    assert path.read_text() == FILE.replace("trees: 100", "trees: 50")


def test_names_that_the_file_does_not_have_are_added(tmp_path):
    path = write(tmp_path, FILE)
    assert set_values(path, "translate", {"depth": 3, "dropout": 0.5}) == {
        "depth": 2,
        "dropout": 0.0,
    }
    assert changed_lines(FILE, path.read_text()) == ["+   depth: 3", "+   dropout: 0.5"]
    set_values(path, "classify", {"min_leaf": 2})
    assert "classify: {min_leaf: 2, trees: 100" in path.read_text()


@pytest.mark.parametrize("text", ["", "# nothing\n", "seed: 1", "translate: {}  # later\n"])
def test_sections_that_are_not_there_or_empty(tmp_path, text):
    path = write(tmp_path, text)
    set_values(path, "translate", {"hidden": 8, "weight_decay": 0.00001})
    params = load_params(path)
    assert (params.translate.hidden, params.translate.weight_decay) == (8, 0.00001)
    for kept in ("# nothing", "seed: 1", "# later"):
        assert (kept in text) == (kept in path.read_text())


def test_windows_line_ends_and_other_letters_stay(tmp_path):
    text = "# Größe\r\ntranslate:\r\n  hidden: 256\r\n"
    path = write(tmp_path, text)
    set_values(path, "translate", {"hidden": 128, "depth": 3})
    expected = "# Größe\r\ntranslate:\r\n  depth: 3\r\n  hidden: 128\r\n"
    assert path.read_bytes().decode() == expected


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("retrieve: &x {top_k: 3}\ntranslate: {hidden: &h 4}\nclassify: {trees: *h}\n",
         {"hidden": 9}),
        ("translate:\n  hidden: 4\n", {"hidden": -1}),
        ("translate:\n  hidden: 4\n", {"depht": 3}),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_is_left_alone(tmp_path, text, values):
    path = write(tmp_path, text)
    with pytest.raises(AnymodalError, match="set by hand") as caught:
        set_values(path, "translate", values)
    assert "\n" not in str(caught.value)
    assert path.read_text() == text


def test_the_projects_own_file(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    path = write(tmp_path, text)
    now = load_params(path).translate
    set_values(path, "translate", {n: getattr(now, n) for n in TranslateParams.model_fields})
    assert path.read_text() == text
    set_values(path, "translate", {"margin": 0.3125})
    assert changed_lines(text, path.read_text()) == ["-   margin: 1.0", "+   margin: 0.3125"]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["hidden", "margin", "loss", "learning_rate", "depth", "device"]),
        st.one_of(
            st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(),
            st.none(), st.text("ab: #'\"-\\{}[]é", max_size=6),
        ),
        min_size=1,
    )
)  # fmt: skip
def test_any_value_reads_back_and_the_rest_is_as_it_was(values):
    text = edited(FILE, "translate", values)
    before, after = yaml.safe_load(FILE), yaml.safe_load(text)
    assert after == {**before, "translate": {**before["translate"], **values}}
    for line in ("# all of it", "seed: 3   # mine", "translate:      # two MLPs"):
        assert line in text.splitlines()
