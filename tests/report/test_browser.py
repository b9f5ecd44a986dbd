"""The page in a real browser: what it renders, and that nothing overflows or complains."""

import html
import json
import re
import subprocess

import pytest

from helpers.browsers import installed_browser

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=5000",
)  # fmt: skip

# the page is framed at a phone's and a desk's width, with all details open, and measured inside
HARNESS = """<!DOCTYPE html><title>harness</title><body style="margin:0">
<pre id="answer"></pre><script>
const page = {page};
const widths = [320, 375, 1200];
const answers = [];
function measure(frame, width) {{
  const doc = frame.contentDocument, root = doc.documentElement;
  doc.querySelectorAll('details').forEach(d => d.open = true);
  const inside = e => e.closest('.scroll, .frame, svg');
  const wide = [...doc.body.querySelectorAll('*')].filter(
    e => !inside(e) && e.getBoundingClientRect().right > width + 1
      && getComputedStyle(e).position !== 'absolute').map(e => e.outerHTML.slice(0, 80));
  const letters = [...doc.querySelectorAll('svg text')].map(e => {{
    const svg = e.closest('svg');
    return parseFloat(getComputedStyle(e).fontSize) * svg.getBoundingClientRect().width
      / svg.viewBox.baseVal.width;
  }});
  const outside = [...doc.querySelectorAll('svg text')].filter(e => {{
    const a = e.getBoundingClientRect(), b = e.closest('svg').getBoundingClientRect();
    return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2
      || a.bottom > b.bottom + 2;
  }}).map(e => e.textContent);
  answers.push({{width, page: root.scrollWidth, wide, outside, smallest: Math.min(...letters),
    height: root.scrollHeight}});
  if (answers.length === widths.length)
    document.getElementById('answer').textContent = JSON.stringify(answers);
}}
for (const width of widths) {{
  const frame = document.createElement('iframe');
  frame.style = 'border:0;height:800px;width:' + width + 'px';
  frame.onload = () => measure(frame, width);
  frame.srcdoc = page;
  document.body.append(frame);
}}
</script>"""


@pytest.fixture(scope="module")
def browser():
    return installed_browser()


def browse(browser, page, profile):
    """DOM after loading, and what the browser wrote to its log."""
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


@pytest.fixture(scope="module")
def measured(browser, typical_page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    harness = folder / "harness.html"
    page = json.dumps(typical_page).replace("</", "<\\/")
    harness.write_text(HARNESS.format(page=page), encoding="utf-8")
    dom, console = browse(browser, harness, folder / "profile")
    answer = re.search(r'<pre id="answer">(.*?)</pre>', dom, re.DOTALL)[1]
    assert answer, "the page did not load in its frames"
    return {entry["width"]: entry for entry in json.loads(html.unescape(answer))}, console


@pytest.mark.parametrize("width", [320, 375, 1200])
def test_nothing_is_wider_than_the_screen_and_letters_are_readable(measured, width):
    answer = measured[0][width]
    assert answer["wide"] == answer["outside"] == []
    assert answer["page"] <= width and answer["height"] > 3000
    assert answer["smallest"] >= 9


def test_the_browser_has_no_complaint(measured, browser, typical_page, tmp_path):
    assert measured[1] == []
    page = tmp_path / "index.html"
    page.write_text(typical_page, encoding="utf-8")
    dom, console = browse(browser, page, tmp_path / "profile")
    assert console == []
    assert dom.count("<svg") == 19
