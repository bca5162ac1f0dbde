"""The pages at `/` and `/docs`, in a browser."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
import tiny
from served import Client, Echo, encoded, running

from basereward import Comparison, RewardModel
from basereward.media import Image
from basereward.serving.access import Access
from basereward.serving.app import Server

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(chromium.program() is None, reason="no chromium; apt-get install chromium"),
    # The pipe's ends are handed to the browser by a function between fork and exec.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

KEY = "correct-horse-battery"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


def drop(page: chromium.Page, image: str) -> None:
    """Drop an image of base64 on the page."""
    page.run(
        f"""(() => {{
            const bytes = Uint8Array.from(atob({json.dumps(image)}), letter => letter.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], "cat.png", {{type: "image/png"}}));
            at("drop").dispatchEvent(new DragEvent("drop", {{dataTransfer: files, cancelable: true}}));
        }})()"""
    )
    page.until("document.querySelector('#images img')?.naturalWidth > 0")


def fill(page: chromium.Page, prompt: str, responses: list[str]) -> None:
    page.run(
        f"""(() => {{
            at("prompt").value = {json.dumps(prompt)};
            at("responses").replaceChildren();
            for (const text of {json.dumps(responses)}) addResponse(text);
        }})()"""
    )


def shown(page: chromium.Page) -> list[str]:
    found: list[str] = page.run("[...document.querySelectorAll('.row output')].map(own => own.textContent)")
    return found


def test_a_dropped_image_is_scored_with_the_responses(
    page: chromium.Page, vision: Client, vision_model: Path
) -> None:
    page.open(f"http://127.0.0.1:{vision.port}/")
    page.until("at('model').value === 'sees'")
    image = encoded(tiny.image(84, 56))
    drop(page, image)
    responses = ["a cat sits", "a dog runs on the red mat"]
    fill(page, "what is shown?", responses)
    page.run("at('score').click()")
    page.until("document.querySelector('.row.best') !== null")
    shown_image = Image(base64.b64decode(image))
    [offline] = RewardModel.load(vision_model).score(
        [Comparison("what is shown?", responses, images=[shown_image])]
    )
    assert shown(page) == [f"{reward:.4f}" for reward in offline]
    best = page.run("[...document.querySelectorAll('.row')].findIndex(own => own.classList.contains('best'))")
    assert best == offline.index(max(offline))
    assert "tokens in" in page.run("at('says').textContent")


def test_a_problem_is_told_and_markup_is_text(page: chromium.Page, vision: Client) -> None:
    page.open(f"http://127.0.0.1:{vision.port}/")
    fill(page, "<image> what?", ["<img src=x onerror=alert(1)>"])
    page.run("at('score').click()")
    page.until("at('says').classList.contains('wrong')")
    said = page.run("at('says').textContent")
    assert said == "the prompt has a place for an image that was not sent (items[0])"
    assert page.run("document.querySelectorAll('.row img').length") == 0


def test_a_key_is_asked_for_and_sent(page: chromium.Page) -> None:
    with running(Server([Echo()], access=Access([KEY]))) as client:
        page.open(f"http://127.0.0.1:{client.port}/")
        page.until("at('says').textContent === 'The server asks for a key.'")
        page.run(f"(() => {{ at('key').value = {KEY!r}; at('key').onchange(); }})()")
        page.until("at('model').value === 'echo'")
        fill(page, "what?", ["abc"])
        page.run("at('score').click()")
        page.until("document.querySelector('.row output').textContent !== ''")
        # `Echo` rewards a response by its length, and scores nobody without the key.
        assert shown(page) == ["3.0000"]
        page.until("at('says').textContent.startsWith('echo: ')")


def test_nothing_is_asked_of_another_host_and_nothing_is_blocked(page: chromium.Page, vision: Client) -> None:
    page.events.clear()
    page.open(f"http://127.0.0.1:{vision.port}/")
    page.until("at('model').value === 'sees'")
    asked = {
        event["params"]["request"]["url"]
        for event in page.events
        if event.get("method") == "Network.requestWillBeSent"
    }
    here = f"http://127.0.0.1:{vision.port}/"
    assert {url for url in asked if not url.startswith(here)} == set()
    blocked = [
        event["params"]["entry"]["text"] for event in page.events if event.get("method") == "Log.entryAdded"
    ]
    assert [text for text in blocked if "Content Security Policy" in text] == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", ["", "docs"])
def test_a_page_is_no_wider_than_the_screen(
    path: str, width: int, page: chromium.Page, vision: Client, tmp_path: Path
) -> None:
    page.events.clear()
    page.screenshot(width, 900)  # which sets the size
    page.open(f"http://127.0.0.1:{vision.port}/{path}")
    if path == "docs":
        page.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    (tmp_path / f"{path or 'home'}-{width}.png").write_bytes(page.screenshot(width, 900))
    said = [
        event["params"]["entry"]["text"] for event in page.events if event.get("method") == "Log.entryAdded"
    ]
    assert [text for text in said if "Content Security Policy" in text] == []
