import pandas as pd
import pytest

from anymodal.errors import AnymodalError
from anymodal.report import build_report
from anymodal.report.evidence import read_evidence
from anymodal.storage import read_json, write_json, write_parquet, write_text

FILES = {
    "dataset.json": "dataset",
    "selection.json": "select",
    "retrieval/musicnn_msd+efficientnet_lite1.json": "retrieve",
    "classification/results.json": "classify",
    "classification/judge.json": "classify",
    "classification/predictions.parquet": "classify",
    "projections/musicnn_mtt+efficientnet_lite0/training.json": "translate",
}


@pytest.mark.parametrize(("file", "stage"), FILES.items())
def test_a_missing_file_names_itself_and_its_stage(copied, params, file, stage):
    workspace = copied
    (workspace.artifacts / file).unlink()
    with pytest.raises(AnymodalError) as error:
        build_report(workspace, params)
    assert str(workspace.artifacts / file) in str(error.value)
    assert f"run `anymodal {stage}` first" in str(error.value)
    assert "\n" not in str(error.value)
    assert not workspace.report.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "\x00\x01", '{"name": 3}'])
@pytest.mark.parametrize(("file", "stage"), FILES.items())
def test_a_spoilt_file_names_itself_and_its_stage(copied, file, stage, content):
    workspace = copied
    write_text(workspace.artifacts / file, content)
    with pytest.raises(AnymodalError) as error:
        read_evidence(workspace)
    assert str(workspace.artifacts / file) in str(error.value)
    assert f"run `anymodal {stage}` again" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("classification/results.json", "classify"),
        ("classification/judge.json", "classify"),
        ("retrieval/musicnn_mtt+efficientnet_lite2.json", "retrieve"),
    ],
)
@pytest.mark.parametrize("change", [{"dataset": "another"}, {"pairing": "clip"}])
def test_results_of_other_data_are_refused(copied, file, stage, change):
    workspace = copied
    path = workspace.artifacts / file
    write_json(path, {**read_json(path), **change})
    with pytest.raises(AnymodalError, match=f"run `anymodal {stage}` again"):
        read_evidence(workspace)


def test_predictions_without_a_column_are_refused(copied):
    workspace = copied
    path = workspace.classification / "predictions.parquet"
    write_parquet(path, pd.read_parquet(path).drop(columns=["seed"]))
    with pytest.raises(AnymodalError, match="lacks the column"):
        read_evidence(workspace)


@pytest.mark.parametrize(
    ("content", "passed"),
    [
        ({"ok": True, "results": [{"name": "a", "success": True}]}, [True]),
        ([{"expectation": "a", "passed": False}, {"check": "b", "ok": 1}], [False, True]),
        ({"checks": []}, []),
        ({"results": None}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_checks_of_any_shape(copied, content, passed):
    workspace = copied
    (workspace.checks / "checks.json").unlink()
    assert read_evidence(workspace).checks is None
    write_json(workspace.checks / "checks.json", content)
    assert [check.passed for check in read_evidence(workspace).checks] == passed
