"""Take a picture of the page in a conversation: ``screenshot.py OUT.png [MODEL]``.

A server is started, and a browser whose microphone is a recording: bundled questions, of which the second interrupts
the answer to the first. The picture shows what happened, and when: take it while the machine does nothing else. Needs
Chromium.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
from playwright.sync_api import Page, ViewportSize, sync_playwright

from lalia.evaluation.benchmarks import questions

ASKED = (
    ("Why do leaves change color in autumn?", 3.5),
    ("Where do penguins live?", 30.0),
)
"""What is asked, and the seconds until the next is."""

READY = """import("/page/app.js").then(({ conversation }) => {
  const [first, second] = conversation.turns.filter((turn) => turn.role === "model");
  return first?.state === "cut" && (second?.played > 60000 || second?.state === "done");
})"""
"""Whether the first answer was interrupted, and more than two seconds of the second were heard."""

RATE = 48_000
SIZE = ViewportSize(width=1280, height=720)


def main(output: str, model: str = "mini") -> None:
    """Have the conversation, and take the picture while the last answer is heard."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = subprocess.Popen([sys.executable, "-m", "lalia", "serve", "--model", model, "--port", str(port)])
    try:
        with tempfile.TemporaryDirectory() as folder:
            microphone = Path(folder) / "microphone.wav"
            soundfile.write(microphone, spoken(), RATE)
            talk(f"http://127.0.0.1:{port}/", microphone, Path(output))
    finally:
        serving.terminate()
        serving.wait()


def spoken() -> np.ndarray:
    """What the microphone hears."""
    parts = [np.zeros(RATE // 2)]
    by_text = {q.text: q for q in questions()}
    for text, gap in ASKED:
        asked = by_text[text].load()
        parts += [soxr.resample(asked.samples[0, 0].numpy(), asked.sample_rate, RATE), np.zeros(int(gap * RATE))]
    return np.concatenate(parts)


def talk(url: str, microphone: Path, output: Path) -> None:
    """Open the page, talk, and take the picture."""
    arguments = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    ]
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=arguments)
        page = browser.new_page(viewport=SIZE, locale="en-US")
        while not reached(page, url):
            time.sleep(1.0)
        page.wait_for_selector("body[data-state=off]")
        page.click("#talk")
        until = time.monotonic() + 120
        while not page.evaluate(READY) and time.monotonic() < until:
            time.sleep(0.05)
        output.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=output)
        print(page.inner_text("#transcript"))
        browser.close()


def reached(page: Page, url: str) -> bool:
    """Whether the server is there by now."""
    try:
        page.goto(url)
    except Exception:  # noqa: BLE001  whatever the browser calls a connection refused
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
