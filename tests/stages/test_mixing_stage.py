"""The stage `mixing`: what a kill leaves is gone on with, and the result is the same."""

from __future__ import annotations

import shutil
import signal
import time

import pandas as pd
import pytest

from anymodal.mixing import Fit
from anymodal.stages.mixing import _Ledger, summarise_curve
from project import Project


def test_ledger_keeps_whole_lines_and_exact_scores(tmp_path):
    ledger = _Ledger(tmp_path / "deep" / "scores.csv")
    assert ledger.read() == {}
    scores = {Fit("MMT", "audio", 0, 0): 0.1 + 0.2, Fit("MMP", "image", 30, 7): 1 / 3}
    for one, score in scores.items():
        ledger.add(one, score)
    with ledger.path.open("a") as file:
        file.write("MMP,image,30,8,0x1.5")  # a kill came in the middle of a line
    assert ledger.read() == scores
    ledger.add(Fit("MMP", "image", 30, 8), 0.5)
    assert ledger.read() == scores | {Fit("MMP", "image", 30, 8): 0.5}


def test_summary_is_over_draws():
    rows = [("MMT", "audio", 0, draw, score) for draw, score in enumerate((0.2, 0.4))]
    rows += [("MMT", "audio", 5, 0, 0.9)]
    curve = pd.DataFrame(rows, columns=["system", "target", "samples", "draw", "macro_f1"])
    first, second = summarise_curve(curve).to_dict("records")
    assert first["mean"] == pytest.approx(0.3) and first["draws"] == 2
    assert first["std"] == pytest.approx(0.2 / 2**0.5)
    assert (second["samples"], second["mean"], second["std"]) == (5, 0.9, 0.0)


def test_a_killed_curve_goes_on_where_it_stopped(finished, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns(".dvc", ".git", "data"))
    project = Project(folder)
    done = folder / "artifacts" / "mixing" / "curve.parquet"
    expected = done.read_bytes()
    shutil.rmtree(done.parent)
    running = project.start("anymodal", "mixing")
    ledgers = folder / ".anymodal" / "mixing"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        if any(len(path.read_text().splitlines()) >= 4 for path in ledgers.glob("*.csv")):
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not done.exists(), "the kill came too late to show anything"
    (ledger,) = ledgers.glob("*.csv")
    before = len(ledger.read_text().splitlines())
    assert before >= 4
    project.run("anymodal", "mixing")
    assert done.read_bytes() == expected
    assert not ledger.exists()
