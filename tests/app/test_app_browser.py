"""`anymodal app` in a real browser: files are dropped on it, and the answers looked at."""

import asyncio
import base64
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from anymodal.dataset.instruments import INSTRUMENTS
from anymodal.errors import AnymodalError
from anymodal.items import Limits, take_apart
from anymodal.model import ModalityAgnosticClassifier
from browsers import installed_browser
from films import write_film
from project import ROOT

gradio = pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

REAL = ROOT.parent / "shared" / "data" / "instruments"
PHONE, DESK = {"width": 375, "height": 740}, {"width": 1280, "height": 800}

DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name));
  const zone = document.querySelector('#am-file .upload-container');
  for (const kind of ['dragenter', 'dragover', 'drop'])
    zone.dispatchEvent(new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true}));
}"""
# what sticks out of the screen, and letters that nobody can read
MEASURE = """() => {
  const shown = [...document.querySelectorAll('.gradio-container *')].filter(
    e => e.getBoundingClientRect().width > 0 && getComputedStyle(e).position !== 'absolute');
  const right = e => e.getBoundingClientRect().right;
  const wide = shown.filter(e => !e.closest('svg') && right(e) > innerWidth + 1);
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  return {
    page: document.documentElement.scrollWidth,
    wide: wide.map(e => e.outerHTML.slice(0, 80)),
    smallest: Math.min(...shown.filter(own).map(e => parseFloat(getComputedStyle(e).fontSize))),
    unnamed: [...document.querySelectorAll('img:not([alt]), audio:not([aria-label])')].length,
    broken: [...document.querySelectorAll('.am-answer img, .am-reason img')].filter(
      e => !e.complete || !e.naturalWidth).length,
    silent: [...document.querySelectorAll('.am-answer audio, .am-reason audio')].filter(
      e => !(e.duration > 0)).length,
  };
}"""


@pytest.fixture(scope="module")
def classifier(finished):
    return ModalityAgnosticClassifier.load(finished.folder / "artifacts/classifier", "cpu")


@pytest.fixture(scope="module")
def things(classifier, tmp_path_factory):
    """A picture, a sound, a film and a broken file; the first two real where some are at hand."""
    folder = tmp_path_factory.mktemp("things")
    found = {"film": folder / "film.mp4", "broken": folder / "broken.mp4"}
    write_film(found["film"], INSTRUMENTS[0], 3)
    found["broken"].write_bytes(found["film"].read_bytes()[:900])
    if REAL.is_dir():
        return found | {"picture": recognised(classifier, "image", "violin"),
                        "sound": recognised(classifier, "audio", "saxophone")}  # fmt: skip
    chance = np.random.default_rng(0)
    found |= {"picture": folder / "picture.png", "sound": folder / "sound.wav"}
    Image.fromarray(chance.integers(0, 255, (90, 120, 3), np.uint8)).save(found["picture"])
    soundfile.write(found["sound"], 0.2 * chance.standard_normal(40_000), 16_000)
    return found


def recognised(classifier, modality, instrument):
    """A training clip of an instrument that is recognised."""
    table = classifier.reference.table
    rows = table[(table["modality"] == modality) & (table["instrument"] == instrument)]
    files = [path for name in rows["path"].unique()[:10] if (path := REAL / name).is_file()]
    answers = classifier.predict(files)
    return next(
        path for path, answer in zip(files, answers, strict=True) if answer.answer == instrument
    )


@pytest.fixture(scope="module")
def media(finished, things, tmp_path_factory):
    """A folder that has a medium at every path of the reference: the same picture and sound."""
    folder = tmp_path_factory.mktemp("media")
    shutil.copy(things["picture"], folder / "picture")
    # long enough for every second that a neighbour may start at
    noise = 0.1 * np.random.default_rng(1).standard_normal(20 * 16_000)
    soundfile.write(folder / "sound", noise, 16_000, format="WAV")
    table = pd.read_parquet(finished.folder / "artifacts/classifier/reference.parquet")
    for modality, path in set(zip(table["modality"], table["path"], strict=True)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(folder / ("sound" if modality == "audio" else "picture"))
    return folder


@pytest.fixture(scope="module")
def address(finished, media, tmp_path_factory):
    """Where the page is; afterwards, that it ended well."""
    temporary = tmp_path_factory.mktemp("tmp")
    log = (tmp_path_factory.mktemp("log") / "app.log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-c", "from anymodal.cli import main; main()", "app", "--port", "0",
         "--model", "artifacts/classifier", "--media", str(media), "--max-mb", "2"],
        cwd=finished.folder, env=finished.environment() | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        found = re.search(r"http://[\d.]+:\d+/", line)
        assert found, line + Path(log.name).read_text()
        yield found[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert "Traceback" not in Path(log.name).read_text()
        assert list(temporary.glob("anymodal-app-*")) == []
    finally:
        process.kill()
        process.wait()
        log.close()


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=installed_browser(),
            # a name that has to be looked up is of another host
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        yield browser
        browser.close()


def waited(coroutine):
    """Its result; from a thread, for Playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class Page:
    """A page that is open, with what it complained of and whom it asked."""

    def __init__(self, chromium, address, viewport, theme):
        self.complaints, self.hosts = [], set()
        context = chromium.new_context(viewport=viewport, color_scheme=theme)
        self.page = context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.goto(address)
        self.page.wait_for_selector(".am-waiting")

    def _heard(self, message):
        if message.type == "error":
            self.complaints.append(message.text)

    def _asked(self, url):
        if urlsplit(url).scheme not in ("data", "blob"):
            self.hosts.add(urlsplit(url).netloc)

    def drop(self, path):
        """Drop a file where files go, and wait for the answer with its reason."""
        self.page.wait_for_selector("#am-file .upload-container", state="attached")
        self.page.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])
        self.page.wait_for_selector(f'.am-answer .am-file:text-is("{path.name}")')
        self.page.wait_for_selector(".am-reason .am-cards")
        self.page.wait_for_selector(".am-item")
        self.page.wait_for_function(f"() => !({MEASURE})().silent && !({MEASURE})().broken")

    def clear(self):
        self.page.click('#am-file button[aria-label="Clear"]')
        self.page.wait_for_selector(".am-waiting")

    def text(self, selector):
        return self.page.inner_text(selector).replace("\N{NO-BREAK SPACE}", " ")


def test_dropped_files_are_answered_with_their_reason(chromium, address, classifier, things):
    own = Page(chromium, address, DESK, "light")
    page = own.page
    for kind, marks in (("picture", 1), ("sound", 1), ("film", 2)):
        own.drop(things[kind])
        answer = classifier.predict([things[kind]], Limits(moments=30))[0]
        assert own.text(".am-head").startswith(answer.answer)
        assert page.locator(".am-bars .am-name").first.inner_text() == answer.top(1)[0][0]
        if kind != "film" and REAL.is_dir():
            assert answer.answer == {"picture": "violin", "sound": "saxophone"}[kind]
        vectors = classifier.embed([things[kind]], Limits(moments=30))[0]
        used = [vectors[m] for m in vectors if answer.modality in (m, "both")]
        mean = np.mean(used, axis=0)
        for modality in ("image", "audio"):
            near = classifier.reference.nearest(mean / np.linalg.norm(mean), 1, modality)[0]
            first = own.text(f".am-column.am-{modality} li >> nth=0")
            assert near.instrument in first
            assert f"cosine {near.cosine:.2f}" in first
            assert Path(near.path).name in first.replace("\n", "")
            assert page.locator(f".am-column.am-{modality} li").count() == 4
        assert page.locator(".am-column.am-image img").count() == 4
        assert page.locator(".am-column.am-audio audio").count() == 4
        assert page.locator(".am-item").count() == marks
        assert page.locator(".am-ring").count() == 8
        assert page.locator(".am-time").count() == (len(answer.moments) > 1)
        own.clear()
        assert page.locator(".am-reason").count() == page.locator(".am-item").count() == 0
    assert "class-paired" in own.text(".am-facts")
    assert "self-supervised" not in page.content()
    own.drop(things["picture"])
    # a class alone is shown, by the keyboard
    shown = "[...document.querySelectorAll('.am-frame text[data-class]')].filter("
    shown += "e => getComputedStyle(e).opacity > .5).length"
    page.focus('.am-chooser input[value="all"]')
    assert page.evaluate(shown) == len(classifier.classes)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"{shown} === 1")
    assert own.complaints == []
    assert own.hosts == {urlsplit(address).netloc}


def test_a_broken_file_gets_one_clear_line(chromium, address, things, tmp_path):
    own = Page(chromium, address, PHONE, "light")
    for content in (things["broken"].read_bytes(), b"", b"no media at all"):
        name = f"<b>{len(content)}.mp4"
        data = base64.b64encode(content).decode()
        own.page.evaluate(DROP, [name, data])
        own.page.wait_for_selector(".am-error[role=alert]")
        told = own.text(".am-error p")
        # Gradio takes what could be markup out of names
        assert told.startswith(f"b{len(content)}.mp4: ")
        assert "\n" not in told
        assert "Traceback" not in own.page.content()
        assert own.page.evaluate(MEASURE)["page"] == PHONE["width"]
        own.clear()
    assert own.complaints == []
    large = base64.b64encode(bytes(3 << 20)).decode()
    own.page.evaluate(DROP, ["large.wav", large])
    own.page.wait_for_selector("text=/exceed.*maximum allowed size of 2.*large.wav/i")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_in_both_themes(chromium, address, things, theme):
    own = Page(chromium, address, PHONE, theme)
    for kind in (None, "film"):
        if kind:
            own.drop(things[kind])
        found = own.page.evaluate(MEASURE)
        assert found["wide"] == []
        assert found["page"] == PHONE["width"]
        assert found["smallest"] >= 12
        assert found["unnamed"] == 0
    colours = own.page.evaluate(
        "[getComputedStyle(document.querySelector('.am-head')).color,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    ink, paper = (np.mean([int(n) for n in re.findall(r"\d+", c)[:3]]) for c in colours)
    assert (ink > paper) == (theme == "dark")
    # all four ways in are there without a menu
    assert own.page.locator("#am-inputs [role=tab]:visible").count() == 4
    assert own.complaints == []
    assert own.hosts == {urlsplit(address).netloc}


def test_the_server_is_closed_to_the_rest(address, media):
    with urllib.request.urlopen(address) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    for path in (f"gradio_api/file={media}/picture", "gradio_api/file=/etc/passwd", "openapi.json"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address + path)
        assert refused.value.code in (403, 404)


def test_without_training_rows_and_with_files_that_are_gone(classifier, things, tmp_path):
    from anymodal.app.page import build_page

    bare = ModalityAgnosticClassifier(
        classifier.projection, classifier.forest, classifier.networks, judge=classifier.judge
    )

    def decode(content, name):
        if not content:
            raise AnymodalError("is empty")
        return take_apart(content, classifier.sample_rate)

    page = build_page(bare, None, decode, 5)
    dropped = page.fns[0].fn
    (answer, reason, place) = list(dropped(str(things["picture"])))[-1]
    assert bare.predict([things["picture"]])[0].answer in answer
    assert "keeps no training rows" in reason
    assert place == ""
    ((answer, reason, place),) = dropped(str(tmp_path / "gone.wav"))
    assert "gone.wav: is gone from the server; send it again" in answer
    (tmp_path / "empty.wav").touch()
    ((answer, _, _),) = dropped(str(tmp_path / "empty.wav"))
    assert "empty.wav: is empty" in answer
    ((answer, reason, place),) = dropped(None)
    assert "am-waiting" in answer
    # an address in place of a file is not fetched
    for block in page.blocks.values():
        if block.elem_id in ("am-file", "am-sound", "am-photo", "am-film"):
            with pytest.raises(gradio.Error, match="not an address"):
                waited(block.async_move_resource_to_block_cache("http://127.0.0.1/x.wav"))
    uploaded = page.blocks[page.fns[0].inputs[0]._id].async_move_resource_to_block_cache
    assert Path(waited(uploaded(str(things["picture"])))).read_bytes()
