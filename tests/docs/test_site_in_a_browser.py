"""The site of the documents on a phone: no page is wider than the screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest

SITE = Path(__file__).parents[2] / "build/site/site"
WIDTH = 390

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(chromium.program() is None, reason="no chromium; apt-get install chromium"),
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="no build/site/site; make site builds it"),
    # The pipe's ends are handed to the browser by a function between fork and exec.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

WIDER = """[...document.querySelectorAll('main *')]
    .filter(part => part.checkVisibility() && part.getBoundingClientRect().right > innerWidth + 1)
    .filter(part => {
        for (let above = part.parentElement; above; above = above.parentElement)
            if (["auto", "scroll"].includes(getComputedStyle(above).overflowX)) return false;
        return true;
    })
    .map(part => part.outerHTML.slice(0, 120))"""
"""All of a page that ends right of the screen, and in nothing that scrolls: the site hides what is wider."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browsing(tmp_path_factory.mktemp("profile")) as page:
        page.screenshot(WIDTH, 844)  # which sets the size
        yield page


def test_no_page_is_wider_than_a_phone(browser: chromium.Page) -> None:
    pages = sorted(SITE.rglob("index.html"))
    assert len(pages) > 20
    wider = {}
    for path in pages:
        browser.open(path.as_uri())
        if found := browser.run(WIDER):
            wider[path.parent.name] = found[:3]
    assert wider == {}
    # The same look at a page that is too wide.
    wide = '<p style="width: 900px">wide</p>'
    browser.run(f"document.querySelector('main article').insertAdjacentHTML('beforeend', {wide!r})")
    assert browser.run(WIDER) == [wide]
