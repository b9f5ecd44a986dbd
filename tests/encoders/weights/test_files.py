"""Files of publishers: found, downloaded whole or not at all, and the same ever after."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders.weights.files import RETRIES, WeightFile, content_digest, locate
from helpers.weightserver import cut_chunks, held, serving, status, whole

CONTENT = b"\x89weights" * 40_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
MODEL = {"saved_model.pb": b"graph", "variables/variables.index": b"i", "assets/": None}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, no weights folder, network allowed (to this machine), no pauses."""
    monkeypatch.setenv("ANYMODAL_CACHE_DIR", str(tmp_path / "root"))
    for name in ("ANYMODAL_WEIGHTS_DIR", "ANYMODAL_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    return tmp_path / "root" / "weights"


@pytest.fixture
def publisher():
    with serving() as publisher:
        yield publisher


@pytest.fixture
def provided(tmp_path, monkeypatch):
    """A folder that ANYMODAL_WEIGHTS_DIR names."""
    folder = tmp_path / "provided"
    folder.mkdir()
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(folder))
    return folder


def tar_gz(entries: dict[str, bytes | None], *special: tarfile.TarInfo) -> bytes:
    """An archive; None makes a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content or b"")
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            tar.addfile(entry, io.BytesIO(content or b""))
        for entry in special:
            tar.addfile(entry)
    return buffer.getvalue()


def refused(file, match, given=None):
    with pytest.raises(AnymodalError, match=match) as caught:
        locate("enc", file, given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leftovers(cache):
    return sorted(path.name for path in cache.glob(".*") if not path.name.endswith(".lock"))


def test_downloaded_once_then_found(publisher, cache, caplog):
    publisher.says(whole(CONTENT))
    file = WeightFile("w.h5", publisher.url)
    path = locate("enc", file)
    assert path == cache / "w.h5" and path.read_bytes() == CONTENT
    assert f"downloading w.h5 once from {publisher.url}" in caplog.text
    assert locate("enc", file) == path and publisher.asked == 1
    assert leftovers(cache) == []
    assert (cache / "w.h5.sha256").read_text() == f"{SHA256}  w.h5\n"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("unpack", ["", "gzip"])
def test_altered_after_the_download(publisher, unpack):
    publisher.says(whole(gzip.compress(CONTENT) if unpack else CONTENT))
    file = WeightFile("w.h5", publisher.url, unpack=unpack, md5=None if unpack else MD5)
    path = locate("enc", file)
    path.write_bytes(CONTENT[:-1])
    assert str(path) in refused(file, "w.h5 has the (md5|sha256) .*: delete it, and get it again")
    path.unlink()
    assert locate("enc", file).read_bytes() == CONTENT


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_wrong_content_against_a_pin(publisher, cache, algorithm):
    publisher.says(whole(CONTENT + b"x"))
    file = WeightFile("w.h5", publisher.url, **{algorithm: hashlib.new(algorithm).hexdigest()})
    assert publisher.url in refused(file, "does not match the known hash")
    assert publisher.asked == 1 + RETRIES
    assert not (cache / "w.h5").exists() and leftovers(cache) == []


def test_an_interrupted_download_is_repeated(publisher, cache):
    publisher.says(whole(CONTENT, at=100_000), status(500), whole(CONTENT))
    assert locate("enc", WeightFile("w.h5", publisher.url)).read_bytes() == CONTENT
    assert publisher.asked == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (whole(CONTENT, at=100_000), "Connection broken"),
        (cut_chunks(CONTENT), ""),
        (status(500), "500 Server Error"),
        (status(404), "404 Client Error: Not Found"),
        (whole(b""), "the answer is empty"),
        (whole(b"\n<!DOCTYPE html><html>log in", "text/html"), "the answer is a web page"),
    ],
)
def test_nothing_is_kept_of_a_download_that_fails(publisher, cache, answer, reason):
    publisher.says(answer)
    file = WeightFile("w.h5", publisher.url)
    message = refused(file, rf"no weights of enc: the download of w\.h5 failed \(.*{reason}")
    assert f"download {publisher.url} and put it as w.h5 into {cache} or a folder that" in message
    assert not (cache / "w.h5").exists() and leftovers(cache) == []
    publisher.says(whole(CONTENT))
    assert locate("enc", file).read_bytes() == CONTENT


def test_nothing_answers_and_the_given_path_is_taken_as_it_is(tmp_path):
    message = refused(WeightFile("w.h5", "http://127.0.0.1:9/w"), "Connection refused")
    assert "HTTPConnectionPool" not in message
    refused(WeightFile("w.h5", "gopher://example.org/w"), "No connection adapters")
    refused(WeightFile("../w.h5", "http://127.0.0.1:9/w"), "is not a plain file name")
    given = tmp_path / "own.h5"
    refused(WeightFile("w.h5", "", sha256=SHA256), r"no weights of enc at .*own\.h5", given)
    given.write_bytes(b"own")
    assert locate("enc", WeightFile("w.h5", "", sha256=SHA256), given) == given


def test_offline(publisher, monkeypatch):
    publisher.says(whole(CONTENT))
    file = WeightFile("w", publisher.url, unpack="tar.gz")
    monkeypatch.setenv("ANYMODAL_OFFLINE", "1")
    message = refused(file, "w is not here, and ANYMODAL_OFFLINE forbids to download it")
    assert f"download {publisher.url} and put it as w.tar.gz, or unpacked as w, into" in message
    assert publisher.asked == 0
    monkeypatch.setenv("ANYMODAL_OFFLINE", "0")
    assert locate("enc", WeightFile("w", publisher.url)).read_bytes() == CONTENT


def test_first_use_is_trusted_and_every_other_content_refused(publisher, cache):
    publisher.says(whole(CONTENT))
    file = WeightFile("w.h5", publisher.url)
    path = locate("enc", file)
    path.write_bytes(b"altered")
    refused(file, rf"w\.h5 has the sha256 .* not {SHA256}, that of its first use: delete it")
    path.unlink()
    publisher.says(whole(b"published again"))
    message = refused(file, f"^the content of {publisher.url} has the sha256")
    assert f"delete {path}.sha256" in message and not path.exists()
    (cache / "w.h5.sha256").unlink()
    assert locate("enc", file).read_bytes() == b"published again"


def test_the_users_folder_comes_before_the_cache(publisher, cache, provided, caplog):
    cache.mkdir(parents=True)
    (cache / "w.h5").write_bytes(CONTENT)
    (provided / "w.h5").write_bytes(CONTENT)
    file = WeightFile("w.h5", publisher.url)
    assert locate("enc", file) == provided / "w.h5"
    (provided / "w.h5").write_bytes(b"other")
    refused(file, r"provided/w\.h5 has the sha256")
    (provided / "w.h5").unlink()
    assert locate("enc", file) == cache / "w.h5"
    (provided / "pinned.h5").write_bytes(b"other")
    refused(WeightFile("pinned.h5", publisher.url, md5=MD5), r"provided/pinned\.h5 has the md5")
    assert not (cache / "pinned.h5.sha256").exists()


def test_a_cache_that_only_may_be_read(publisher, tmp_path, provided, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ANYMODAL_CACHE_DIR", str(tmp_path / "file"))
    (provided / "w.h5").write_bytes(CONTENT)
    assert locate("enc", WeightFile("w.h5", publisher.url)) == provided / "w.h5"
    assert "cannot be recorded" in caplog.text
    refused(WeightFile("v.h5", publisher.url), "v.h5 cannot be kept in .* ANYMODAL_CACHE_DIR")


def test_an_installed_package_that_ships_it(publisher, cache, tmp_path, monkeypatch):
    (tmp_path / "shipspkg").mkdir()
    (tmp_path / "shipspkg" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "shipspkg" / "w.h5").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    file = WeightFile("w.h5", publisher.url, package="shipspkg")
    assert locate("enc", file) == tmp_path / "shipspkg" / "w.h5"
    cache.mkdir(parents=True)
    (cache / "w.h5").write_bytes(CONTENT)
    assert locate("enc", file) == tmp_path / "shipspkg" / "w.h5"
    (tmp_path / "w.h5.gz").write_bytes(gzip.compress(CONTENT))
    monkeypatch.setenv("ANYMODAL_WEIGHTS_DIR", str(tmp_path))
    assert locate("enc", replace(file, unpack="gzip")) == cache / "w.h5"


@pytest.mark.parametrize("prefix", ["", "./", "vggish/"])
def test_tar_of_a_folder(publisher, cache, prefix):
    publisher.says(whole(tar_gz({prefix + name: content for name, content in MODEL.items()})))
    file = WeightFile("model", publisher.url, unpack="tar.gz")
    path = locate("enc", file)
    assert path == cache / "model"
    assert (path / "variables" / "variables.index").read_bytes() == b"i"
    (path / ".DS_Store").write_bytes(b"of a file manager")
    assert locate("enc", file) == path and publisher.asked == 1
    (path / "variables" / "variables.index").unlink()
    refused(file, "model has the sha256")


@pytest.mark.parametrize("packed", [True, False])
def test_a_download_that_the_user_provides(publisher, cache, provided, packed):
    sha256 = hashlib.sha256(WHOLE_TAR).hexdigest()
    file = WeightFile("model", publisher.url, sha256=sha256, unpack="tar.gz")
    if packed:
        (provided / "model.tar.gz").write_bytes(WHOLE_TAR[:-1])
        refused(file, r"model\.tar\.gz has the sha256")
        (provided / "model.tar.gz").write_bytes(WHOLE_TAR)
    else:
        (provided / "model").mkdir()
        refused(file, "model is empty: delete it")
        (provided / "model" / "saved_model.pb").write_bytes(b"graph")
    path = locate("enc", file)
    assert path == (cache if packed else provided) / "model"
    assert (path / "saved_model.pb").read_bytes() == b"graph"
    assert publisher.asked == 0 and locate("enc", file) == path


def link(name: str, to: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, to
    return entry


WHOLE_TAR = tar_gz(MODEL)


@pytest.mark.parametrize(
    "archive",
    [
        tar_gz({"../escaped": b"x"}),
        tar_gz({"a/../../escaped": b"x"}),
        tar_gz(MODEL, link("out", "../../..", tarfile.SYMTYPE)),
        tar_gz(MODEL, link("pipe", "", tarfile.FIFOTYPE)),
        tar_gz({"empty/": None}),
        WHOLE_TAR[: len(WHOLE_TAR) // 2],
        gzip.compress(b"no tar"),
        b"no gzip at all",
    ],
    ids=range(8),  # archives carry the time, and test processes must agree on names
)
def test_archives_that_are_refused(publisher, cache, tmp_path, archive):
    publisher.says(whole(archive))
    file = WeightFile("model", publisher.url, unpack="tar.gz")
    refused(file, "is (not a whole and safe tar.gz|an empty) archive")
    assert not (cache / "model").exists() and leftovers(cache) == []
    assert not any(path.name == "escaped" for path in tmp_path.rglob("*"))
    publisher.says(whole(WHOLE_TAR))  # what was refused was not trusted either
    assert locate("enc", file).is_dir()


LOCATE = """
import sys
from anymodal.encoders.weights.files import WeightFile, locate
print(locate("enc", WeightFile("w.h5", sys.argv[1], unpack=sys.argv[2])))
"""


def start(publisher, unpack="", prelude=""):
    command = [sys.executable, "-c", prelude + LOCATE, publisher.url, unpack]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_killed_in_the_middle(publisher, cache):
    go_on = threading.Event()
    publisher.says(held(CONTENT, 200_000, go_on))
    process = start(publisher)
    begun = lambda path: path.is_file() and path.stat().st_size >= 1 << 16  # noqa: E731
    wait_until(lambda: any(map(begun, cache.glob(".w*/*"))))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    go_on.set()
    assert leftovers(cache) and not (cache / "w.h5").exists()
    publisher.says(whole(CONTENT))
    assert locate("enc", WeightFile("w.h5", publisher.url)).read_bytes() == CONTENT
    assert leftovers(cache) == []


@pytest.mark.slow
def test_two_at_once(publisher, cache):
    go_on = threading.Event()
    publisher.says(held(CONTENT, 200_000, go_on))
    processes = [start(publisher) for _ in range(2)]
    wait_until(lambda: publisher.asked)
    time.sleep(0.5)
    go_on.set()
    for process in processes:
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out.strip()) == (0, str(cache / "w.h5")), err
    assert publisher.asked == 1 and (cache / "w.h5").read_bytes() == CONTENT
    assert leftovers(cache) == []


@pytest.mark.slow
@pytest.mark.parametrize("unpack", ["", "gzip"])
def test_full_disk(publisher, cache, unpack):
    """A limit on the size of files stands in for a disk: the same refusal of a write."""
    publisher.says(whole(gzip.compress(CONTENT) if unpack else CONTENT))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))"
    process = start(publisher, unpack, limit)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert f"w.h5 cannot be kept in {cache} (File too large): free space there" in last
    assert not (cache / "w.h5").exists() and leftovers(cache) == []


def test_digest_of_a_folder_sees_names_and_contents(tmp_path):
    def digest(number, **files):
        for name, content in files.items():
            (tmp_path / str(number)).mkdir(exist_ok=True)
            (tmp_path / str(number) / name).write_bytes(content)
        return content_digest(tmp_path / str(number))

    same = digest(0, a=b"1", b=b"2")
    assert digest(1, **{"b": b"2", "a": b"1", ".hidden": b""}) == same
    others = [{"a": b"1", "c": b"2"}, {"a": b"2", "b": b"1"}, {"a": b"1"}, {"a": b"1\nb"}]
    assert len({digest(i, **files) for i, files in enumerate(others, 2)} | {same}) == 5
