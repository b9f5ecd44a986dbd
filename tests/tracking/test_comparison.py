"""Runs side by side: on a small store, and on a finished project's."""

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import yaml

from anymodal.cli import main
from anymodal.config.params import Params, TrackingParams
from anymodal.core.errors import AnymodalError
from anymodal.evaluation.classification import (
    ClassificationResult,
    ScoreInterval,
    SystemScore,
    ZeroShotShare,
)
from anymodal.evaluation.forests import ForestSettings
from anymodal.evaluation.retrieval import Directions, RetrievalResult, SeedDirections
from anymodal.tracking import comparison, metrics, store
from anymodal.tracking.metric_names import HEADLINE, LoggedMetrics, metric_name
from anymodal.tracking.pipeline_runs import (
    PIPELINE_VARIABLE,
    DatasetRef,
    close_pipeline,
    complete_pipeline,
    open_pipeline,
)
from anymodal.tracking.runs import stage_run

PAIRS = ("a+x", "b+x")
NAME = re.compile(r"[a-z][a-z0-9_]*/[A-Za-z0-9_-]+")
SURROUNDINGS = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def retrieval(pair, score, seeds=2):
    """The result of stage `retrieve`; the score of a seed is `score` ± 0.01."""
    audio, _, image = pair.partition("+")
    translation = [
        SeedDirections(seed=s, audio_to_image=score + 0.1 + off, image_to_audio=score - 0.1 + off)
        for s, off in zip(range(seeds), (-0.01, 0.01), strict=False)
    ]
    chance = Directions(audio_to_image=0.2, image_to_audio=0.3)
    return RetrievalResult(
        dataset="tones", pairing="class", pair=pair, audio=audio, image=image, top_k=30, n_audio=9,
        n_image=9, translation=tuple(translation), pca=chance, random=chance,
    )  # fmt: skip


def results(score):
    """The result of stage `classify`, with one system."""
    key = {"system": "MMT", "regime": "zero-shot", "target": "audio"}
    row = SystemScore(
        **key, mean=score, std=0.02, min=score, max=score, seeds=2, train_rows=8,
        train_rows_of_target=0, test_rows=8, classes=4, chance=0.25,
    )  # fmt: skip
    interval = ScoreInterval(**key, macro_f1=score, low=score - 0.1, high=None, groups=4)
    share = {"low": 0.8, "high": 1.0, "zero_shot": score, "best": 0.6, "best_system": "SMA"}
    return ClassificationResult(
        dataset="tones", pairing="class", pair="a+x", classes=("p", "q", "r", "s"),
        forest=ForestSettings(), summary=(row,), intervals=(interval,), comparisons=(),
        zero_shot_share={
            "audio": ZeroShotShare(share=0.9, **share), "image": ZeroShotShare(share=None, **share),
        },
        outcomes=(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(empty_store, tmp_path_factory):
    """A store with two pipelines of one dataset, one of another dataset, one that failed, and a
    stage that was started by hand."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in SURROUNDINGS:
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        (folder / "params.yaml").write_text(yaml.safe_dump({"seed": 0}))
        clips = folder / "clips.parquet"

        def pipeline(key, dataset, margin, score, pairs=PAIRS):
            params = Params.model_validate({"translate": {"margin": margin}})
            ref = DatasetRef(dataset, "class", clips)
            patch.setenv(PIPELINE_VARIABLE, key)
            for pair in pairs:
                with stage_run("retrieve", params, ref, pair) as run:
                    run.log_params({"pair": pair})
                    result = retrieval(pair, score if pair == "a+x" else 0.4)
                    run.log_metrics(metrics.of_retrieval(result).metrics)
            with stage_run("classify", params, ref, "a+x") as run:
                logged = metrics.of_classification(results(score))
                run.log_params(logged.params, headline=True)
                run.log_metrics(logged.metrics)
                run.log_metrics({"macro_f1_by_seed/MMT-zero-shot-audio": score}, step=0)

        pipeline("first", "tones", 1.0, 0.5)
        pipeline("second", "tones", 0.5, 0.7, pairs=PAIRS[:1])
        pipeline("third", "noises", 0.5, 0.9)
        patch.setenv(PIPELINE_VARIABLE, "broken")
        with pytest.raises(ValueError, match="boom"), stage_run("dataset", Params(), None):
            raise ValueError("boom")
        patch.delenv(PIPELINE_VARIABLE)
        with stage_run("check", Params(), DatasetRef("tones", "class", clips)) as run:
            run.log_metrics({"checks/failed": 0})
        yield folder


@pytest.fixture
def here(folder, monkeypatch):
    """Work in the store's folder."""
    for name in (*SURROUNDINGS, PIPELINE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.chdir(folder)
    yield TrackingParams()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def anymodal(monkeypatch, capsys):
    """Function that calls the command line."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["anymodal", "runs", *words])
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = end.code or 0
        shown = capsys.readouterr()
        return SimpleNamespace(code=code, out=shown.out, err=shown.err)

    return call


def test_names_have_one_slash():
    assert metric_name("macro_f1", "MMT", "zero-shot", "audio") == "macro_f1/MMT-zero-shot-audio"
    shown = metrics.of_classification(results(0.5))
    named = {name.removeprefix(HEADLINE) for name in shown.metrics}
    assert all(NAME.fullmatch(name) for name in named)
    assert "macro_f1_low/MMT-zero-shot-audio" in named
    assert "macro_f1_high/MMT-zero-shot-audio" not in named  # its end is not known
    assert "zero_shot_share/image" not in named
    assert set(shown.headlines) == {
        "macro_f1/MMT-zero-shot-audio", "macro_f1_sd/MMT-zero-shot-audio",
        "macro_f1_chance/audio", "zero_shot_share/audio",
    }  # fmt: skip


def test_retrieval_has_the_same_names_for_every_pair_and_its_spread():
    one, other = (metrics.of_retrieval(retrieval(p, 0.5)).metrics for p in PAIRS)
    assert set(one) == set(other)
    assert one["ndcg/mean"] == pytest.approx(0.5)
    assert one["ndcg/audio_to_image"] == pytest.approx(0.6)
    # of 0.49 and 0.51, n − 1
    assert one["ndcg_sd/mean"] == pytest.approx(0.02 / 2**0.5)
    assert one["ndcg_random/mean"] == pytest.approx(0.25)
    lone = metrics.of_retrieval(retrieval("a+x", 0.5, seeds=1)).metrics
    assert "ndcg_sd/mean" not in lone and lone["ndcg/mean"] == pytest.approx(0.49)
    assert metrics.over_seeds("ndcg", "mean", []) == {}


def test_the_newest_come_first_and_are_told_apart(here):
    found = comparison.find(here)
    assert [run.stage for run in found][:2] == ["check", "dataset"]
    assert found[0].commit == "" or len(found[0].code.rstrip("+")) == 7
    parents = comparison.find(here, "pipeline")
    assert [run.status for run in parents] == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    assert [run.dataset for run in parents] == ["", "noises", "tones", "tones"]
    assert len(comparison.find(here, "pipeline", finished=True)) == 3
    assert len(comparison.find(here, limit=2)) == 2
    assert comparison.find(here, "mixing") == []


def test_parents_compare_by_themselves(here):
    _, second, first = comparison.find(here, "pipeline", finished=True)
    shown = comparison.compare([second, first])
    # nothing else differs; the pair is one metric's label, not a difference
    assert shown.differing == {"translate.margin": ("0.5", "1.0")}
    assert shown.metrics["macro_f1/MMT-zero-shot-audio"] == (0.7, 0.5)
    assert shown.spreads["macro_f1/MMT-zero-shot-audio"] == (0.02, 0.02)
    assert shown.best["macro_f1/MMT-zero-shot-audio"] == {0}
    assert shown.cell("macro_f1/MMT-zero-shot-audio", 0) == "0.7000 ± 0.0200 *"
    assert not any("_sd/" in name for name in shown.metrics)
    assert second.params["classes"] == "4" and second.pair == "a+x"
    # a share of the run's own best score is no score
    assert "zero_shot_share/audio" not in shown.best


def test_runs_on_other_data_have_no_best(here):
    shown = comparison.compare(comparison.find(here, "pipeline", finished=True))
    assert shown.best == {} and "dataset (noises, tones)" in shown.note
    assert shown.differing["dataset"] == ("noises", "tones", "tones")


def test_pairs_compare_by_the_newest_run_of_each(here):
    found = comparison.find(here, "retrieve", finished=True)
    assert sorted(run.pair for run in found) == list(PAIRS)
    assert {run.dataset for run in found} == {"noises"}
    shown = comparison.compare(found)
    best = {shown.runs[i].pair for i in shown.best["ndcg/mean"]}
    assert best == {"a+x"}
    # chance is no score to be proud of
    assert "ndcg_random/mean" in shown.metrics and "ndcg_random/mean" not in shown.best


def test_equal_values_have_no_best_and_lower_losses_are_better(here):
    runs = comparison.find(here, "pipeline", finished=True)[1:]
    for run, loss, score in zip(runs, (0.2, 0.1), (0.5, 0.50001), strict=True):
        run.metrics.update({"valid_loss/mean": loss, "ndcg/mean": score})
    shown = comparison.compare(runs, ["valid_loss/*", "ndcg/mean"])
    assert shown.best == {"valid_loss/mean": {1}}
    lone = comparison.compare(runs[:1], ["valid_loss/*"])
    assert lone.best == {} and lone.differing == {}
    del runs[0].metrics["valid_loss/mean"]
    partly = comparison.compare(runs, ["valid_loss/*"])
    assert partly.cell("valid_loss/mean", 0) == "" and partly.best == {}


def test_runs_are_picked_by_the_beginning_of_their_id(here):
    first, second = comparison.find(here, "pipeline", finished=True)[:2]
    assert comparison.pick(here, [second.id, first.id[:12], second.id]) == [second, first]
    with pytest.raises(AnymodalError, match="no run 'zzz'"):
        comparison.pick(here, ["zzz"])
    with pytest.raises(AnymodalError, match="no run ''"):
        comparison.pick(here, [""])
    begin = next(c for c in "0123456789abcdef"
                 if sum(r.id.startswith(c) for r in comparison.find(here)) > 1)  # fmt: skip
    with pytest.raises(AnymodalError, match=f"runs begin with '{begin}'"):
        comparison.pick(here, [begin])


def test_what_cannot_be_compared_is_one_line(here):
    with pytest.raises(AnymodalError, match="no finished runs"):
        comparison.compare([])
    mixed = [comparison.find(here, stage)[0] for stage in ("retrieve", "classify")]
    with pytest.raises(AnymodalError, match="runs of retrieve and classify"):
        comparison.compare(mixed)
    with pytest.raises(
        AnymodalError, match=r"no metric of these runs matches 'f2/\*'; .*ndcg/mean"
    ):
        comparison.compare(mixed[:1], ["f2/*"])
    with pytest.raises(AnymodalError, match="is not the name of a stage"):
        comparison.find(here, "x' OR '1")
    with pytest.raises(AnymodalError, match="no experiment 'other'"):
        comparison.find(TrackingParams(experiment="other"))


def test_asking_makes_no_store(tmp_path, monkeypatch, anymodal):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    for words in (["list"], ["compare"], ["card"]):
        shown = anymodal(*words, "--params", str(tmp_path / "params.yaml"))
        assert shown.code == 1 and shown.err.startswith("error: no runs yet")
    assert not (tmp_path / "none.db").exists()


def test_the_commands(here, anymodal):
    shown = anymodal("list", "--limit", "3")
    assert shown.code == 0 and "check" in shown.out and "failed" in shown.out
    listed = json.loads(anymodal("list", "--json", "--stage", "retrieve").out)
    assert len(listed) == 5 and {run["stage"] for run in listed} == {"retrieve"}
    assert anymodal("list", "--stage", "mixing").err == "error: no runs of mixing\n"

    ids = [run.id for run in comparison.find(here, "pipeline", finished=True)[1:]]
    shown = anymodal("compare", *ids)
    assert shown.code == 0
    assert "translate.margin" in shown.out
    assert "0.7000 ± 0.0200 *" in shown.out and "tones" in shown.out
    shown = anymodal("compare")
    assert "nothing is marked as best" in shown.out and "*" not in shown.out.replace("± ", "")

    found = json.loads(anymodal("compare", "--stage", "retrieve", "--json").out)
    assert [set(PAIRS)] == [{record["pair"] for record in found}]
    assert all("ndcg_sd/mean" in record for record in found)
    rows = list(csv.DictReader(io.StringIO(anymodal("compare", *ids, "--csv").out)))
    assert [row["run"] for row in rows] == ids
    assert float(rows[0]["macro_f1/MMT-zero-shot-audio"]) == 0.7

    for words, error in (
        (("compare", ids[0], "--pipelines"), "give runs, or --stage"),
        (("compare", "--json", "--csv"), "not both"),
        (("list", "--stage", "embed", "--pipelines"), "not both"),
        (("compare", "--stage", "mixing"), "no finished runs"),
        (("card",), "no registered model 'anymodal-classifier'"),
    ):
        shown = anymodal(*words)
        assert shown.code == 1 and error in shown.err and shown.err.count("\n") == 1


def test_what_did_not_run_anew_is_taken_over(here, monkeypatch):
    """In a store of its own experiment, so that the others' runs stay as they are."""
    params = Params.model_validate({"tracking": {"experiment": "another"}})
    monkeypatch.setenv(PIPELINE_VARIABLE, "fourth")
    ref = DatasetRef("tones", "class", Path("clips.parquet"))
    parent = open_pipeline(params, "pipeline")
    with stage_run("classify", params, ref) as run:
        shown = metrics.of_classification(results(0.6))
        run.log_metrics(shown.metrics)
    old = {
        "classify": LoggedMetrics({"pair": "a+x"}, {"summary/macro_f1/MMT-zero-shot-audio": 0.1}),
        "structure": LoggedMetrics({}, {"summary/structure/ratio": 0.4}),
    }
    complete_pipeline(params, parent, old, ref)
    close_pipeline(params, parent, succeeded=True)
    found = store.connect(params.tracking).MlflowClient().get_run(parent)
    assert found.data.metrics["macro_f1/MMT-zero-shot-audio"] == 0.6
    assert found.data.metrics["structure/ratio"] == 0.4
    assert found.data.tags["anymodal.unchanged"] == "structure"
    assert found.data.tags["anymodal.stage"] == "pipeline"
    assert found.data.params["translate.margin"] == "1.0"
    assert found.info.status == "FINISHED"


@pytest.mark.slow
def test_a_finished_project(finished):
    """Its runs' metrics follow the scheme, and its parent has what the stages wrote."""
    listed = json.loads(finished.run("anymodal", "runs", "list", "--json", "--limit", "99").stdout)
    (parent,) = [run for run in listed if run["stage"] == "pipeline"]
    record = json.loads(finished.run("anymodal", "runs", "compare", "--json").stdout)[0]
    assert record["run"] == parent["run"] and record["pair"] == parent["pair"]
    shown = json.loads((finished.folder / "artifacts/classification/results.json").read_text())
    for row in shown["summary"]:
        of = "-".join((row["system"], row["regime"], row["target"]))
        if f"macro_f1/{of}" in record:
            assert record[f"macro_f1/{of}"] == pytest.approx(row["mean"])
            assert record[f"macro_f1_sd/{of}"] == pytest.approx(row["std"])
    assert {"macro_f1/MMT-zero-shot-audio", "macro_f1/SMI-all-image", "ndcg/mean"} <= set(record)

    uri = f"sqlite:///{finished.folder}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)
    for entry in listed:
        run = client.get_run(entry["run"])
        names = set(run.data.metrics)
        assert not {n for n in names if not NAME.fullmatch(n)}, (run.info.run_name, names)
    whole = client.get_run(parent["run"]).data
    assert whole.params["audio_encoder"] == "musicnn_mtt" and whole.params["classes"] == "10"
    assert whole.metrics["macro_f1_chance/audio"] == pytest.approx(0.1)
    assert whole.metrics["rows/audio"] > 0
    assert "anymodal.unchanged" not in whole.tags  # everything ran
