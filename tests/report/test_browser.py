"""The page in a real browser: what it renders, and that nothing overflows or complains."""

import pytest

from helpers.browsers import running_browser

pytestmark = pytest.mark.slow
# with all details open: elements beyond the screen, texts outside their figure, smallest letters
MEASURE = """() => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  const box = e => e.getBoundingClientRect();
  const inside = e => e.closest('.scroll, .frame, svg');
  const wide = [...document.body.querySelectorAll('*')].filter(
    e => !inside(e) && box(e).right > innerWidth + 1
      && getComputedStyle(e).position !== 'absolute');
  const texts = [...document.querySelectorAll('svg text')];
  const letters = texts.map(e => parseFloat(getComputedStyle(e).fontSize)
    * box(e.closest('svg')).width / e.closest('svg').viewBox.baseVal.width);
  const outside = texts.filter(e => {
    const a = box(e), b = box(e.closest('svg'));
    return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2
      || a.bottom > b.bottom + 2;
  });
  return {
    page: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    wide: wide.map(e => e.outerHTML.slice(0, 80)), outside: outside.map(e => e.textContent),
    smallest: Math.min(...letters), figures: document.querySelectorAll('svg').length,
  };
}"""


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.mark.parametrize("width", [320, 375, 1200])
def test_nothing_is_wider_than_the_screen_and_letters_are_readable(
    browser, typical_page, tmp_path, width
):
    (tmp_path / "index.html").write_text(typical_page, encoding="utf-8")
    complaints = []
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((tmp_path / "index.html").as_uri())
    measured = page.evaluate(MEASURE)
    assert complaints == [] and measured["figures"] == 19
    assert measured["wide"] == measured["outside"] == []
    assert measured["page"] <= width and measured["height"] > 3000
    assert measured["smallest"] >= 9
