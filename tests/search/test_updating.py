"""Indexing a folder: what is read, what is kept, what is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import Limits
from anymodal.search import Index, journal, reading, update, updating
from helpers import searching
from helpers.paths import TESTS
from helpers.searching import classifier, write_picture, write_sound
from helpers.videos import class_video


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    class_video(folder / "piano.mp4", "piano", 1)
    return folder


@pytest.fixture
def media(tmp_path, films):
    folder = tmp_path / "media"
    for number in range(4):
        write_sound(folder / f"sounds/{number}.wav", 200 + 100 * number, 1 + number / 2)
        write_picture(folder / f"pictures/{number}.png", number)
    shutil.copy(films / "piano.mp4", folder / "film.mp4")
    (folder / "notes.txt").write_text("neither sound nor picture")
    (folder / "torn.png").write_bytes((folder / "pictures/0.png").read_bytes()[:60])
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


def files(place):
    return {path.name: path.read_bytes() for path in place.iterdir() if path.name != ".lock"}


def test_every_medium_has_a_row_a_modality_with_the_classifiers_vector(media, place, model):
    report = update(media, place, model)
    index = Index.open(place)
    rows = index.rows
    assert counts(report) == {"added": 9, "embedded": 9}
    assert report.rows == {"audio": 5, "image": 5} and len(index) == 10
    assert rows.path.to_list() == [
        *("film.mp4", "sounds/0.wav", "sounds/1.wav", "sounds/2.wav", "sounds/3.wav"),
        *("film.mp4", "pictures/0.png", "pictures/1.png", "pictures/2.png", "pictures/3.png"),
    ]
    for place_, row in rows.iterrows():
        (expected,) = model.embed([media / row.path])
        np.testing.assert_array_equal(index.vectors[place_], expected[row.modality])
        status = (media / row.path).stat()
        assert (row["size"], row.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert rows.kind.to_list() == ["video", *["audio"] * 4, "video", *["image"] * 4]
    np.testing.assert_allclose(rows.seconds[1:5], [1, 1.5, 2, 2.5])
    assert index.root == media and not index.graphs
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-6)


def test_what_is_no_medium_or_broken_is_told_in_one_line_and_stops_nothing(media, place, model):
    (media / "gone.png").symlink_to(media / "nowhere.png")
    os.mkfifo(media / "pipe")
    odd = os.fsdecode(b"odd\xff.png")
    write_picture(media / "even.png", 7).rename(media / odd)
    told = update(media, place, model).skipped
    assert list(told) == [
        "empty.wav",
        "gone.png",
        "notes.txt",
        "odd\\xff.png",
        "pipe",
        "torn.png",
    ]
    assert all(why and "\n" not in why and str(media) not in why for why in told.values())
    assert told["empty.wav"] == "is empty" and "UTF-8" in told["odd\\xff.png"]
    assert "no regular file" in told["pipe"] and "link" in told["gone.png"]
    assert Index.open(place).skipped.error.to_list() == list(told.values())


def test_a_second_run_opens_and_writes_nothing(media, place, model, monkeypatch):
    first = update(media, place, model)
    before = files(place)

    def opened(root, seen, **rest):
        raise AssertionError(seen.path)

    monkeypatch.setattr(reading, "read_file", opened)
    again = update(media, place, model)
    assert counts(again) == {"unchanged": 9}
    assert again.skipped == first.skipped and again.rows == first.rows
    assert files(place) == before


def test_changes_cost_what_they_must(media, place, model):
    update(media, place, model)
    seen = model.networks["audio"].seen, model.networks["image"].seen
    write_picture(media / "new.png", 50)
    write_sound(media / "sounds/0.wav", 1234)  # changed
    os.utime(media / "sounds/1.wav", (1, 1))  # touched
    (media / "sounds/2.wav").rename(media / "renamed.wav")
    (media / "sounds/3.wav").unlink()
    shutil.copy(media / "pictures/3.png", media / "pictures/3 (copy).png")
    shutil.copy(media / "pictures/2.png", media / "torn.png")  # whole now
    (media / "film.mp4").rename(media / "pictures/film.mp4")
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
    sound = media / "sounds/0.wav"
    size = sound.stat().st_size
    write_sound(sound, 3000)
    assert sound.stat().st_size == size
    (media / "sounds/1.wav").write_text("no sound any more")
    report = update(media, place, model)
    assert counts(report) == {"changed": 1, "removed": 1, "unchanged": 7, "embedded": 1}
    assert "sounds/1.wav" in report.skipped
    (expected,) = model.embed([sound])
    index = Index.open(place)
    row = index.rows.path.to_list().index("sounds/0.wav")
    np.testing.assert_array_equal(index.vectors[row], expected["audio"])


def test_a_touched_broken_file_is_not_decoded_again(media, place, model, monkeypatch):
    update(media, place, model)
    os.utime(media / "torn.png", (1, 1))
    monkeypatch.setattr(reading, "segment", None)
    told = update(media, place, model).skipped
    assert "TypeError" not in told["torn.png"]


def test_equal_files_are_embedded_once(tmp_path, place, model):
    for name in "abc":
        write_picture(tmp_path / f"media/{name}.png", 3)
    report = update(tmp_path / "media", place, model)
    assert counts(report) == {"added": 3, "embedded": 1}
    assert len(np.unique(Index.open(place).vectors, axis=0)) == 1


def test_an_empty_folder_and_one_that_was_emptied(tmp_path, media, place, model):
    (tmp_path / "nothing").mkdir()
    report = update(tmp_path / "nothing", tmp_path / "empty", model)
    assert counts(report) == {} and report.rows == {"audio": 0, "image": 0}
    empty = Index.open(tmp_path / "empty")
    assert len(empty) == 0 and empty.vectors.shape == (0, searching.DIM)
    assert empty.search(np.ones((2, searching.DIM)), 3).rows.shape == (2, 0)
    assert empty.find(model, media / "pictures/0.png") == []
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
            if Path(folder).name == "sounds":
                onerror(PermissionError(13, "Permission denied", folder))
            else:
                yield folder, folders, names

    monkeypatch.setattr(os, "walk", failing)
    report = update(media, place, model)
    assert counts(report) == {"unchanged": 9}
    assert report.skipped["sounds"] == "Permission denied"
    monkeypatch.undo()
    report = update(media, place, model)
    assert counts(report) == {"unchanged": 9} and "sounds" not in report.skipped


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_run(
    media, place, model, monkeypatch
):
    take = reading.segment

    def slow(path, rate, limits):
        taken = take(path, rate, limits)
        if path.name == "0.wav":
            os.utime(path, (5, 5))
        return taken

    monkeypatch.setattr(reading, "segment", slow)
    report = update(media, place, model)
    assert "changed while it was read" in report.skipped["sounds/0.wav"]
    monkeypatch.undo()
    assert counts(update(media, place, model)) == {"added": 1, "unchanged": 8, "embedded": 1}


def test_one_item_that_the_encoder_refuses_does_not_take_the_others_along(media, place):
    class Choosy(searching.Tones):
        def embed(self, batch):
            if any(len(item) > RATE_LIMIT for item in batch):
                raise AnymodalError("too long for me")
            return super().embed(batch)

    RATE_LIMIT = searching.RATE - 1
    write_sound(media / "short.wav", 700, 0.5)
    report = update(media, place, classifier(audio=Choosy()))
    assert report.skipped["sounds/0.wav"] == "too long for me"
    assert "short.wav" in Index.open(place).rows.path.to_list()
    assert report.rows == {"audio": 1, "image": 4}


def test_embeddings_that_are_not_finite_are_told(media, place):
    class Wild(searching.Tones):
        def embed(self, batch):
            return np.where(len(batch[0]) > 0, np.float32(np.inf), super().embed(batch))

    told = update(media, place, classifier(audio=Wild())).skipped
    assert "not finite" in told["sounds/0.wav"] or "finite" in told["sounds/0.wav"]


def test_an_index_of_another_classifier_is_refused_until_it_is_rebuilt(media, place, model):
    update(media, place, model)
    before = content(place)
    query = media / "pictures/0.png"
    others = {
        "sound encoder": classifier(audio=searching.Tones("t2")),
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


def test_a_second_writer_is_sent_away(media, place, model):
    place.mkdir()
    with filelock.FileLock(place / ".lock"):
        # the lock counts between processes and threads alike
        script = (
            "import sys; from helpers.searching import classifier\n"
            "from anymodal.search import update\n"
            "update(sys.argv[1], sys.argv[2], classifier())"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(media), str(place)],
            capture_output=True, text=True, cwd=Path(searching.__file__).parents[1],
        )  # fmt: skip
    assert "another process is writing the index" in done.stderr


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: (p / "index.json").write_text("{"), "unreadable index.json"),
        (lambda p: (p / "index.json").write_text('{"format": 99}'), "format 99"),
        (lambda p: next(p.glob("vectors-*.npy")).unlink(), "has no vectors-"),
        (lambda p: next(p.glob("rows-*.parquet")).write_bytes(b"torn"), "cannot be read"),
        (lambda p: np.save(next(p.glob("vectors-*.npy")), np.ones((2, 8), "f4")), "not belong"),
    ],
)
def test_a_damaged_index_is_refused_in_one_line_and_can_be_rebuilt(
    media, place, model, damage, told
):
    update(media, place, model)
    damage(place)
    with pytest.raises(AnymodalError, match=told) as error:
        Index.open(place)
    assert "--rebuild" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(AnymodalError, match=told):
        update(media, place, model)
    assert counts(update(media, place, model, rebuild=True)) == {"added": 9, "embedded": 9}


def test_no_index_there(tmp_path):
    with pytest.raises(AnymodalError, match="no index at .*; make one with `anymodal index"):
        Index.open(tmp_path)


def test_another_version_tries_again_what_was_skipped(media, place, model, monkeypatch):
    update(media, place, model)
    monkeypatch.setattr(updating, "__version__", "99")
    tried = []
    read = reading.read_file
    monkeypatch.setattr(
        reading,
        "read_file",
        lambda root, seen, **rest: tried.append(seen.path) or read(root, seen, **rest),
    )
    assert counts(update(media, place, model)) == {"unchanged": 9}
    assert sorted(tried) == ["empty.wav", "notes.txt", "torn.png"]


def test_whoever_has_an_index_open_keeps_it(media, place, model):
    update(media, place, model)
    opened = Index.open(place)
    vectors = np.array(opened.vectors)
    shutil.rmtree(media / "sounds")
    update(media, place, model)
    np.testing.assert_array_equal(opened.vectors, vectors)
    assert len(Index.open(place)) == 6 and len(opened.rows) == 10


class TestInterrupted:
    """A run that is killed, and the one after it."""

    @pytest.fixture
    def many(self, tmp_path):
        for number in range(24):
            write_sound(tmp_path / f"media/{number:02d}.wav", 150 + 60 * number)
        (tmp_path / "media/99.txt").write_text("no medium")
        return tmp_path / "media"

    def killed(self, many, place, batches):
        mark = many.parent / "hanging"
        mark.unlink(missing_ok=True)
        program = [sys.executable, "-m", "helpers.searching", many, place, str(batches)]
        process = subprocess.Popen(program, cwd=TESTS)
        try:
            deadline = time.monotonic() + 60
            while not mark.exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def test_finished_work_outlives_a_kill(self, many, place, model):
        self.killed(many, place, batches=3)
        assert not (place / "index.json").exists()
        # an update of what is there is killed too, and loses as little
        report = update(many, place, model)
        assert counts(report) == {"added": 24, "embedded": 12}
        for number in range(24):
            write_sound(many / f"{number:02d}.wav", 155 + 60 * number)
        before = content(place)
        self.killed(many, place, batches=5)
        assert content(place) == before  # the old index is whole
        assert counts(update(many, place, model)) == {"changed": 24, "embedded": 4}
        update(many, place.parent / "scratch", classifier())
        assert content(place) == content(place.parent / "scratch")
        assert {path.name for path in place.iterdir()} == {
            ".lock", "index.json", "rows-2.parquet", "vectors-2.npy", "skipped-2.parquet",
        }  # fmt: skip

    def test_an_error_and_a_keyboard_interrupt_save_what_is_finished(
        self, many, place, monkeypatch
    ):
        monkeypatch.setattr(reading, "BATCH", 4)

        class Stopped(searching.Tones):
            def embed(self, batch):
                if self.seen == 8:
                    raise KeyboardInterrupt
                return super().embed(batch)

        with pytest.raises(KeyboardInterrupt):
            update(many, place, classifier(audio=Stopped()))
        assert counts(update(many, place, classifier())) == {"added": 24, "embedded": 16}

    def test_unfinished_work_of_another_classifier_or_folder_is_refused(
        self, many, place, monkeypatch
    ):
        self.killed(many, place, batches=2)
        with pytest.raises(AnymodalError, match=r"unfinished .* another classifier \(projection"):
            update(many, place, classifier(seed=1))
        shutil.copytree(many, many.parent / "copy")
        with pytest.raises(AnymodalError, match="holds the index of .*media"):
            update(many.parent / "copy", place, classifier())
        # building anew takes nothing over, but from another run that was building anew
        assert counts(update(many, place, classifier(), rebuild=True))["embedded"] == 24

    def test_building_anew_goes_on_where_it_was_interrupted(self, many, place, monkeypatch):
        update(many, place, classifier(seed=1))
        before = content(place)
        monkeypatch.setattr(reading, "BATCH", 4)

        class Stopped(searching.Tones):
            def embed(self, batch):
                if self.seen == 8:
                    raise RuntimeError("out of memory")
                return super().embed(batch)

        with pytest.raises(RuntimeError):
            update(many, place, classifier(audio=Stopped()), rebuild=True)
        assert content(place) == before
        with pytest.raises(AnymodalError, match="--rebuild"):
            update(many, place, classifier())
        report = update(many, place, classifier(), rebuild=True)
        assert counts(report) == {"added": 24, "embedded": 16}
        assert (
            Index.open(place).identity == json.loads((place / "index.json").read_text())["identity"]
        )

    def test_a_damaged_part_is_done_again(self, many, place):
        self.killed(many, place, batches=3)
        (place / "unfinished/part-000002.parquet").write_bytes(b"torn")
        assert counts(update(many, place, classifier()))["embedded"] == 16

    def test_work_is_saved_after_seconds_too(self, many, place, monkeypatch):
        monkeypatch.setattr(journal, "SECONDS", 0.0)
        self_saved = []
        save = journal.Journal.save
        monkeypatch.setattr(
            journal.Journal, "save", lambda own: self_saved.append(len(own._waiting)) or save(own)
        )
        monkeypatch.setattr(reading, "BATCH", 10)
        update(many, place, classifier())
        assert self_saved == [10, 10, 5, 0]
