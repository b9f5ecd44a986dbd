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
from helpers.searching import classifier, write_picture, write_sound
from helpers.videos import class_video

DATA = SHARED / "data"


@pytest.fixture
def media(tmp_path):
    for number in range(3):
        write_sound(tmp_path / f"media/{number}.wav", 200 + 300 * number)
        write_picture(tmp_path / f"media/[{number}].png", number)
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


def test_index_tells_what_it_did_and_what_it_skipped(anymodal, media, tmp_path):
    first = anymodal("index", media)
    assert first.exit_code == 0, first.output
    assert "files: 6 added, 1 skipped" in first.stdout
    assert "rows: 3 audio, 3 image in .anymodal/index" in first.stdout
    (line,) = first.stderr.splitlines()
    assert line.startswith("skipped: notes.txt: ")
    assert (tmp_path / ".anymodal/index/index.json").is_file()
    (media / "0.wav").unlink()
    again = anymodal("index", media)
    assert "files: 1 removed, 5 unchanged, 1 skipped" in again.stdout
    told = json.loads(anymodal("index", media, "--json").stdout)
    assert (
        told["unchanged"] == 5 and told["embedded"] == 0 and list(told["skipped"]) == ["notes.txt"]
    )
    assert told["rows"] == {"audio": 2, "image": 3} and told["graphs"] == {}


def test_many_skipped_files_are_counted(anymodal, media):
    for number in range(40):
        (media / f"{number}.txt").write_text("no medium")
    told = anymodal("index", media)
    assert told.stderr.count("skipped: ") == search.SHOWN
    assert "and 21 more; --json names them all" in told.stderr


def test_search_prints_a_table_json_or_csv(anymodal, media, tmp_path):
    anymodal("index", media, "--index", "here")
    query = media / "[1].png"
    told = anymodal("search", query, "-k", 2, "--modality", "image", "--index", "here")
    assert told.exit_code == 0, told.output
    assert [word in told.stdout for word in ("rank", "1.000", "[1].png", "2")] == [True] * 4
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


def test_a_film_by_its_sound(anymodal, media):
    class_video(media / "film.mp4", "flute", 1)
    anymodal("index", media)
    for by, modality in (("audio", "audio"), ("image", "image")):
        told = anymodal("search", media / "film.mp4", "--by", by, "-k", 1, "--json")
        (answer,) = json.loads(told.stdout)["answers"]
        assert (answer["path"], answer["modality"], answer["cosine"]) == ("film.mp4", modality, 1)


def test_the_recall_of_an_approximate_search_is_printed(anymodal, media, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(graphs, "LEAST", 40)
    for number in range(50):
        write_picture(media / f"more/{number}.bmp", 100 + number)
    told = anymodal("index", media, "--ann")
    assert "approximate search of image: recall@10" in told.stdout
    assert "of audio queries (2)" in told.stdout and "of image queries (27)" in told.stdout
    assert anymodal("search", media / "more/7.bmp", "--exact").exit_code == 0
    monkeypatch.setattr(graphs, "available", lambda: False)
    assert "searched exactly" in anymodal("search", media / "more/7.bmp").stderr
    assert "anymodal[search]" in str(anymodal("index", media, "--ann").exception)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("search", "a.png"), "no index at .anymodal/index; make one with `anymodal index"),
        (("index", "."), "no classifier at artifacts/classifier"),
    ],
)
def test_what_is_missing_is_told_in_one_line(words, told, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "anymodal", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_pictures_find_sounds_of_their_instrument(finished, tmp_path):
    instruments = DATA / "instruments"
    if not instruments.is_dir():
        pytest.skip("needs the photographs and recordings of ../shared/data")
    classes = ("banjo", "drums", "flute", "guitar", "piano", "saxophone", "trumpet", "violin")
    each = 8
    for name in classes:
        for kind in ("audio", "images"):
            (tmp_path / "media" / name).mkdir(parents=True, exist_ok=True)
            files = sorted((instruments / kind / name).iterdir())
            for file in files[:: max(1, len(files) // each)][:each]:
                shutil.copy(file, tmp_path / "media" / name)
    shutil.copy(DATA / "video/maskvat__drums_gt.mp4", tmp_path / "media/film.mp4")
    (tmp_path / "media/torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    done = finished.run(
        "anymodal", "index", str(tmp_path / "media"), "--index", str(tmp_path / "i")
    )
    assert "skipped: torn.png: " in done.stderr
    film = str(tmp_path / "media/film.mp4")
    words = ("--index", str(tmp_path / "i"), "-k", "1", "--by", "image", "--json")
    (answer,) = json.loads(finished.run("anymodal", "search", film, *words).stdout)["answers"]
    assert (answer["path"], answer["modality"]) == ("film.mp4", "image")

    index = Index.open(tmp_path / "i")
    rows = index.rows
    named = rows.path.str.split("/").str[0].to_numpy()
    sounds = Counter(named[(rows.modality == "audio") & (rows.kind == "audio")])
    right, expected, asked = 0.0, 0.0, 0
    pictures = ((rows.modality == "image") & (rows.kind == "image")).to_numpy().nonzero()[0]
    found = index.search(index.vectors[pictures], 5, "audio").rows
    for picture, answers in zip(pictures, found, strict=True):
        right += (named[answers] == named[picture]).mean()
        expected += sounds[named[picture]] / sum(sounds.values())
        asked += 1
    assert asked == len(classes) * each
    # by chance an eighth is right
    assert right / asked > 2 * expected / asked, (right / asked, expected / asked)
