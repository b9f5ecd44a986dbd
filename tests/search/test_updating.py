"""Indexing a folder: what is read, what is kept, what is reported."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.core.locking import exclusive
from anymodal.media.segmentation import Limits
from anymodal.search import Index, reading, update, updating
from helpers import searching
from helpers.paths import TESTS
from helpers.searching import classifier, write_audio, write_image
from helpers.videos import class_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    class_video(folder / "piano.mp4", "piano", 1)
    return folder


@pytest.fixture
def media(tmp_path, videos):
    folder = tmp_path / "media"
    for number in range(4):
        write_audio(folder / f"audio/{number}.wav", 200 + 100 * number, 1 + number / 2)
        write_image(folder / f"images/{number}.png", number)
    shutil.copy(videos / "piano.mp4", folder / "video.mp4")
    (folder / "notes.txt").write_text("neither audio nor image")
    (folder / "torn.png").write_bytes((folder / "images/0.png").read_bytes()[:60])
    (folder / "empty.wav").touch()
    (folder / ".hidden.png").write_bytes(b"not looked at")
    return folder


@pytest.fixture
def place(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def model():
    return classifier()


def counts(report):
    names = ("added", "changed", "renamed", "touched", "removed", "unchanged", "embedded")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def content(place):
    """All that an index holds of its media, as values that compare."""
    index = Index.open(place)
    return index.rows.to_dict("records"), index.vectors.tobytes(), index.skipped.to_dict("records")


def test_every_medium_has_a_row_a_modality_with_the_classifiers_vector(media, place, model):
    report = update(media, place, model)
    index = Index.open(place)
    rows = index.rows
    assert counts(report) == {"added": 9, "embedded": 9}
    assert report.rows == {"audio": 5, "image": 5} and len(index) == 10
    assert rows.path.to_list() == [
        *(*(f"audio/{number}.wav" for number in range(4)), "video.mp4"),
        *(*(f"images/{number}.png" for number in range(4)), "video.mp4"),
    ]
    for place_, row in rows.iterrows():
        (expected,) = model.embed([media / row.path])
        np.testing.assert_array_equal(index.vectors[place_], expected[row.modality])
        status = (media / row.path).stat()
        assert (row["size"], row.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert rows.kind.to_list() == [*["audio"] * 4, "video", *["image"] * 4, "video"]
    np.testing.assert_allclose(rows.seconds[:4], [1, 1.5, 2, 2.5])
    assert index.root == media and not index.graphs
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-6)


def test_what_is_no_medium_or_broken_is_reported_in_one_line_and_stops_nothing(media, place, model):
    (media / "gone.png").symlink_to(media / "nowhere.png")
    os.mkfifo(media / "pipe")
    write_image(media / "even.png", 7).rename(media / os.fsdecode(b"odd\xff.png"))
    skipped = update(media, place, model).skipped
    words = {
        "empty.wav": "is empty", "gone.png": "link", "notes.txt": "", "odd\\xff.png": "UTF-8",
        "pipe": "no regular file", "torn.png": "",
    }  # fmt: skip
    assert list(skipped) == list(words)
    assert all(words[path] in why for path, why in skipped.items())
    assert all(why and "\n" not in why and str(media) not in why for why in skipped.values())
    assert Index.open(place).skipped.error.to_list() == list(skipped.values())


def test_a_second_run_opens_and_writes_nothing(media, place, model, monkeypatch):
    first = update(media, place, model)
    before = (place / "index.parquet").stat()

    def opened(root, file, **rest):
        raise AssertionError(file.path)

    monkeypatch.setattr(reading, "read_file", opened)
    again = update(media, place, model)
    assert counts(again) == {"unchanged": 9}
    assert again.skipped == first.skipped and again.rows == first.rows
    after = (place / "index.parquet").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_changes_cost_what_they_must(media, place, model):
    update(media, place, model)
    seen = model.networks["audio"].seen, model.networks["image"].seen
    write_image(media / "new.png", 50)
    write_audio(media / "audio/0.wav", 1234)  # changed
    os.utime(media / "audio/1.wav", (1, 1))  # touched
    (media / "audio/2.wav").rename(media / "renamed.wav")
    (media / "audio/3.wav").unlink()
    shutil.copy(media / "images/3.png", media / "images/3 (copy).png")
    shutil.copy(media / "images/2.png", media / "torn.png")  # whole now
    (media / "video.mp4").rename(media / "images/video.mp4")
    report = update(media, place, model)
    assert counts(report) == {
        "added": 3, "changed": 1, "renamed": 2, "touched": 1, "removed": 1, "unchanged": 4,
        "embedded": 2,
    }  # fmt: skip
    now = model.networks["audio"].seen, model.networks["image"].seen
    assert (now[0] - seen[0], now[1] - seen[1]) == (1, 1)
    # what is left is what an index from scratch would be, to the bit
    update(media, place.parent / "scratch", classifier())
    assert content(place) == content(place.parent / "scratch")
    assert {"torn.png"} == {"torn.png"} & set(Index.open(place).rows.path)


def test_a_changed_file_of_the_same_size_and_a_medium_that_breaks(media, place, model):
    update(media, place, model)
    file = media / "audio/0.wav"
    size = file.stat().st_size
    write_audio(file, 3000)
    assert file.stat().st_size == size
    (media / "audio/1.wav").write_text("no audio any more")
    report = update(media, place, model)
    assert counts(report) == {"changed": 1, "removed": 1, "unchanged": 7, "embedded": 1}
    assert "audio/1.wav" in report.skipped
    (expected,) = model.embed([file])
    index = Index.open(place)
    row = index.rows.path.to_list().index("audio/0.wav")
    np.testing.assert_array_equal(index.vectors[row], expected["audio"])


def test_a_touched_broken_file_is_not_decoded_again(media, place, model, monkeypatch):
    update(media, place, model)
    os.utime(media / "torn.png", (1, 1))
    monkeypatch.setattr(reading, "segment", None)
    assert "TypeError" not in update(media, place, model).skipped["torn.png"]


def test_equal_files_are_embedded_once_and_come_by_path(tmp_path, place, model):
    for name in "cab":
        write_image(tmp_path / f"media/{name}.png", 3)
    report = update(tmp_path / "media", place, model)
    assert counts(report) == {"added": 3, "embedded": 1}
    hits = Index.open(place).find(model, tmp_path / "media/b.png")
    assert [(hit.path, hit.cosine) for hit in hits] == [(f"{name}.png", 1.0) for name in "abc"]


def test_an_empty_folder_and_one_that_was_emptied(tmp_path, media, place, model):
    with pytest.raises(AnymodalError, match="no index at .*; make one with `anymodal index"):
        Index.open(place)
    (tmp_path / "nothing").mkdir()
    report = update(tmp_path / "nothing", tmp_path / "empty", model)
    assert counts(report) == {} and report.rows == {"audio": 0, "image": 0}
    empty = Index.open(tmp_path / "empty")
    assert len(empty) == 0 and empty.vectors.shape == (0, searching.DIM)
    assert empty.search(np.ones((2, searching.DIM)), 3).rows.shape == (2, 0)
    assert empty.find(model, media / "images/0.png") == []
    update(media, place, model)
    shutil.rmtree(media)
    media.mkdir()
    assert counts(update(media, place, model)) == {"removed": 9}
    assert content(place) == content(tmp_path / "empty")


def test_what_cannot_be_read_now_keeps_its_rows(media, place, model, monkeypatch):
    update(media, place, model)
    walk = os.walk

    def failing(root, onerror):
        for folder, folders, names in walk(root):
            if Path(folder).name == "audio":
                onerror(PermissionError(13, "Permission denied", folder))
            else:
                yield folder, folders, names

    monkeypatch.setattr(os, "walk", failing)
    report = update(media, place, model)
    assert counts(report) == {"unchanged": 9}
    assert report.skipped["audio"] == "Permission denied"
    monkeypatch.undo()
    report = update(media, place, model)
    assert counts(report) == {"unchanged": 9} and "audio" not in report.skipped


def test_a_file_that_changes_while_it_is_read_is_read_again(media, place, model, monkeypatch):
    original = reading.segment

    def slow(path, rate, limits):
        item = original(path, rate, limits)
        if path.name == "0.wav":
            os.utime(path, (5, 5))
        return item

    monkeypatch.setattr(reading, "segment", slow)
    report = update(media, place, model)
    assert "changed while it was read" in report.skipped["audio/0.wav"]
    monkeypatch.undo()
    assert counts(update(media, place, model)) == {"added": 1, "unchanged": 8, "embedded": 1}


def test_one_item_at_fault_does_not_take_the_others_along(media, place):
    class Choosy(searching.Tones):
        def embed(self, batch):
            if any(len(item) == searching.RATE for item in batch):
                raise AnymodalError("too long for me")
            return np.full((len(batch), self.dim), np.inf, np.float32)

    write_audio(media / "short.wav", 700, 0.5)
    report = update(media, place, classifier(audio=Choosy()))
    assert report.skipped["audio/0.wav"] == "too long for me"
    assert "finite" in report.skipped["short.wav"]
    assert report.rows == {"audio": 0, "image": 4}


def test_an_index_of_another_classifier_is_refused_until_it_is_rebuilt(media, place, model):
    update(media, place, model)
    before = content(place)
    query = media / "images/0.png"
    others = {
        "audio encoder": classifier(audio=searching.Tones("t2")),
        "projection": classifier(seed=1),
    }
    for what, other in others.items():
        with pytest.raises(AnymodalError, match=rf"another classifier \(.*{what}.*--rebuild"):
            update(media, place, other)
        with pytest.raises(AnymodalError, match=what):
            Index.open(place).find(other, query)
    with pytest.raises(AnymodalError, match="length looked at"):
        update(media, place, model, limits=Limits(windows=3))
    assert content(place) == before
    # another forest is the same space
    assert counts(update(media, place, classifier(forest=5))) == {"unchanged": 9}
    report = update(media, place, others["projection"], rebuild=True)
    assert counts(report) == {"added": 9, "embedded": 9}
    assert Index.open(place).find(others["projection"], query)[0].cosine == 1.0
    assert content(place)[1] != before[1]


def test_an_index_of_another_folder_is_refused_but_a_moved_one_is_known(media, place, model):
    update(media, place, model)
    shutil.copytree(media, media.parent / "copy")
    with pytest.raises(AnymodalError, match="holds the index of .*media; give another folder"):
        update(media.parent / "copy", place, model)
    media.rename(media.parent / "moved")
    assert counts(update(media.parent / "moved", place, model)) == {"unchanged": 9}
    assert Index.open(place).root == media.parent / "moved"


def test_the_index_may_lie_in_the_folder_that_it_is_of(media, model):
    first = update(media, media / "index", model)
    assert counts(first) == {"added": 9, "embedded": 9}
    assert not [path for path in first.skipped if path.startswith("index")]
    assert counts(update(media, media / "index", model)) == {"unchanged": 9}
    with pytest.raises(AnymodalError, match="is the folder of media itself"):
        update(media, media, model)


def test_folders_and_workers_that_cannot_be(media, place, model):
    for folder in (media / "nowhere", media / "notes.txt"):
        with pytest.raises(AnymodalError, match="is no folder"):
            update(folder, place, model)
    with pytest.raises(AnymodalError, match="at least one worker"):
        update(media, place, model, workers=0)
    assert not place.exists()


def test_without_faiss_it_says_what_to_install(media, place, model, monkeypatch):
    update(media, place, model)
    monkeypatch.setitem(sys.modules, "faiss", None)
    for run in (lambda: update(media, place, model), lambda: Index.open(place)):
        with pytest.raises(AnymodalError, match=r"pip install 'anymodal\[search\]'"):
            run()


def test_a_second_writer_is_refused(media, place, model):
    with (
        exclusive(place / ".lock", "first"),
        pytest.raises(AnymodalError, match="another process is writing the index"),
    ):
        update(media, place, model)


def first_format(place):
    (place / "index.parquet").unlink()
    (place / "index.json").write_text('{"format": 1}')
    (place / "vectors-1.npy").write_bytes(b"old")


def other_metadata(place, **change):
    table = pq.read_table(place / "index.parquet")
    header = json.loads(table.schema.metadata[b"anymodal"]) | change
    pq.write_table(
        table.replace_schema_metadata({"anymodal": json.dumps(header)}), place / "index.parquet"
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (first_format, "an older format"),
        (lambda place: other_metadata(place, format=99), "format 99"),
        (lambda place: other_metadata(place, root=None), "damaged index.parquet"),
        (lambda place: other_metadata(place, identity={"dim": 9}), "other columns"),
        (lambda place: (place / "index.parquet").write_bytes(b"torn"), "damaged index.parquet"),
    ],
)
def test_an_index_that_cannot_be_used_is_refused_in_one_line_and_can_be_rebuilt(
    media, place, model, damage, message
):
    update(media, place, model)
    damage(place)
    with pytest.raises(AnymodalError, match=message) as error:
        Index.open(place)
    assert "--rebuild" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(AnymodalError, match=message):
        update(media, place, model)
    assert counts(update(media, place, model, rebuild=True)) == {"added": 9, "embedded": 9}
    assert {path.name for path in place.iterdir()} == {".lock", "index.parquet"}


def test_another_version_tries_again_what_was_skipped(media, place, model, monkeypatch):
    update(media, place, model)
    monkeypatch.setattr(updating, "__version__", "99")
    tried = []
    read = reading.read_file

    def noted(root, file, **rest):
        tried.append(file.path)
        return read(root, file, **rest)

    monkeypatch.setattr(reading, "read_file", noted)
    assert counts(update(media, place, model)) == {"unchanged": 9}
    assert sorted(tried) == ["empty.wav", "notes.txt", "torn.png"]


def test_whoever_has_an_index_open_keeps_it(media, place, model):
    update(media, place, model)
    opened = Index.open(place)
    vectors = np.array(opened.vectors)
    shutil.rmtree(media / "audio")
    update(media, place, model)
    np.testing.assert_array_equal(opened.vectors, vectors)
    assert len(Index.open(place)) == 6 and len(opened.rows) == 10


def write_many(folder, lowest=150):
    for number in range(24):
        write_audio(folder / f"{number:02d}.wav", lowest + 60 * number)
    (folder / "99.txt").write_text("no medium")
    return folder


def killed(media, place, batches):
    """Kill a run after so many batches of four files."""
    mark = media.parent / "hanging"
    mark.unlink(missing_ok=True)
    program = [sys.executable, "-m", "helpers.searching", media, place, str(batches)]
    with subprocess.Popen(program, cwd=TESTS) as process:
        deadline = time.monotonic() + 60
        while not mark.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


class Stopping(searching.Tones):
    """Raises instead of embedding a ninth file."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def embed(self, batch):
        if self.seen == 8:
            raise self.error
        return super().embed(batch)


@pytest.mark.slow
class TestKilled:
    """A run that is killed after three batches of four, and the one after it."""

    @pytest.fixture(scope="class")
    def left(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("killed")
        killed(write_many(folder / "media"), folder / "index", batches=3)
        return folder

    @pytest.fixture
    def many(self, left, tmp_path):
        shutil.copytree(left, tmp_path, dirs_exist_ok=True)
        return tmp_path / "media"

    def test_finished_work_outlives_a_kill(self, many, place, model):
        assert not (place / "index.parquet").exists()
        (many / "00.wav").rename(many / "renamed.wav")  # its content counts
        assert counts(update(many, place, model)) == {"added": 24, "embedded": 12}
        # an update of what is there is killed too, and loses as little
        (many / "renamed.wav").rename(many / "00.wav")
        write_many(many, 155)
        before = content(place)
        killed(many, place, batches=5)
        assert content(place) == before  # the old index is whole
        report = update(many, place, model)
        assert counts(report) == {"added": 1, "changed": 23, "removed": 1, "embedded": 4}
        update(many, place.parent / "scratch", classifier())
        assert content(place) == content(place.parent / "scratch")
        assert {path.name for path in place.iterdir()} == {".lock", "index.parquet"}

    def test_work_for_another_classifier_is_left_alone_until_it_ends(
        self, many, place, monkeypatch
    ):
        monkeypatch.setattr(reading, "BATCH", 4)
        with pytest.raises(RuntimeError):
            update(many, place, classifier(seed=1, audio=Stopping(RuntimeError())))
        assert counts(update(many, place, classifier()))["embedded"] == 12
        assert not (place / "unfinished").exists()

    def test_a_damaged_part_is_embedded_again(self, many, place):
        (part,) = place.glob("unfinished/*/000001.npz")
        part.write_bytes(b"torn")
        assert counts(update(many, place, classifier()))["embedded"] == 16


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_building_anew_goes_on_where_it_was_interrupted(tmp_path, place, monkeypatch, error):
    many = write_many(tmp_path / "media")
    update(many, place, classifier(seed=1))
    before = content(place)
    monkeypatch.setattr(reading, "BATCH", 4)
    with pytest.raises(type(error)):
        update(many, place, classifier(audio=Stopping(error)), rebuild=True)
    assert content(place) == before
    with pytest.raises(AnymodalError, match="--rebuild"):
        update(many, place, classifier())
    report = update(many, place, classifier(), rebuild=True)
    assert counts(report) == {"added": 24, "embedded": 16}
