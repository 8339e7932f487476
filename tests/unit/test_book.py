"""The built book: nothing external is loaded, links lead somewhere, and every page reads well in a real browser."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from support.browser import browsing

import oracles
import sensitivity
import studies.verification

UNLISTED = ("genindex.html", "search.html")
BOOK = Path(__file__).resolve().parents[2] / "book"
PAGES = BOOK / "_build" / "html"


def builder():
    """The module `book/build.py`."""
    spec = importlib.util.spec_from_file_location("book_build", BOOK / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages():
    """The pages of the last build."""
    return sorted(page for page in PAGES.rglob("*.html") if "_static" not in page.parts)


@pytest.mark.parametrize(
    "markup",
    [
        '<script src="https://example.org/a.js"></script>',
        '<link href="//example.org/a.css">',
        '<img src="missing.png">',
        '<p>url("https://cdn.example.org/x")</p>',
    ],
)
def test_the_builder_refuses_what_a_page_loads_from_outside(tmp_path, markup):
    """Assert that a planted address of another host, or a missing file, is found."""
    page = tmp_path / "page.html"
    page.write_text(f"<html>{markup}</html>", encoding="utf-8")
    assert list(builder().outside(page))


def test_the_builder_accepts_a_page_that_stands_alone(tmp_path):
    """Assert that links to other sites are links and not loads."""
    (tmp_path / "a.png").write_bytes(b"")
    page = tmp_path / "page.html"
    page.write_text('<a href="https://arxiv.org/abs/2509.23092">paper</a><img src="a.png">', encoding="utf-8")
    assert list(builder().outside(page)) == []


@pytest.mark.parametrize("name", ["Figure size 540x420 with 30 Axes", "studies.x.Law object at 0x7f12ab"])
def test_the_builder_refuses_an_output_that_only_names_its_object(tmp_path, name):
    """Assert that a drawing which a page shows as a line of text is found, and a number in angle brackets is not."""
    page = tmp_path / "page.html"
    page.write_text(f"<pre>&lt;{name}&gt;</pre>", encoding="utf-8")
    assert list(builder().unseen(page))
    page.write_text("<pre>&lt;3 of 4 Axes&gt;</pre>", encoding="utf-8")
    assert list(builder().unseen(page)) == []


def test_every_example_is_short_and_on_its_page():
    """Assert at most forty lines of code each, and that the page that runs them shows all of them."""
    page = (BOOK / "howto" / "examples.md").read_text(encoding="utf-8")
    scripts = sorted((BOOK / "examples").glob("*.py"))
    assert len(scripts) == 6
    for script in scripts:
        assert sum(bool(line.strip()) for line in script.read_text(encoding="utf-8").splitlines()) <= 40, script.name
        assert f"../examples/{script.name}" in page
        assert f'shown("{script.stem}"' in page


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A browser for all tests of the built book."""
    if not pages():
        pytest.skip("the book is not built: run python book/build.py first")
    with browsing(tmp_path_factory.mktemp("browser")) as page:
        yield page


# Formulas within a line of prose that run beyond the edge, where nothing scrolls; displayed ones and tables do.
CUT = """[...document.querySelectorAll('.bd-article mjx-container:not([display=true])')]
  .filter(e => !e.closest('table') && (e.querySelector('svg') || e).getBoundingClientRect().right > innerWidth)
  .map(e => e.textContent)"""


@pytest.mark.browser
@pytest.mark.parametrize("part", range(4))
def test_every_page_of_the_book_reads_well_in_a_browser(tab, part):
    """Assert no console errors, rendered formulas, figures with text alternatives, no sideways scroll on a phone."""
    for page in pages()[part::4]:
        tab.open(page, width=1100)
        seen = tab.look()
        assert not seen.console, (page, seen.console)
        assert all(image["alt"] for image in seen.images), page
        assert all(image["natural"][0] > 0 for image in seen.images), page
        assert seen.typeset >= seen.formulas, page
        assert not seen.broken, page
        assert "\\(" not in seen.text, page
        assert seen.width <= seen.view, (page, seen.width)
        tab.resize(400)
        assert (narrow := tab.look()).width <= narrow.view, (page, narrow.width)
        assert not tab.evaluate(CUT), page


FOCUS = """(() => { const e = document.activeElement, style = getComputedStyle(e);
  return {text: (e.innerText || e.getAttribute('aria-label') || e.title || '').trim(), tag: e.tagName,
          seen: style.outlineStyle !== 'none', inside: !!e.closest('main article'),
          menu: !!e.closest('.bd-sidebar-primary nav')}; })()"""


@pytest.mark.browser
def test_the_keyboard_reaches_everything(tab):
    """Assert the tab order: skip link, search, menu, page; each stop is named and visible, and the way ends."""
    tab.open(PAGES / "index.html", width=1200)
    stops = []
    for _ in range(200):
        tab.press("Tab")
        if (stop := tab.evaluate(FOCUS))["tag"] == "BODY":
            break
        stops.append(stop)
    assert len(stops) < 200
    assert stops[0]["text"] == "Skip to main content"
    kinds = ["search" if s["text"].startswith("Search") else "menu" if s["menu"] else "page" for s in stops[1:]]
    assert kinds.index("search") < kinds.index("menu") < len(kinds) - kinds[::-1].index("page")
    assert all(stop["text"] for stop in stops)
    assert [stop["text"] for stop in stops if not stop["seen"]] == []
    assert sum(stop["menu"] for stop in stops) == len(pages()) - len(UNLISTED)


@pytest.mark.browser
def test_the_skip_link_leads_past_the_menu(tab):
    """Assert that after it the next stop is in the main part."""
    tab.open(PAGES / "index.html", width=1200)
    tab.press("Tab")
    tab.press("Enter")
    tab.until("location.hash === '#main-content'")
    tab.press("Tab")
    assert tab.evaluate("!!document.activeElement.closest('main')")


@pytest.mark.browser
def test_waiting_outlives_the_page_that_was_asked(tab, tmp_path):
    """Assert that a page that goes before it has answered is no error of the test: the next one is asked."""
    first, second = tmp_path / "first.html", tmp_path / "second.html"
    first.write_text("<script>setTimeout(() => { location = 'second.html'; }, 200)</script>", encoding="utf-8")
    second.write_text("<title>second</title>", encoding="utf-8")
    tab.open(first)
    tab.until("new Promise(r => setTimeout(() => r(document.title === 'second'), 600))")
    assert tab.evaluate("document.title") == "second"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("resample", "reference/readings.html"),
        ("anchor", "reference/glossary.html"),
        ("hutchinson", "theory/densities.html"),
        ("slurm", "howto/cluster.html"),
    ],
)
def test_search_works_by_keyboard_and_from_a_file(tab, words, page):
    """Assert that Ctrl-K, words and Enter list the page that has them, without an error."""
    tab.open(PAGES / "index.html", width=1200)
    tab.press("k", control=True)
    tab.until("document.activeElement.name === 'q'")
    tab.write(words)
    tab.press("Enter")
    tab.until("location.pathname.endsWith('search.html') && !!document.querySelector('#search-results li a')")
    tab.until("/finished|fulfilled/i.test(document.querySelector('#search-results').innerText)")
    result = tab.evaluate("[...document.querySelectorAll('#search-results li a')].map(a => a.getAttribute('href'))")
    assert page in [address.split("#")[0].split("?")[0] for address in result]
    assert not tab.console


@pytest.mark.browser
def test_internal_links_of_the_book_lead_somewhere():
    """Assert that every relative link names a page that exists and an anchor on it."""
    broken = []
    anchors = {page.resolve(): set(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8"))) for page in pages()}
    for page in pages():
        for file, anchor in re.findall(r'<a [^>]*href="([^"#?:]*)(?:#([^"]*))?"', page.read_text(encoding="utf-8")):
            goal = (page.parent / file).resolve() if file else page.resolve()
            if not goal.is_file() or (anchor and goal in anchors and anchor not in anchors[goal]):
                broken.append((page.name, file, anchor))
    assert not broken


@pytest.mark.browser
def test_every_public_name_has_an_entry_with_its_signature():
    """Assert that each name of the frozen surface is an anchor of the reference."""
    text = "".join(page.read_text(encoding="utf-8") for page in sorted((PAGES / "reference").glob("*.html")))
    known = set(re.findall(r'\bid="([^"]+)"', text))
    for room in (oracles, sensitivity, studies.verification):
        for name in room.__all__:
            value = getattr(room, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert re.sub(r"[^a-z0-9]+", "-", f"{value.__module__}.{name}".lower()).strip("-") in known, name
