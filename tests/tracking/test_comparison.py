"""Runs beside one another: on a small store of its own, and on a finished project's."""

import csv
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import yaml

from anymodal import cli, run_metrics, run_table, tracking
from anymodal.errors import AnymodalError
from anymodal.params import Params, TrackingParams
from anymodal.pipeline_runs import close_pipeline, complete_pipeline, open_pipeline
from anymodal.tracking import PIPELINE_VARIABLE, Basis, metric_name, stage_run

PAIRS = ("a+x", "b+x")
NAME = re.compile(r"[a-z][a-z0-9_]*/[A-Za-z0-9_-]+")
SURROUNDINGS = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def retrieval(pair, score, seeds=2):
    """What the stage `retrieve` writes; the score of a seed is `score` ± 0.01."""
    ways = {"audio_to_image": score + 0.1, "image_to_audio": score - 0.1}
    entries = [
        {"seed": s, **{w: v + (0.01 if s else -0.01) for w, v in ways.items()}}
        for s in range(seeds)
    ]
    chance = {"audio_to_image": 0.2, "image_to_audio": 0.3}
    return {"pair": pair, "translation": entries, "pca": chance, "random": chance}


def results(score, pair="a+x"):
    """What the stage `classify` writes, with one system."""
    told = {"system": "MMT", "regime": "zero-shot", "target": "audio"}
    row = {**told, "mean": score, "std": 0.02, "seeds": 2, "chance": 0.25}
    ends = {**told, "low": score - 0.1, "high": None}
    share = {"share": 0.9, "low": 0.8, "high": 1.0}
    return {
        "pair": pair, "classes": ["p", "q", "r", "s"], "summary": [row], "intervals": [ends],
        "zero_shot_share": {"audio": share, "image": {**share, "share": None}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two pipelines of one dataset and margins of their own, one of another dataset,
    a pipeline that failed, and a stage that was started by hand; the folder's project."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        for name in SURROUNDINGS:
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        (folder / "params.yaml").write_text(yaml.safe_dump({"seed": 0}))
        clips = folder / "clips.parquet"

        def pipeline(key, dataset, margin, score, pairs=PAIRS):
            params = Params.model_validate({"translate": {"margin": margin}})
            basis = Basis(dataset, "class", clips)
            patch.setenv(PIPELINE_VARIABLE, key)
            for pair in pairs:
                with stage_run("retrieve", params, basis, pair) as run:
                    run.log_params({"pair": pair})
                    found = retrieval(pair, score if pair == "a+x" else 0.4)
                    run.log_metrics(run_metrics.of_retrieval(found).metrics)
            with stage_run("classify", params, basis, "a+x") as run:
                told = run_metrics.of_classification(results(score))
                run.log_params(told.params, headline=True)
                run.log_metrics(told.metrics)
                run.log_metrics({"macro_f1_by_seed/MMT-zero-shot-audio": score}, step=0)

        pipeline("first", "tones", 1.0, 0.5)
        pipeline("second", "tones", 0.5, 0.7, pairs=PAIRS[:1])
        pipeline("third", "noises", 0.5, 0.9)
        patch.setenv(PIPELINE_VARIABLE, "broken")
        with pytest.raises(ValueError, match="boom"), stage_run("dataset", Params(), None):
            raise ValueError("boom")
        patch.delenv(PIPELINE_VARIABLE)
        with stage_run("check", Params(), Basis("tones", "class", clips)) as run:
            run.log_metrics({"checks/failed": 0})
        yield folder


@pytest.fixture
def here(store, monkeypatch):
    """Work in the store's folder."""
    for name in (*SURROUNDINGS, PIPELINE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    monkeypatch.chdir(store)
    yield TrackingParams()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def anymodal(monkeypatch, capsys):
    """Function that calls the command line."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["anymodal", "runs", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        told = capsys.readouterr()
        return SimpleNamespace(code=code, out=told.out, err=told.err)

    return call


def test_names_have_one_slash():
    assert metric_name("macro_f1", "MMT", "zero-shot", "audio") == "macro_f1/MMT-zero-shot-audio"
    told = run_metrics.of_classification(results(0.5))
    named = {name.removeprefix(tracking.HEADLINE) for name in told.metrics}
    assert all(NAME.fullmatch(name) for name in named)
    assert "macro_f1_low/MMT-zero-shot-audio" in named
    assert "macro_f1_high/MMT-zero-shot-audio" not in named  # its end is not known
    assert "zero_shot_share/image" not in named
    assert set(told.headlines) == {
        "macro_f1/MMT-zero-shot-audio", "macro_f1_sd/MMT-zero-shot-audio",
        "macro_f1_chance/audio", "zero_shot_share/audio",
    }  # fmt: skip


def test_retrieval_has_the_same_names_for_every_pair_and_its_spread():
    one, other = (run_metrics.of_retrieval(retrieval(p, 0.5)).metrics for p in PAIRS)
    assert set(one) == set(other)
    assert one["ndcg/mean"] == pytest.approx(0.5)
    assert one["ndcg/audio_to_image"] == pytest.approx(0.6)
    # of 0.49 and 0.51, n − 1
    assert one["ndcg_sd/mean"] == pytest.approx(0.02 / 2**0.5)
    assert one["ndcg_random/mean"] == pytest.approx(0.25)
    lone = run_metrics.of_retrieval(retrieval("a+x", 0.5, seeds=1)).metrics
    assert "ndcg_sd/mean" not in lone and lone["ndcg/mean"] == pytest.approx(0.49)
    assert run_metrics.over_seeds("ndcg", "mean", []) == {}


def test_the_newest_come_first_and_are_told_apart(here):
    found = run_table.find(here)
    assert [run.stage for run in found][:2] == ["check", "dataset"]
    assert found[0].commit == "" or len(found[0].code.rstrip("+")) == 7
    parents = run_table.find(here, "pipeline")
    assert [run.status for run in parents] == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    assert [run.dataset for run in parents] == ["", "noises", "tones", "tones"]
    assert len(run_table.find(here, "pipeline", finished=True)) == 3
    assert len(run_table.find(here, limit=2)) == 2
    assert run_table.find(here, "mixing") == []


def test_parents_compare_by_themselves(here):
    _, second, first = run_table.find(here, "pipeline", finished=True)
    told = run_table.compare([second, first])
    # nothing else differs; the pair is one metric's label, not a difference
    assert told.differing == {"translate.margin": ("0.5", "1.0")}
    assert told.metrics["macro_f1/MMT-zero-shot-audio"] == (0.7, 0.5)
    assert told.spreads["macro_f1/MMT-zero-shot-audio"] == (0.02, 0.02)
    assert told.best["macro_f1/MMT-zero-shot-audio"] == {0}
    assert told.cell("macro_f1/MMT-zero-shot-audio", 0) == "0.7000 ± 0.0200 *"
    assert not any("_sd/" in name for name in told.metrics)
    assert second.params["classes"] == "4" and second.pair == "a+x"
    # a share of the run's own best score is no score
    assert "zero_shot_share/audio" not in told.best


def test_runs_on_other_data_have_no_best(here):
    told = run_table.compare(run_table.find(here, "pipeline", finished=True))
    assert told.best == {} and "dataset (noises, tones)" in told.note
    assert told.differing["dataset"] == ("noises", "tones", "tones")


def test_pairs_compare_by_the_newest_run_of_each(here):
    found = run_table.find(here, "retrieve", finished=True)
    assert sorted(run.pair for run in found) == list(PAIRS)
    assert {run.dataset for run in found} == {"noises"}
    told = run_table.compare(found)
    best = {told.runs[i].pair for i in told.best["ndcg/mean"]}
    assert best == {"a+x"}
    # chance is no score to be proud of
    assert "ndcg_random/mean" in told.metrics and "ndcg_random/mean" not in told.best


def test_equal_values_have_no_best_and_lower_losses_are_better(here):
    runs = run_table.find(here, "pipeline", finished=True)[1:]
    for run, loss, score in zip(runs, (0.2, 0.1), (0.5, 0.50001), strict=True):
        run.metrics.update({"valid_loss/mean": loss, "ndcg/mean": score})
    told = run_table.compare(runs, ["valid_loss/*", "ndcg/mean"])
    assert told.best == {"valid_loss/mean": {1}}
    lone = run_table.compare(runs[:1], ["valid_loss/*"])
    assert lone.best == {} and lone.differing == {}
    del runs[0].metrics["valid_loss/mean"]
    partly = run_table.compare(runs, ["valid_loss/*"])
    assert partly.cell("valid_loss/mean", 0) == "" and partly.best == {}


def test_runs_are_picked_by_the_beginning_of_their_id(here):
    first, second = run_table.find(here, "pipeline", finished=True)[:2]
    assert run_table.pick(here, [second.id, first.id[:12], second.id]) == [second, first]
    with pytest.raises(AnymodalError, match="no run 'zzz'"):
        run_table.pick(here, ["zzz"])
    with pytest.raises(AnymodalError, match="no run ''"):
        run_table.pick(here, [""])
    begin = next(c for c in "0123456789abcdef"
                 if sum(r.id.startswith(c) for r in run_table.find(here)) > 1)  # fmt: skip
    with pytest.raises(AnymodalError, match=f"runs begin with '{begin}'"):
        run_table.pick(here, [begin])


def test_what_cannot_be_compared_is_one_line(here):
    with pytest.raises(AnymodalError, match="no finished runs"):
        run_table.compare([])
    mixed = [run_table.find(here, stage)[0] for stage in ("retrieve", "classify")]
    with pytest.raises(AnymodalError, match="runs of retrieve and classify"):
        run_table.compare(mixed)
    with pytest.raises(
        AnymodalError, match=r"no metric of these runs matches 'f2/\*'; .*ndcg/mean"
    ):
        run_table.compare(mixed[:1], ["f2/*"])
    with pytest.raises(AnymodalError, match="is no stage's name"):
        run_table.find(here, "x' OR '1")
    with pytest.raises(AnymodalError, match="no experiment 'other'"):
        run_table.find(TrackingParams(experiment="other"))


def test_asking_makes_no_store(tmp_path, monkeypatch, anymodal):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    for words in (["list"], ["compare"], ["card"]):
        told = anymodal(*words, "--params", str(tmp_path / "params.yaml"))
        assert told.code == 1 and told.err.startswith("error: no runs yet")
    assert not (tmp_path / "none.db").exists()


def test_the_commands(here, anymodal):
    told = anymodal("list", "--limit", "3")
    assert told.code == 0 and "check" in told.out and "failed" in told.out
    listed = json.loads(anymodal("list", "--json", "--stage", "retrieve").out)
    assert len(listed) == 5 and {run["stage"] for run in listed} == {"retrieve"}
    assert anymodal("list", "--stage", "mixing").err == "error: no runs of mixing\n"

    ids = [run.id for run in run_table.find(here, "pipeline", finished=True)[1:]]
    told = anymodal("compare", *ids)
    assert told.code == 0
    assert "translate.\nmargin" in told.out or "margin" in told.out
    assert "0.7000 ± 0.0200 *" in told.out and "tones" in told.out
    told = anymodal("compare")
    assert "nothing is marked as best" in told.out and "*" not in told.out.replace("± ", "")

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
        told = anymodal(*words)
        assert told.code == 1 and error in told.err and told.err.count("\n") == 1


def test_what_did_not_run_anew_is_taken_over(here, monkeypatch):
    """In a store of its own experiment, so that the others' runs stay as they are."""
    params = Params.model_validate({"tracking": {"experiment": "another"}})
    monkeypatch.setenv(PIPELINE_VARIABLE, "fourth")
    basis = Basis("tones", "class", Path("clips.parquet"))
    parent = open_pipeline(params, "pipeline")
    with stage_run("classify", params, basis) as run:
        told = run_metrics.of_classification(results(0.6))
        run.log_metrics(told.metrics)
    old = {
        "classify": ({"pair": "a+x"}, {"macro_f1/MMT-zero-shot-audio": 0.1}),
        "structure": ({}, {"structure/ratio": 0.4}),
    }
    complete_pipeline(params, parent, old, basis)
    close_pipeline(params, parent, succeeded=True)
    found = tracking.connect(params.tracking).MlflowClient().get_run(parent)
    assert found.data.metrics["macro_f1/MMT-zero-shot-audio"] == 0.6
    assert found.data.metrics["structure/ratio"] == 0.4
    assert found.data.tags["anymodal.unchanged"] == "structure"
    assert found.data.tags["anymodal.stage"] == "pipeline"
    assert found.data.params["translate.margin"] == "1.0"
    assert found.info.status == "FINISHED"


def test_a_finished_project(finished):
    """Its runs' metrics follow the scheme, and its parent has what the stages wrote."""
    listed = json.loads(finished.run("anymodal", "runs", "list", "--json", "--limit", "99").stdout)
    (parent,) = [run for run in listed if run["stage"] == "pipeline"]
    record = json.loads(finished.run("anymodal", "runs", "compare", "--json").stdout)[0]
    assert record["run"] == parent["run"] and record["pair"] == parent["pair"]
    told = json.loads((finished.folder / "artifacts/classification/results.json").read_text())
    for row in told["summary"]:
        of = "-".join((row["system"], row["regime"], row["target"]))
        if f"macro_f1/{of}" in record:
            assert record[f"macro_f1/{of}"] == pytest.approx(row["mean"])
            assert record[f"macro_f1_sd/{of}"] == pytest.approx(row["std"])
    assert {"macro_f1/MMT-zero-shot-audio", "macro_f1/SMI-all-image", "ndcg/mean"} <= set(record)

    uri = f"sqlite:///{finished.folder}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)
    for one in listed:
        run = client.get_run(one["run"])
        names = set(run.data.metrics)
        assert not {n for n in names if not NAME.fullmatch(n)}, (run.info.run_name, names)
    whole = client.get_run(parent["run"]).data
    assert whole.params["audio_encoder"] == "musicnn_mtt" and whole.params["classes"] == "10"
    assert whole.metrics["macro_f1_chance/audio"] == pytest.approx(0.1)
    assert whole.metrics["rows/audio"] > 0
    assert "anymodal.unchanged" not in whole.tags  # everything ran
