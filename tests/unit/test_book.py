"""The built book: nothing external is loaded, links lead somewhere, and every page reads well in a real browser."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from support.browser import visit

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


def beside(folder):
    """A copy of the book in which pages can be instrumented."""
    copy = folder / "book"
    shutil.copytree(PAGES, copy)
    return copy


@pytest.mark.browser
def test_every_page_of_the_book_reads_well_in_a_browser(tmp_path):
    """Assert no console errors, rendered formulas, figures with text alternatives, no sideways scroll on a phone."""
    found = pages()
    if not found:
        pytest.skip("the book is not built: run python book/build.py first")
    copy = beside(tmp_path)
    for page in found:
        place = copy / page.relative_to(PAGES)
        text = place.read_text(encoding="utf-8")
        for width in (1200, 400):
            seen = visit(place, place.parent, width=width)
            assert not [line for line in seen.console if "ERROR" in line], (page, seen.console)
            assert seen.width <= max(seen.view, 500) + 1, (page, width, seen.width)
        assert all(image["alt"] for image in seen.images), page
        assert all(image["natural"][0] > 0 for image in seen.images), page
        formulas = len(re.findall(r'class="math notranslate', text))
        assert not formulas or "\\(" not in seen.text.replace("\\(\\)", ""), page


@pytest.mark.browser
def test_internal_links_of_the_book_lead_somewhere():
    """Assert that every relative link names a page that exists and an anchor on it."""
    broken = []
    for page in pages():
        for file, anchor in re.findall(r'<a [^>]*href="([^"#?:]*)(?:#([^"]*))?"', page.read_text(encoding="utf-8")):
            goal = (page.parent / file).resolve() if file else page
            if not goal.is_file() or (anchor and not has_anchor(goal, anchor)):
                broken.append((page.name, file, anchor))
    assert not broken


def has_anchor(page, anchor):
    """Whether a page has an element of that id; other files have no anchors to miss."""
    return page.suffix != ".html" or f'id="{anchor}"' in page.read_text(encoding="utf-8")
