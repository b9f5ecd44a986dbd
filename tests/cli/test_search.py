"""`anymodal index` and `anymodal search`: what they print, and how they end."""

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner

from anymodal.cli import search
from anymodal.cli.main import app
from anymodal.search import Index, graphs
from helpers.paths import SHARED
from helpers.searching import classifier, write_audio, write_image
from helpers.videos import class_video

DATA = SHARED / "data"


@pytest.fixture
def media(tmp_path):
    for number in range(3):
        write_audio(tmp_path / f"media/{number}.wav", 200 + 300 * number)
        write_image(tmp_path / f"media/[{number}].png", number)
    (tmp_path / "media/notes.txt").write_text("no medium")
    return tmp_path / "media"


@pytest.fixture
def anymodal(monkeypatch, tmp_path):
    """Runs a command in the folder `tmp_path` with a small classifier."""
    monkeypatch.setattr(search, "_classifier", lambda model, params: classifier())
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def test_index_reports_what_it_did_and_what_it_skipped(anymodal, media, tmp_path):
    first = anymodal("index", media)
    assert first.exit_code == 0, first.output
    assert "files: 6 added, 1 skipped" in first.stdout
    assert "rows: 3 audio, 3 image in .anymodal/index" in first.stdout
    (line,) = first.stderr.splitlines()
    assert line.startswith("skipped: notes.txt: ")
    assert (tmp_path / ".anymodal/index/index.parquet").is_file()
    (media / "0.wav").unlink()
    again = anymodal("index", media)
    assert "files: 1 removed, 5 unchanged, 1 skipped" in again.stdout
    result = json.loads(anymodal("index", media, "--json").stdout)
    assert (
        result["unchanged"] == 5
        and result["embedded"] == 0
        and list(result["skipped"]) == ["notes.txt"]
    )
    assert result["rows"] == {"audio": 2, "image": 3} and result["graphs"] == {}


def test_many_skipped_files_are_counted(anymodal, media):
    for number in range(40):
        (media / f"{number}.txt").write_text("no medium")
    result = anymodal("index", media)
    assert result.stderr.count("skipped: ") == search.SHOWN
    assert "and 21 more; --json names them all" in result.stderr


def test_search_prints_a_table_json_or_csv(anymodal, media, tmp_path):
    anymodal("index", media, "--index", "here")
    query = media / "[1].png"
    result = anymodal("search", query, "-k", 2, "--modality", "image", "--index", "here")
    assert result.exit_code == 0, result.output
    assert [word in result.stdout for word in ("rank", "1.000", "[1].png", "2")] == [True] * 4
    found = anymodal("search", query, "--modality", "audio", "--index", "here", "--json")
    answers = json.loads(found.stdout)["answers"]
    assert [answer["rank"] for answer in answers] == [1, 2, 3]
    assert {answer["modality"] for answer in answers} == {"audio"}
    assert json.loads(found.stdout)["root"] == str(media)
    hits = Index.open("here").find(classifier(), query, modality="audio")
    assert [answer["path"] for answer in answers] == [hit.path for hit in hits]
    anymodal("search", query, "--modality", "audio", "--index", "here", "--csv", "out/answers.csv")
    with (tmp_path / "out/answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [hit.path for hit in hits]
    assert [float(row["cosine"]) for row in rows] == pytest.approx(
        [h.cosine for h in hits], abs=1e-6
    )


def test_a_video_by_its_audio(anymodal, media):
    class_video(media / "video.mp4", "flute", 1)
    anymodal("index", media)
    for by, modality in (("audio", "audio"), ("image", "image")):
        result = anymodal("search", media / "video.mp4", "--by", by, "-k", 1, "--json")
        (answer,) = json.loads(result.stdout)["answers"]
        assert (answer["path"], answer["modality"], answer["cosine"]) == ("video.mp4", modality, 1)


def test_the_recall_of_an_approximate_search_is_printed(anymodal, media, monkeypatch):
    monkeypatch.setattr(graphs, "LEAST", 40)
    for number in range(50):
        write_image(media / f"more/{number}.bmp", 100 + number)
    result = anymodal("index", media, "--ann")
    assert "approximate search of image: recall@10" in result.stdout
    assert "of audio queries (1)" in result.stdout and "of image queries (26)" in result.stdout
    assert anymodal("search", media / "more/7.bmp", "--exact").exit_code == 0
    facts = json.loads(anymodal("index", media, "--json").stdout)["graphs"]["image"]
    assert facts["k"] == 10 and facts["queries"] == {"audio": 1, "image": 26}


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (("search", "a.png"), "no index at .anymodal/index; make one with `anymodal index"),
        (("index", "."), "no classifier at artifacts/classifier"),
    ],
)
def test_what_is_missing_is_reported_in_one_line(words, result, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "anymodal", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert result in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "instruments").is_dir(), reason="needs the media of ../shared/data")
def test_images_find_audio_of_their_instrument(finished, tmp_path):
    instruments = DATA / "instruments"
    classes = ("banjo", "drums", "flute", "guitar", "piano", "saxophone", "trumpet", "violin")
    each = 8
    for name in classes:
        for kind in ("audio", "images"):
            (tmp_path / "media" / name).mkdir(parents=True, exist_ok=True)
            files = sorted((instruments / kind / name).iterdir())
            for file in files[:: max(1, len(files) // each)][:each]:
                shutil.copy(file, tmp_path / "media" / name)
    shutil.copy(DATA / "video/maskvat__drums_gt.mp4", tmp_path / "media/video.mp4")
    (tmp_path / "media/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    done = finished.run(
        "anymodal", "index", str(tmp_path / "media"), "--index", str(tmp_path / "i")
    )
    assert "skipped: torn.png: " in done.stderr
    video = str(tmp_path / "media/video.mp4")
    words = ("--index", str(tmp_path / "i"), "-k", "1", "--by", "image", "--json")
    (answer,) = json.loads(finished.run("anymodal", "search", video, *words).stdout)["answers"]
    assert (answer["path"], answer["modality"]) == ("video.mp4", "image")

    index = Index.open(tmp_path / "i")
    rows = index.rows
    named = rows.path.str.split("/").str[0].to_numpy()
    recordings = Counter(named[(rows.modality == "audio") & (rows.kind == "audio")])
    right, expected, asked = 0.0, 0.0, 0
    images = ((rows.modality == "image") & (rows.kind == "image")).to_numpy().nonzero()[0]
    found = index.search(index.vectors[images], 5, "audio").rows
    for image, answers in zip(images, found, strict=True):
        right += (named[answers] == named[image]).mean()
        expected += recordings[named[image]] / sum(recordings.values())
        asked += 1
    assert asked == len(classes) * each
    # by chance an eighth is right
    assert right / asked > 2 * expected / asked, (right / asked, expected / asked)
