"""The page in a real browser, which hears a recording in place of a microphone."""

import base64
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from playwright.sync_api import Browser, Page, WebSocket, WebSocketRoute, sync_playwright

import lalia
from lalia.audio import Audio
from lalia.checkpoints import KNOWN, cached
from lalia.evaluation.benchmarks import questions
from lalia.evaluation.text import WhisperEnglish, word_edits
from lalia.model import Model, dialogue
from lalia.realtime.framed import Framed
from lalia.server.settings import Settings
from lalia.server.talkers import Talker, Talkers
from lalia.tokenizers import soft_text
from server_clients import Running

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
PAGE = Path(__file__).parents[2] / "src/lalia/server/page"
QUESTION = questions()[0]
RATE = 24_000
LONG = 200.0
"""Seconds after which what should come does not: machines may be slow."""

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)")


# -- a server, a browser, a page -----------------------------------------------------------------


@pytest.fixture(autouse=True)
def talkative(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model alone takes whatever it hears for a question."""
    if "real" not in request.fixturenames:
        monkeypatch.setattr(soft_text.Heard, "understood", True)
        monkeypatch.setattr(dialogue, "in_circles", lambda ids: False)


@pytest.fixture(scope="module")
def tiny(talker: Talker) -> Iterator[Running]:
    running = Running(Talkers([talker]), Settings(grace=0.1))
    yield running
    running.close()


@pytest.fixture(scope="module")
def mini() -> Model:
    if any(cached(KNOWN[name]) is None for name in ("whisper-tiny.en", "smollm2-135m-instruct")):
        pytest.skip("needs the weights of whisper-tiny.en and smollm2-135m-instruct")
    return lalia.load("mini")


@pytest.fixture(scope="module")
def real(mini: Model) -> Iterator[Running]:
    running = Running(Talkers([Talker("mini", mini)]), Settings(grace=0.1))
    yield running
    running.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Whenever its microphone is opened, it hears a question, and then silence."""
    asked = QUESTION.load()
    samples = soxr.resample(asked.samples[0, 0].numpy(), asked.sample_rate, 48_000)
    heard = np.concatenate([np.zeros(24_000), samples, np.zeros(48_000 * 300)])
    path = tmp_path_factory.mktemp("microphone") / "question.wav"
    soundfile.write(path, heard, 48_000, subtype="PCM_16")
    arguments = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}%noloop",
        "--autoplay-policy=no-user-gesture-required",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@dataclass
class Opened:
    """A page, and what went between it and the server."""

    page: Page
    sent: list[Any] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def ask(self, expression: str) -> Any:
        """Of the conversation ``c``."""
        return self.page.evaluate(f"import('/page/app.js').then(({{ conversation: c }}) => {expression})")

    def wait(self, expression: str) -> Any:
        """Until it is true; a policy without eval leaves asking again and again."""
        until = time.monotonic() + LONG
        while not (found := self.ask(expression)):
            assert time.monotonic() < until, f"{expression} never came; {self.ask('[c.state, c.turns]')}"
            self.page.wait_for_timeout(50)
        return found

    def type(self, text: str) -> None:
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    def row(self, number: int) -> str:
        return self.page.locator("#transcript li p").nth(number).inner_text()

    def kinds(self, events: list[Any]) -> list[str]:
        return [e["type"] for e in events]

    def recording(self, to: Path) -> np.ndarray:
        """What the page gives to keep [2, N]: the user, and the model."""
        with self.page.expect_download() as download:
            self.page.click("#save-audio")
        download.value.save_as(to)
        samples, rate = soundfile.read(to, dtype="int16")
        assert (rate, samples.shape[1]) == (RATE, 2)
        return np.asarray(samples.T)

    def sound(self) -> np.ndarray:
        """What the server sent of the last reply."""
        deltas = [e for e in self.received if e["type"] == "response.output_audio.delta"]
        last = [e["delta"] for e in deltas if e["item_id"] == deltas[-1]["item_id"]]
        return np.frombuffer(b"".join(base64.b64decode(d) for d in last), "<i2")


Open = Callable[..., Opened]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """``opened(server, **context)``: everything that it asks for is the server's, and nothing is amiss."""
    contexts: list[tuple[Any, Opened, tuple[str, ...]]] = []

    def open_page(
        at: Running, *, before: str = "", expected: tuple[str, ...] = (), wait: bool = True, **context: Any
    ) -> Opened:
        made = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **context})
        page = made.new_page()
        page.set_default_timeout(1000 * LONG)
        talk = Opened(page)
        contexts.append((made, talk, expected))
        page.on("pageerror", lambda error: talk.complaints.append(str(error)))
        page.on("console", lambda m: m.type in ("error", "warning") and talk.complaints.append(m.text))
        page.on("request", lambda r: r.url.startswith((f"{at.url}/", "blob:")) or talk.complaints.append(r.url))

        def socket_opened(ws: WebSocket) -> None:
            def message(data: str | bytes) -> Any:
                return data if isinstance(data, bytes) else json.loads(data)

            ws.on("framesent", lambda data: talk.sent.append(message(data)))
            ws.on("framereceived", lambda data: talk.received.append(message(data)))

        page.on("websocket", socket_opened)
        if before:
            page.add_init_script(before)
        page.goto(at.url)
        if wait:
            page.wait_for_selector("body[data-state=off]")
        return talk

    yield open_page
    for made, talk, expected in contexts:
        amiss = [text for text in talk.complaints if not any(re.search(x, text) for x in expected)]
        made.close()
        assert not amiss


def words_wrong(said: str, heard: str) -> float:
    normal = WhisperEnglish()
    return word_edits(normal(said), normal(heard)).rate


# -- with real weights ---------------------------------------------------------------------------


def test_a_spoken_question_is_answered_aloud(real: Running, mini: Model, opened: Open, tmp_path: Path) -> None:
    talk = opened(real)
    talk.page.click("#talk")
    talk.wait("c.turns.at(-1)?.role === 'model' && c.turns.at(-1).state === 'done'")
    assert words_wrong(QUESTION.text, talk.row(0)) <= 0.2
    said = talk.row(1)
    user, model = talk.recording(tmp_path / "talk.wav")
    (at, until) = talk.ask("(({ at, until }) => [at, until])(c.timeline.marks.find((m) => m.kind === 'latency'))")
    read = mini.transcribe(Audio(torch.from_numpy(model[until:] / 32768).float()[None, None], RATE))
    assert words_wrong(said, read) <= 0.4, (said, read)
    # The user is on the other side, before the model, on the same time line.
    assert np.abs(user[:at]).max() > 1000
    assert np.abs(model[:until]).max() == 0
    assert np.abs(model[until : until + RATE // 2]).max() > 300
    assert talk.page.inner_text("#latency-last") == f"{1000 * (until - at) // RATE} ms"
    assert talk.page.inner_text("#latency-median") == talk.page.inner_text("#latency-last")
    told = talk.page.inner_text("[role=log]")
    assert said in told, "read out by a screen reader"
    with talk.page.expect_download() as download:
        talk.page.click("#save-text")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert re.search(rf"\[0:0\d] You: {re.escape(talk.row(0))}\n\[\d:\d\d] mini: {re.escape(said)}\n", text)


def test_who_speaks_interrupts(real: Running, opened: Open, tmp_path: Path) -> None:
    talk = opened(real)
    talk.type("Tell me a long story about a sailor.")
    talk.wait("c.turns[1]?.played > 12000")
    talk.page.click("#talk")
    talk.wait("c.timeline.marks.some((m) => m.kind === 'interruption')")
    (mark,) = talk.ask("c.timeline.marks.filter((m) => m.kind === 'interruption')")
    assert 0 <= mark["until"] - mark["at"] <= 0.25 * RATE, "samples from the news that somebody speaks to silence"
    talk.wait("c.turns[3]?.state === 'done'")
    cut = talk.ask("c.turns[1]")
    assert cut["state"] == "cut"
    (truncated,) = (e for e in talk.sent if e["type"] == "conversation.item.truncate")
    assert truncated["item_id"] == cut["id"]
    assert truncated["audio_end_ms"] == 1000 * cut["played"] // RATE
    assert 0 < cut["played"] < cut["received"]
    assert "conversation.item.truncated" in talk.kinds(talk.received)
    assert "interrupted" in talk.row(1)
    model = talk.recording(tmp_path / "talk.wav")[1]
    assert np.abs(model[mark["until"] : talk.ask("c.turns[3].at")]).max() == 0
    # What was not heard is struck out: of the words, as many as the server says were heard are left.
    heard = next(e for e in talk.received if e["type"] == "conversation.item.retrieved")["item"]["content"][0]
    struck = talk.page.locator("#transcript li").nth(1).locator("del").inner_text()
    assert struck
    assert talk.row(1).startswith(heard["transcript"])
    assert cut["text"].endswith(struck)


# -- with a tiny model ---------------------------------------------------------------------------


def test_the_recording_is_what_was_played(tiny: Running, opened: Open, tmp_path: Path) -> None:
    talk = opened(tiny)
    talk.type("Hello.")
    turn = talk.wait("c.turns[1]?.state === 'done' && c.turns[1]")
    sent = talk.sound()
    assert turn["played"] == turn["received"] == len(sent)
    model = talk.recording(tmp_path / "talk.wav")[1]
    # Where the server was slow, silence is between the pieces, and nothing is lost.
    played = model[turn["at"] :]
    assert np.abs(played[played != 0].astype(int) - sent[sent != 0][: np.count_nonzero(played)]).max() <= 1


def test_one_that_speaks_while_it_hears(
    moshi: Talker, talker: Talker, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, frames = Framed.take, iter(range(10**6))

    def two_seconds_of_four(self: Framed) -> tuple[Audio, str]:
        audio, text = plain(self)
        on = next(frames) % 50 < 25
        return Audio(audio.samples * on, audio.sample_rate), text if on else ""

    monkeypatch.setattr(Framed, "take", two_seconds_of_four)
    running = Running(Talkers([talker, moshi]), Settings(grace=0.1, keys=("secret",)))
    talk = opened(running, before="sessionStorage.setItem('lalia.key', 'secret')")
    talk.page.select_option("#model", "moshi")
    assert talk.page.is_disabled("#message")
    assert talk.page.is_disabled("[name=mode][value=push]")
    talk.page.click("#talk")
    first = talk.wait("c.turns[0]?.state === 'done' && c.turns[0]")
    assert first["role"] == "model"
    assert first["played"] == first["received"] >= RATE, "two seconds of sound and the silence that ended it"
    talk.wait("c.turns[1]?.played > 4000")
    talk.page.keyboard.press("Escape")
    assert talk.wait("c.turns[1]?.state === 'cut'")
    assert not talk.ask("c.active")
    talk.wait("c.turns[2]?.played > 4000")  # behind the next silence it is heard again
    user, model = talk.recording(tmp_path / "talk.wav")
    assert min(np.abs(user).max(), np.abs(model).max()) > 1000
    heard = [m for m in talk.sent if isinstance(m, bytes)]
    assert {m[0] for m in heard} == {1}
    assert sum(len(m) - 1 for m in heard) > 2 * 2 * RATE
    # To the other model it talks as before.
    talk.page.select_option("#model", "mini")
    assert talk.page.is_enabled("#message")
    talk.type("Hello.")
    talk.wait("c.turns.some((t) => t.role === 'user' && t.text === 'Hello.')")
    running.close()


def test_where_the_browser_has_another_rate_the_worklets_resample(tiny: Running, opened: Open, tmp_path: Path) -> None:
    other = """
        window.AudioContext = class extends AudioContext {
          constructor(options) {
            if (options.sampleRate) throw new DOMException("no", "NotSupportedError");
            super({ ...options, sampleRate: 44100 });
          }
        };
    """
    talk = opened(tiny, before=other)
    talk.page.click("#talk")
    talk.wait("c.turns[1]?.state === 'done'")
    assert talk.ask("c.sound.context.sampleRate") == 44_100
    user, model = talk.recording(tmp_path / "talk.wav")
    asked = QUESTION.load().to(RATE).samples[0, 0].numpy()
    assert _alike(user / 32768, asked) > 0.4, "as far as the browser leaves it as it is"
    sent = talk.sound() / 32768
    # A reply begins in small pieces; on a busy machine there is silence in between, so not every second is whole. How
    # long it is hangs on what was heard, and the browser's microphone begins where it likes.
    long = min(RATE, len(sent))
    seconds = [sent[i : i + long] for i in range(0, len(sent) - long + 1, long)]
    assert max(_alike(model / 32768, second) for second in seconds) > 0.7, (
        "random sound; what is near the edge of the band is lost"
    )


def _alike(sound: np.ndarray, part: np.ndarray) -> float:
    """How much like a part a sound is where it is most."""
    n = len(sound) + len(part)
    product = np.fft.irfft(np.fft.rfft(sound, n) * np.conj(np.fft.rfft(part, n)), n)
    at = int(np.abs(product[: len(sound)]).argmax())
    there = sound[at : at + len(part)]
    return float(product[at] / max(1e-9, np.linalg.norm(there) * np.linalg.norm(part)))


def test_it_is_used_by_keyboard_alone(tiny: Running, opened: Open) -> None:
    talk = opened(tiny)
    page = talk.page
    order, unseen = [], []
    for _ in range(40):
        page.keyboard.press("Tab")
        at = page.evaluate("document.activeElement.id || document.activeElement.name || document.activeElement.tagName")
        if at == "BODY" or at in order:
            break
        order.append(at)
        shown = "const e = document.activeElement; const f = e.name === 'mode' ? e.nextElementSibling : e"
        style = page.evaluate(
            f"() => {{ {shown}; const s = getComputedStyle(f); return s.outlineStyle + s.outlineWidth }}"
        )
        if style.startswith("none") or style.endswith(" 0px"):
            unseen.append(at)
    assert order == ["language", "theme", "talk", "stop", "message", "send", "voice", "mode", "instructions"], order
    assert not unseen, "the focus is seen wherever it is"
    # A message, and Escape.
    page.focus("#theme")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.type("Hello.")
    page.keyboard.press("Enter")
    talk.wait("c.turns[1]?.played > 0")
    page.keyboard.press("Escape")
    talk.wait("c.turns[1].state === 'cut' && c.state === 'ready'")
    assert "conversation.item.truncate" in talk.kinds(talk.sent)
    # Hold to talk.
    page.focus("[name=mode]:checked")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("[value=push]")
    talk.wait("!c.settings.handsFree")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.down(" ")
    talk.wait("c.pressed > 24000")
    assert page.inner_text("#talk") == "Release to send"
    page.keyboard.up(" ")
    assert page.inner_text("#talk") == "Hold to talk"
    talk.wait("c.turns.length >= 4 && c.turns[2].role === 'user' && c.turns[3].played > 0")
    kinds = talk.kinds(talk.sent)
    assert kinds.index("input_audio_buffer.commit") < len(kinds) - 1 - kinds[::-1].index("response.create")
    update = [e for e in talk.sent if e["type"] == "session.update"][-1]
    assert update["session"]["audio"]["input"]["turn_detection"] is None
    # The button by its own keys, over a reply: that stops.
    page.focus("#talk")
    page.keyboard.down("Enter")
    talk.wait("c.pressed > 0 && c.turns[3].state !== 'open'")
    page.keyboard.up("Enter")


@pytest.mark.parametrize("tag", ["en-US", "zh-TW"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_its_colours_are_legible(tiny: Running, opened: Open, tag: str, scheme: str) -> None:
    phone = {"width": 360, "height": 640}
    talk = opened(tiny, locale=tag, color_scheme=scheme, viewport=phone, reduced_motion="reduce")
    page = talk.page
    assert page.get_attribute("html", "lang") == tag.removesuffix("-US")
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) == 360
    talk.type("Supercalifragilisticexpialidocious" * 3)
    talk.wait("c.turns[1]?.text.length > 20")
    assert page.evaluate(wide) == 360
    assert page.evaluate("document.getAnimations().length") == 0, "nothing moves where that is not wanted"
    page.keyboard.press("Escape")
    page.click("#settings-open")
    assert page.evaluate("document.activeElement.id") == "settings-close"
    assert page.evaluate(wide) == 360
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "settings-open"
    assert not page.is_visible("#settings")
    dark = [scheme == "dark"]
    for _ in range(2):
        names = ("paper", "sheet", "ink", "faint", "user", "model", "cut", "on-user")
        paper, sheet, *inks, on_user = (_luminance(_color(page, name)) for name in names)
        assert (paper < 0.1) == dark[-1]
        assert min(_contrast(ink, ground) for ink in inks for ground in (paper, sheet)) >= 4.5
        assert _contrast(on_user, inks[2]) >= 4.5
        page.click("#theme")
        dark.append(not dark[-1])
    page.reload()
    assert (_luminance(_color(page, "paper")) < 0.1) == dark[-1], "what was chosen is remembered"


def _color(page: Page, name: str) -> list[float]:
    draw = """name => {
        const g = document.createElement("canvas").getContext("2d");
        g.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
        g.fillRect(0, 0, 1, 1);
        return [...g.getImageData(0, 0, 1, 1).data].slice(0, 3).map((x) => x / 255);
    }"""
    found: list[float] = page.evaluate(draw, name)
    return found


def _luminance(color: list[float]) -> float:
    r, g, b = (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in color)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def test_both_languages_say_everything(tiny: Running, opened: Open) -> None:
    page = opened(tiny).page
    strings = page.evaluate("import('/page/strings.js').then(({ STRINGS }) => STRINGS)")
    english, chinese = strings["en"], strings["zh-TW"]
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert chinese[key].strip()
        assert re.findall(r"\{\w+}", text) == re.findall(r"\{\w+}", chinese[key])
    assert [k for k in english if english[k] == chinese[k]] == []
    used = set(re.findall(r'data-(?:t|label|hint|title)="([\w.-]+)"', (PAGE / "index.html").read_text()))
    for file in PAGE.glob("*.js"):
        used |= set(re.findall(r'\b(?:t|notice)\("([\w.-]+)"', file.read_text()))
    assert used <= set(english)
    page.click("#language")
    assert page.inner_text("#talk") == chinese["talk.start"]
    assert page.get_attribute("html", "lang") == "zh-TW"
    nameless = """[...document.querySelectorAll("button, input, select, textarea, [role=img]")].filter(
        (e) => !(e.getAttribute("aria-label") || e.labels?.length || e.innerText || e.getAttribute("aria-labelledby"))
    ).map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []


@pytest.mark.parametrize(("name", "words"), [("NotAllowedError", "was refused"), ("NotFoundError", "No microphone")])
def test_without_a_microphone_one_types(tiny: Running, opened: Open, name: str, words: str) -> None:
    refuse = f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('no', '{name}') }}"
    talk = opened(tiny, before=refuse)
    talk.page.click("#talk")
    talk.page.wait_for_selector("#notice:visible")
    assert words in talk.page.inner_text("#notice")
    talk.type("Hello.")
    talk.wait("c.turns[1]?.played > 0")
    assert not talk.page.is_visible("#notice")


def test_without_https_one_reads(tiny: Running, opened: Open) -> None:
    talk = opened(tiny, before="Object.defineProperty(window, 'isSecureContext', { value: false })")
    assert "https" in talk.page.inner_text("#notice")
    talk.type("Hello.")
    talk.wait("c.turns[1]?.state === 'done'")
    assert talk.row(1)
    assert "response.output_audio.delta" not in talk.kinds(talk.received)


def test_a_lost_connection_is_told_and_comes_back(tiny: Running, opened: Open) -> None:
    talk = opened(tiny)
    sockets: list[WebSocketRoute] = []

    def through(route: WebSocketRoute) -> None:
        sockets.append(route)
        route.connect_to_server()

    talk.page.route_web_socket("**/v1/realtime*", through)
    talk.type("Hello.")
    talk.wait("c.turns[1]?.state === 'done'")
    sockets[0].close(code=4000)
    talk.page.wait_for_selector(".turn.break")
    talk.wait("c.state === 'ready'")
    assert len(sockets) == 2
    talk.type("And again?")
    talk.wait("c.turns.at(-1).role === 'model' && c.turns.at(-1).state !== 'open'")
    # The new session knows what was said in the old one.
    (connection,) = (c for c in tiny.server.connections if any(e.text == "And again?" for e in _entries(c)))
    assert [(e.role, e.text) for e in _entries(connection)][:3] == [
        ("user", "Hello."),
        ("assistant", talk.ask("c.turns[1].text.trim()")),
        ("user", "And again?"),
    ]


def _entries(connection: Any) -> list[Any]:
    found: list[Any] = connection.session.conversation.entries
    return found


def test_a_key_is_asked_for(talker: Talker, opened: Open) -> None:
    at = Running(Talkers([talker]), Settings(grace=0.1, keys=("open/sesame=",)))
    talk = opened(at, wait=False, expected=("401",))
    page = talk.page
    page.wait_for_selector("#key-dialog[open]")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-wrong:visible")
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", "sésame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-wrong:visible")
    page.fill("#key", "open/sesame=")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-state=off]")
    talk.type("Hello.")
    talk.wait("c.turns[1]?.played > 0")
    page.reload()
    page.wait_for_selector("body[data-state=off]")
    at.close()


def test_everybody_who_stops_a_reply_is_answered(tiny: Running, opened: Open) -> None:
    """As a new conversation does twice: whoever stops the next one would else get the answer of the last."""
    talk = opened(tiny)
    talk.type("Hello.")
    talk.wait("c.turns[1]?.played > 0")
    late = "new Promise((tell) => setTimeout(tell, 5000, 'late'))"
    told = f"Promise.race([Promise.all([c.sound.stop(), c.sound.stop()]).then((all) => all.length), {late}])"
    assert talk.ask(told) == 2


def test_who_is_heard_when_turns_are_to_be_taken_by_hand_is_heard_no_more(tiny: Running, opened: Open) -> None:
    talk = opened(tiny)
    talk.type("Hello.")
    talk.wait("c.turns[1]?.state === 'done'")
    talk.ask("{ c.hearing = true; }")
    assert talk.ask("c.state") == "hearing"
    talk.page.check("[name=mode][value=push]", force=True)
    assert talk.ask("c.state") == "ready"


def test_replies_of_another_socket_are_others(tiny: Running, opened: Open) -> None:
    script = """async () => {
        const { Chat } = await import("/page/chat.js");
        const items = [];
        for (let i = 0; i < 2; i++) {
          const chat = new Chat((event) => event.type === "response.created" && items.push(event.response.id));
          const loud = new Uint8Array(5).fill(100);
          loud[0] = 1;
          chat.received(loud.buffer);
        }
        return new Set(items).size;
    }"""
    assert opened(tiny).page.evaluate(script) == 2


def test_nothing_but_its_own_files_may_run(tiny: Running, opened: Open) -> None:
    page = opened(tiny, expected=("Content Security Policy",)).page
    response = page.request.get(f"{tiny.url}/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), { text: 'window.ran = 1' }))")
    assert page.evaluate("window.ran") is None


# -- its parts -----------------------------------------------------------------------------------


def test_resampled_in_pieces_it_is_the_same_tone(tiny: Running, opened: Open) -> None:
    page = opened(tiny).page
    script = """async ([from, to, pieces]) => {
        const { Resampler } = await import("/page/resample.js");
        const tone = Float32Array.from({ length: from / 2 }, (_, i) => Math.sin((2 * Math.PI * 440 * i) / from));
        const resampler = new Resampler(from, to);
        const out = [];
        for (let i = 0, k = 0; i < tone.length; k++) {
          const n = pieces[k % pieces.length];
          out.push(...resampler.push(tone.subarray(i, i + n)));
          i += n;
        }
        return [...out, ...resampler.flush()];
    }"""
    for rate in (8000, 16_000, 44_100, 48_000, 96_000):
        for start, to in ((rate, RATE), (RATE, rate)):
            whole, cut = (np.array(page.evaluate(script, [start, to, pieces])) for pieces in ([start], [128, 1, 977]))
            assert abs(len(whole) - to / 2) <= 1
            np.testing.assert_array_equal(whole, cut)
            expected = np.sin(2 * np.pi * 440 * np.arange(len(whole)) / to)
            assert np.abs(whole - expected)[to // 50 : -to // 50].max() < 2e-3, (start, to)


def test_what_would_fold_back_is_gone(tiny: Running, opened: Open) -> None:
    script = """async () => {
        const { Resampler } = await import("/page/resample.js");
        const high = Float32Array.from({ length: 24000 }, (_, i) => Math.sin((2 * Math.PI * 15000 * i) / 48000));
        return [...new Resampler(48000, 24000).push(high)];
    }"""
    out = np.array(opened(tiny).page.evaluate(script))
    assert np.abs(out[200:-200]).max() < 1e-3


def test_a_time_line_is_kept_in_two_channels(tiny: Running, opened: Open, tmp_path: Path) -> None:
    script = """async () => {
        const { Timeline, USER, MODEL } = await import("/page/timeline.js");
        const line = new Timeline(1000);
        line.write(USER, 1000, Float32Array.from({ length: 48000 }, () => 0.5));
        line.write(MODEL, 1000 + 239990, Float32Array.from({ length: 20 }, () => -0.25));
        line.write(MODEL, 1000 + 720000, Float32Array.from({ length: 10 }, () => 2));
        line.write(USER, 0, new Float32Array(10).fill(1));
        const bytes = new Uint8Array(await line.wav().arrayBuffer());
        let text = "";
        for (const byte of bytes) text += String.fromCharCode(byte);
        const kinds = line.segments.map((s) => s?.constructor.name);
        return [btoa(text), line.peak(USER, 0, 200), line.peak(USER, 200, 300), kinds];
    }"""
    data, loud, quiet, kinds = opened(tiny).page.evaluate(script)
    path = tmp_path / "line.wav"
    path.write_bytes(base64.b64decode(data))
    samples, rate = soundfile.read(path, dtype="int16")
    assert (rate, samples.shape) == (RATE, (720_010, 2))
    assert (samples[:48_000, 0] == 16_384).all()
    assert not samples[48_000:, 0].any()
    assert samples[239_990:240_010, 1].tolist() == [-8192] * 20
    assert samples[720_000:, 1].tolist() == [32_767] * 10
    assert (loud, quiet) == (pytest.approx(0.5, abs=0.01), 0)
    assert kinds == ["Blob", "Blob", None, "Int16Array"], "what is long past need not be in memory"


def test_samples_survive_the_wire(tiny: Running, opened: Open) -> None:
    script = """async () => {
        const { fromBase64, toBase64, toFloat, toInt16 } = await import("/page/pcm.js");
        const values = Int16Array.from({ length: 70000 }, (_, i) => (i % 65536) - 32768);
        const back = fromBase64(toBase64(values));
        const clipped = [...toInt16(Float32Array.of(-2, -1, 0, 1, 2))];
        return [values.every((v, i) => v === back[i]), back.length, clipped, toFloat(Int16Array.of(-32768))[0]];
    }"""
    assert opened(tiny).page.evaluate(script) == [True, 70_000, [-32_767, -32_767, 0, 32_767, 32_767], -1]


def test_every_file_is_used() -> None:
    text = "".join(p.read_text() for p in PAGE.iterdir())
    unused = {p.name for p in PAGE.iterdir() if not re.search(rf'[/"]{re.escape(p.name)}"', text)}
    assert unused == {"index.html"}
