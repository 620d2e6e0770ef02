"""A listening test as it is served: what is sent, what it does not tell, and a browser that takes part."""

import contextlib
import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Page, sync_playwright

from lalia.cli import main
from lalia.errors import ConfigError
from lalia.evaluation.listening_test import ListeningTest, Material, analyse_folder, read_ratings
from lalia.server import listening_test as served
from lalia.server.listening_test import application, is_local, run

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), "")
PAGE = Path(served.__file__).parent / "listening_page"
RATE = 8000
NAMES = ("zebra-system", "quokka-system")


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in (*NAMES, "prompts-zone")}
    for s, folder in enumerate(found.values()):
        folder.mkdir()
        for i in range(6):
            wave = 0.3 * np.sin(2 * np.pi * (200 + 100 * s + i) * np.arange(2400) / RATE)
            with soundfile.SoundFile(folder / f"walrus{i}.flac", "w", RATE, 1, format="FLAC") as file:
                file.title = f"{folder.name} walrus{i}"
                file.write(wave)
    return found


Start = Callable[..., ListeningTest]


@pytest.fixture
def start(folders: dict[str, Path], tmp_path: Path) -> Iterator[Start]:
    made: list[ListeningTest] = []

    def started(kind: Any = "mos", **more: Any) -> ListeningTest:
        material = Material.from_folders({n: folders[n] for n in NAMES}, prompts=folders["prompts-zone"])
        made.append(ListeningTest(material, tmp_path / "test", kind=kind, **more))
        return made[-1]

    yield started
    for test in made:
        test.close()


@pytest.mark.parametrize("kind", ["mos", "mmos", "cmos"])
def test_nothing_tells_whose_it_is(start: Start, tmp_path: Path, kind: str) -> None:
    clock = Clock()
    client = TestClient(application(start(kind, clock=clock)))
    sent: list[bytes] = []

    def kept(response: Any) -> Any:
        sent.append(f"{response.url} {response.headers}".encode() + response.content)
        return response

    tokens: list[str] = []
    rates = set()
    task = kept(client.post("/api/next", json={"code": "ann"})).json()
    while task["screen"]:
        for sound in task["screen"]["sounds"]:
            tokens.append(sound["token"])
            response = kept(client.get(f"/sound/{sound['token']}"))
            assert response.headers["content-type"] == "audio/wav"
            assert not {"etag", "last-modified", "content-disposition"} & set(response.headers)
            samples, rate = soundfile.read(io.BytesIO(response.content))
            rates.add((rate, samples.shape))
        clock.now += 5
        body = {"code": "ann", "screen": task["screen"]["token"], "rating": task["screen"]["choose"] or 1, "plays": 1}
        task = kept(client.post("/api/rate", json=body)).json()
    assert (task["done"], task["total"]) == (9, 9)
    assert rates == {(RATE, (2400,))}
    assert len(set(tokens)) == len(tokens), "what is heard again is called otherwise"
    for wrong in (
        client.get("/sound/nothing"),
        client.get("/nothing"),
        client.post("/api/next", json={"code": ""}),
        client.post("/api/next", json={"code": "=a"}),
        client.post("/api/rate", json={"code": "ann", "screen": "x", "rating": 1}),
        client.post("/api/rate", content=b"nonsense"),
        client.get("/openapi.json"),
        client.get("/docs"),
    ):
        assert 400 <= kept(wrong).status_code < 500
    for file in (tmp_path / "zebra-system").iterdir():
        file.unlink()
    answers = [kept(client.get(f"/sound/{token}")) for token in tokens]
    assert {"error": "server"} in [r.json() for r in answers if r.status_code == 500]
    everything = b"\n".join(sent).lower()
    for name in (*NAMES, "prompts-zone", "walrus", "flac", tmp_path.name.lower()):
        assert name.encode() not in everything
    assert len(read_ratings(tmp_path / "test")) == 9


def test_what_is_refused_is_said(start: Start) -> None:
    clock = Clock()
    client = TestClient(application(start(clock=clock, codes=["ann"])))
    refused = client.post("/api/next", json={"code": "eve"})
    assert (refused.status_code, refused.json()) == (403, {"error": "code"})
    screen = client.post("/api/next", json={"code": "ann"}).json()["screen"]["token"]
    body = {"code": "ann", "screen": screen, "rating": 3}
    early = client.post("/api/rate", json=body)
    assert (early.status_code, early.json()) == (409, {"error": "early"})
    clock.now += 5
    wrong = client.post("/api/rate", json=body | {"rating": 9})
    assert (wrong.status_code, wrong.json()) == (422, {"error": "rating"})
    assert client.post("/api/rate", json=body).json()["done"] == 1
    twice = client.post("/api/rate", json=body)
    assert (twice.status_code, twice.json()) == (409, {"error": "screen"})
    # Pages of others cannot send JSON without being asked for leave, which nobody gives.
    form = client.post("/api/rate", data=body, headers={"Origin": "https://example.org"})
    assert form.status_code == 422
    assert client.options("/api/rate", headers={"Origin": "https://example.org"}).status_code == 405


def test_the_page_lies_in_its_folder(start: Start) -> None:
    test = start()
    client = TestClient(application(test))
    for path in ("/", "/page/app.js", "/page/player.js", "/page/memory.js", "/page/theme.js", "/page/icon.svg"):
        found = client.get(path)
        assert found.status_code == 200, path
        assert "default-src 'self'" in found.headers["content-security-policy"]
    for path in (
        "/page/../listening_test.py",
        "/page/%2e%2e/listening_test.py",
        "/page//etc/passwd",
        "/page/",
        "/page/x",
    ):
        assert client.get(path).status_code == 404, path
    assert client.get("/", headers={"Host": "example.org"}).status_code == 400
    assert TestClient(application(test, local=False)).get("/", headers={"Host": "example.org"}).status_code == 200


def test_only_who_was_asked_comes_from_elsewhere(start: Start) -> None:
    assert [is_local(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")] == [True] * 3 + [
        False
    ] * 2
    with pytest.raises(ConfigError, match="Give --codes FILE"):
        run(start(), host="0.0.0.0", port=1, codes=False, ready=lambda: None)


def test_the_command(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test, a, b = tmp_path / "test", f"zebra={folders[NAMES[0]]}", f"quokka={folders[NAMES[1]]}"
    (tmp_path / "empty").write_text(" \n")
    for arguments, says in (
        ([], "There is no system"),
        ([str(folders[NAMES[0]])], "Give NAME=RECORDINGS"),
        ([a, a], "given twice"),
        ([a, "--kind", "mush"], "no listening test of kind 'mush'"),
        ([a, "--kind", "smos"], "Give --references"),
        ([a, "--manifest", "x.jsonl"], "Give one of them"),
        ([a, b, "--codes", str(tmp_path / "empty")], "has no code"),
        ([a, b, "--host", "0.0.0.0"], "Give --codes FILE"),
        ([a, b, "--ratings", "13"], "Choose from 1 to 12"),
        (["--results"], "Let people listen first"),
    ):
        assert main(["listening-test", str(test), *arguments]) == 2
        told = capsys.readouterr().err
        assert says in told
        assert told.count("\n") == 1


# -- in a browser --------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(test: ListeningTest) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(application(test), port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    if not CHROMIUM:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    arguments = [
        "--autoplay-policy=no-user-gesture-required",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_context(viewport={"width": 900, "height": 800}, locale="en-US").new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        outside = ("http://127.0.0.1", "blob:http://127.0.0.1")
        page.on("request", lambda r: None if r.url.startswith(outside) else complaints.append(r.url))
        yield page
        browser.close()
        assert not [c for c in complaints if "403" not in c]


def test_a_listener_rates(start: Start, page: Page, tmp_path: Path) -> None:
    test = start("mmos", codes=["ann"])
    with serving(test) as url:
        page.goto(url)
        page.fill("#code", "eve")
        page.press("#code", "Enter")
        page.wait_for_selector("#trouble:visible")
        page.fill("#code", "ann")
        page.press("#code", "Enter")
        page.wait_for_selector("#screen:visible")
        assert page.inner_text("#count") == "1 of 9"
        assert [x.inner_text() for x in page.locator(".part").all()] == ["Beginning", "Continuation"]
        # By the mouse: nothing can be chosen before everything is heard.
        page.wait_for_selector(".play:enabled")
        assert page.locator("#scale:disabled").count() == 1
        page.keyboard.press("4")
        assert page.locator("#ratings input:checked").count() == 0
        page.locator(".play").first.click()
        page.wait_for_selector("#scale:enabled")
        assert [x.inner_text() for x in page.locator(".heard").all()] == ["heard", "heard"]
        assert page.is_disabled("#next")
        page.locator("#ratings label").nth(1).click()
        page.click("#next")
        page.get_by_text("2 of 9").wait_for()
        assert page.evaluate("document.activeElement.id") == "question"
        assert page.locator("#ratings input:checked").count() == 0
        # By the keyboard; and it goes on where it was when the page is loaded again.
        page.reload()
        assert page.input_value("#code") == "ann"
        page.press("#code", "Enter")
        page.wait_for_selector(".play:enabled")
        assert page.inner_text("#count") == "2 of 9"
        page.keyboard.press("Space")
        page.wait_for_selector("#scale:enabled")
        page.keyboard.press("2")
        page.click("#language")
        assert page.inner_text("#question") == "內容有多通順合理？"
        assert page.input_value("#ratings input:checked") == "2"
        page.click("#language")
        page.locator("#question").focus()
        page.keyboard.press("Enter")
        page.get_by_text("3 of 9").wait_for()
        # On a phone, in the dark, nothing is wider than the screen.
        page.set_viewport_size({"width": 340, "height": 740})
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    records = read_ratings(tmp_path / "test")
    assert [(r.listener, r.rating, r.plays) for r in records] == [("ann", 4, 2), ("ann", 2, 2)]
    assert analyse_folder(tmp_path / "test")["ratings"] == 2


def test_to_the_end_in_pairs(start: Start, page: Page, tmp_path: Path) -> None:
    with serving(start("cmos", ratings=1)) as url:
        page.goto(url)
        page.fill("#code", "bob")
        page.press("#code", "Enter")
        page.wait_for_selector(".play:enabled")
        page.keyboard.press("Space")
        page.wait_for_selector("#scale:enabled")
        page.keyboard.press("7")
        page.keyboard.press("Enter")
        page.wait_for_selector("#done:visible")
    assert [r.rating for r in read_ratings(tmp_path / "test")] == [3]


def test_both_languages_say_everything(start: Start, page: Page) -> None:
    with serving(start()) as url:
        page.goto(url)
        strings = page.evaluate("import('/page/strings.js').then(({ STRINGS }) => STRINGS)")
    english, chinese = strings["en"], strings["zh-TW"]
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert chinese[key].strip()
        assert sorted(re.findall(r"\{\w+}", text)) == sorted(re.findall(r"\{\w+}", chinese[key]))
    used = set(re.findall(r'data-(?:t|label)="([\w.-]+)"', (PAGE / "index.html").read_text()))
    used |= set(re.findall(r'\bt\("([\w.-]+)"', (PAGE / "app.js").read_text()))
    assert used <= set(english)
