import shutil

import pandas as pd
import pytest

from anymodal.config.params import Params
from anymodal.core.errors import AnymodalError
from anymodal.core.storage import read_json, write_json, write_parquet, write_text
from anymodal.core.workspace import Workspace
from anymodal.report import build_report
from anymodal.report.inputs import ReportInputs
from helpers.results import report_inputs, write_results

PAIR = "musicnn_mtt+efficientnet_lite0"
FILES = {
    "dataset.json": "dataset",
    "selection.json": "select",
    f"retrieval/{PAIR}.json": "retrieve",
    f"projections/{PAIR}/training.json": "translate",
    "classification/results.json": "classify",
    "classification/calibration.json": "classify",
    "classification/predictions.parquet": "classify",
    "mixing/curve.json": "mixing",
    "mixing/curve.parquet": "mixing",
    "structure/structure.json": "structure",
    "cross_source/cross_source.json": "cross_source",
}
NO_DATASET = ("dataset.json", "selection.json", f"projections/{PAIR}/training.json")
MEASURED = [file for file in FILES if file.endswith(".json") and file not in NO_DATASET]


@pytest.fixture(scope="module")
def inputs():
    return report_inputs(seeds=2, audio=["musicnn_mtt"], per_class=4)


@pytest.fixture(scope="module")
def written(inputs, tmp_path_factory):
    return write_results(inputs, tmp_path_factory.mktemp("written"))


@pytest.fixture
def workspace(written, tmp_path):
    """A workspace to be changed."""
    shutil.copytree(written.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def test_what_was_written_is_read(inputs, written):
    read = ReportInputs.read(written)
    for name, value in vars(inputs).items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(getattr(read, name)[list(value)], value)
        elif name != "checks":
            assert getattr(read, name) == value, name
    assert [check.success for check in read.checks] == [True, True, False]


@pytest.mark.parametrize("content", [None, "{", "\x00\x01", '{"name": 3}'])
@pytest.mark.parametrize(("file", "stage"), FILES.items())
def test_a_missing_or_damaged_file_names_itself_and_its_stage(workspace, file, stage, content):
    path = workspace.artifacts / file
    path.unlink()
    if content is not None:
        write_text(path, content)
    with pytest.raises(AnymodalError) as error:
        build_report(workspace, Params())
    assert str(path) in str(error.value)
    when = "first" if content is None else "again"
    assert f"run `anymodal {stage}` {when}" in str(error.value)
    assert "\n" not in str(error.value)
    assert not workspace.report.exists()


@pytest.mark.parametrize("file", MEASURED)
@pytest.mark.parametrize("change", [{"dataset": "another"}, {"pairing": "clip"}])
def test_results_of_other_data_are_refused(workspace, file, change):
    path = workspace.artifacts / file
    write_json(path, read_json(path) | change)
    with pytest.raises(AnymodalError, match=f"run `anymodal {FILES[file]}` again"):
        ReportInputs.read(workspace)


def test_a_table_without_a_column_is_refused(workspace):
    table = pd.read_parquet(workspace.predictions).drop(columns=["seed"])
    write_parquet(workspace.predictions, table)
    with pytest.raises(AnymodalError, match="seed.*run `anymodal classify` again"):
        ReportInputs.read(workspace)


def test_data_checks_may_not_have_been_run(workspace):
    path = workspace.checks / "checks.json"
    write_json(path, {"results": [{"name": "a"}]})
    with pytest.raises(AnymodalError, match="run `anymodal check` again"):
        ReportInputs.read(workspace)
    path.unlink()
    assert ReportInputs.read(workspace).checks is None
