"""`anymodal app` in a real browser, with a small classifier."""

import base64
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal.app.security import HEADERS
from anymodal.media.segmentation import Limits
from anymodal.ontology.instruments import INSTRUMENTS
from helpers.browsers import running_browser
from helpers.paths import ROOT
from helpers.small import RATE, audio, image
from helpers.videos import class_video

pytestmark = pytest.mark.slow

PHONE, DESK = {"width": 375, "height": 740}, {"width": 1280, "height": 800}
ITEM = '#am-plot .annotation:has-text("your ")'
DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name));
  const zone = document.querySelector('#am-file .upload-container');
  for (const kind of ['dragenter', 'dragover', 'drop'])
    zone.dispatchEvent(new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true}));
}"""
# elements beyond the screen, the smallest letters, media without a name, and labels of the map that
# leave it or cover one another
MEASURE = """() => {
  const shown = [...document.querySelectorAll('.gradio-container *')].filter(
    e => e.getBoundingClientRect().width > 0 && getComputedStyle(e).position !== 'absolute');
  const right = e => e.getBoundingClientRect().right;
  const wide = shown.filter(e => !e.closest('svg') && right(e) > innerWidth + 1);
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const media = [...document.querySelectorAll(':is(.am-answer, .am-cards) :is(img, audio)')];
  const map = document.querySelector('#am-plot .main-svg').getBoundingClientRect();
  const labels = [...document.querySelectorAll('#am-plot .annotation text')].map(
    e => e.getBoundingClientRect());
  const cover = (a, b) => a !== b && a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return {
    page: document.documentElement.scrollWidth,
    wide: wide.map(e => e.outerHTML.slice(0, 80)),
    smallest: Math.min(...shown.filter(own).map(e => parseFloat(getComputedStyle(e).fontSize))),
    unnamed: document.querySelectorAll('img:not([alt]), audio:not([aria-label])').length,
    broken: media.filter(e => e.tagName === 'IMG' ? !e.naturalWidth : !(e.duration > 0)).length,
    covered: labels.filter(a => labels.some(b => cover(a, b)) || a.left < map.left
      || a.right > map.right || a.top < map.top || a.bottom > map.bottom).length,
  };
}"""
# classes whose label on the map is not dimmed
SHOWN = """() => [...document.querySelectorAll('#am-plot .annotation')].filter(
  e => getComputedStyle(e).opacity > .5).length"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An image, audio, a video and a broken file."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(image("horn")).save(folder / "image.png")
    soundfile.write(folder / "audio.wav", audio("bell", 3), RATE)
    class_video(folder / "video.mp4", INSTRUMENTS[0], 3)
    (folder / "broken.mp4").write_bytes((folder / "video.mp4").read_bytes()[:900])
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def media(classifier, files, tmp_path_factory):
    """A folder with media at every path of the reference, always the same two."""
    folder = tmp_path_factory.mktemp("media")
    table = classifier.reference.table
    for modality in ("audio", "image"):
        shutil.copy(files[modality], folder / modality)
    for modality, path in zip(table["modality"], table["path"], strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(folder / modality)
    return folder


@pytest.fixture(scope="module")
def address(media, tmp_path_factory):
    """Where the page is; afterwards, that it ended without errors or files left."""
    temporary = tmp_path_factory.mktemp("tmp")
    log = (tmp_path_factory.mktemp("log") / "app.log").open("w+")
    path = [str(ROOT / "tests"), *(entry for entry in sys.path if entry)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from helpers.appdata import main; main()", "app", "--port", "0",
         "--model", "small", "--media", str(media), "--max-mb", "2"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(path), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        match = re.search(r"http://[\d.]+:\d+/", line)
        assert match, line + Path(log.name).read_text()
        yield match[0]
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
    with running_browser() as browser:
        yield browser


@pytest.fixture
def open_page(chromium, address):
    """Opens the page; afterwards, that it had no errors and sent nothing to another host."""
    errors, hosts = [], set()

    def opened(viewport, theme):
        page = chromium.new_context(viewport=viewport, color_scheme=theme).new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(address)
        page.wait_for_selector(".am-waiting")
        page.wait_for_selector("#am-plot .annotation")
        return page

    yield opened
    assert errors == []
    # an address of data has no host
    assert hosts - {""} == {urlsplit(address).netloc}


def drop(page, content, name, selector):
    """Drop a file, and wait for an element of the answer."""
    page.wait_for_selector("#am-file .upload-container", state="attached")
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])
    page.wait_for_selector(selector)


def classify(page, path):
    drop(page, path.read_bytes(), path.name, f'.am-answer .am-file:text-is("{path.name}")')
    page.wait_for_selector(ITEM)
    page.wait_for_function(f"() => !({MEASURE})().broken")


def clear(page):
    page.click('#am-file button[aria-label="Clear"]')
    page.wait_for_selector(".am-waiting")


def test_answer_neighbours_and_map_of_dropped_files(open_page, classifier, files):
    page = open_page(DESK, "light")
    for kind, crosshairs in (("image", 1), ("audio", 1), ("video", 2)):
        classify(page, files[kind])
        answer = classifier.predict([files[kind]], Limits(windows=30))[0]
        assert page.inner_text(".am-head").startswith(answer.answer)
        assert page.locator(".am-bars .am-name").first.inner_text() == answer.top(1)[0][0]
        assert page.locator(".am-time").count() == (len(answer.windows) > 1)
        for media in (".am-image li img", ".am-audio li audio"):
            assert page.locator(f".am-column{media}").count() == 4
        # the last trace is the item, the one before it are the rings
        marks = [
            page.locator(f"#am-plot .trace:nth-last-child({n}) .point").count() for n in (1, 2)
        ]
        assert marks == [crosshairs, 8]
        assert page.evaluate(MEASURE)["covered"] == 0
        clear(page)
        assert page.locator(".am-near").count() == page.locator(ITEM).count() == 0
    assert "class-paired" in page.inner_text(".am-facts")
    # the map has a text alternative
    described = page.get_attribute("#am-plot", "aria-labelledby")
    assert "training clips" in page.inner_text(f"#{described}")
    # one class alone is shown, by the keyboard
    assert page.evaluate(SHOWN) == len(classifier.classes)
    page.focus('.am-chooser input[value="all"]')
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => ({SHOWN})() === 1")


def test_a_broken_file_gets_one_clear_line(open_page, files):
    page = open_page(PHONE, "light")
    for content in (files["broken"].read_bytes(), b"", b"no media at all"):
        drop(page, content, f"<b>{len(content)}.mp4", ".am-error[role=alert]")
        message = page.inner_text(".am-error p")
        # Gradio takes what could be markup out of names
        assert message.startswith(f"b{len(content)}.mp4: ")
        assert "\n" not in message
        assert "Traceback" not in page.content()
        assert page.evaluate(MEASURE)["page"] == PHONE["width"]
        clear(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_in_both_themes(open_page, files, theme):
    page = open_page(PHONE, theme)
    for path in (None, files["video"]):
        if path:
            classify(page, path)
        measured = page.evaluate(MEASURE)
        assert measured["wide"] == []
        assert measured["page"] == PHONE["width"]
        assert measured["smallest"] >= 12
        assert measured["unnamed"] == measured["covered"] == 0
    colours = page.evaluate(
        "['.am-head', '#am-plot .annotation text', 'body'].map("
        "s => getComputedStyle(document.querySelector(s)))"
        ".map((style, n) => [style.color, style.fill, style.backgroundColor][n])"
    )
    ink, label, paper = (np.mean([int(n) for n in re.findall(r"\d+", c)[:3]]) for c in colours)
    assert (ink > paper) == (label > paper) == (theme == "dark")
    # all four inputs are there without a menu
    assert page.locator("#am-inputs [role=tab]:visible").count() == 4


def test_the_server_is_closed_to_the_rest(address, media):
    assert httpx.get(address).headers.items() >= {k.lower(): v for k, v in HEADERS.items()}.items()
    for path in (f"gradio_api/file={media}/image", "gradio_api/file=/etc/passwd", "openapi.json"):
        assert httpx.get(address + path).status_code in (403, 404)
    large = {"files": ("large.wav", bytes(3 << 20))}
    assert httpx.post(f"{address}gradio_api/upload", files=large).status_code == 413
