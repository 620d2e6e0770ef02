"""A whole comparison of tiny models: what is kept, what the page has, and what becomes of a second run."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lalia.data import Manifest, Utterance, Word
from lalia.errors import ConfigError, DataError, WeightsError
from lalia.evaluation.alone import Alone
from lalia.evaluation.benchmarks import Judges, find
from lalia.evaluation.benchmarks.base import Benchmark
from lalia.evaluation.benchmarks.continuations import Continuations
from lalia.evaluation.benchmarks.kept import Kept
from lalia.evaluation.benchmarks.phones import Phones
from lalia.evaluation.benchmarks.speed import Speed
from lalia.evaluation.comparison import Subject, compare, gather, save_page, summary
from lalia.evaluation.text import Basic
from lalia.model import Model, load
from lalia.tokenizers import Codec

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("resynthesis", "mini-phones", "bit-rate", "continuations", "speed")


class Letters:
    """A text LM to which every letter is as likely as it is early in the alphabet."""

    name, version = "letters", "1"

    def log_probs(self, texts: Any, prompts: Any = None) -> list[torch.Tensor]:
        return [torch.tensor([-0.1 * (1 + ord(c) % 32) for c in text]) for text in texts]


class Hears:
    """A recogniser to which every tenth of a second is a word, by how loud it is."""

    def __init__(self, name: str) -> None:
        self.name, self.version, self.asked = name, "1", 0

    def __call__(self, recordings: Any) -> list[str]:
        self.asked += len(recordings)
        return [self.words(a.mono().to(16_000).samples[0, 0]) for a in recordings]

    def words(self, sound: torch.Tensor) -> str:
        loud = [float(piece.square().mean().sqrt()) for piece in sound.split(1600)]
        return " ".join("abcdefghij"[min(int(20 * x), 9)] * 2 for x in loud)


@pytest.fixture(scope="module")
def phones(tmp_path_factory: pytest.TempPathFactory, noise: Callable[..., Any]) -> Path:
    """Four recordings of two speakers with the times of made-up phones."""
    import soundfile

    folder = tmp_path_factory.mktemp("phones")
    utterances = []
    for n in range(4):
        soundfile.write(folder / f"{n}.wav", noise(2.0, seed=n), 16_000)
        # Each second is an "a", so that the others have the same neighbours.
        row = tuple(Word("bcd"[(i // 2) % 3] if i % 2 else "a", 0.1 * i, 0.1 * (i + 1)) for i in range(18))
        utterances.append(Utterance(f"{n}", folder / f"{n}.wav", duration=2.0, phones=row, speaker=f"s{n % 2}"))
    Manifest(utterances).save(folder / "manifest.jsonl")
    return folder


class Setting:
    """Two tiny models that differ in their vocoder, a codec, and the work for them."""

    def __init__(self, tiny: Path, corpus: Path, phones: Path, folder: Path) -> None:
        self.folder, self.loaded = folder, list[str]()
        two = folder.parent / "two"
        other(tiny).save(two)
        files = sorted(corpus.glob("*/*-2.wav"))[:6]
        self.data = Manifest(Utterance(f.stem, f, duration=3.0, text="aa bb cc dd ee") for f in files)
        self.judges = Judges()
        self.judges.__dict__.update(judge=Hears("judge"), recognizer=Hears("second"), normalizer=Basic())
        self.judges.__dict__.update(text_lm=Letters(), rater=None, voices=Voices())
        own = (Phones(phones), Continuations((None,), 0.5, 1.0, 2), Speed(1.0, 0.5, 2))
        self.benchmarks: list[Benchmark] = [next((o for o in own if o.name == b.name), b) for b in find(NAMES)]
        self.subjects = [
            Subject("one", lambda: self.load("one", lambda: load(tiny)), "1" * 64, tiny),
            Subject("<two>", lambda: self.load("<two>", lambda: load(two)), "2" * 64, two),
            Subject("codec", lambda: self.load("codec", codec), None),
        ]

    def load(self, name: str, make: Callable[[], Any]) -> Any:
        self.loaded.append(name)
        return make()

    def run(self, **changes: Any) -> dict[str, Any]:
        benchmarks = changes.pop("benchmarks", self.benchmarks)
        settings = {"judges": self.judges, "data": self.data, **changes}
        return compare(self.subjects, benchmarks, self.folder, **settings)


class Voices:
    """Tells voices apart by how loud they are."""

    name, version = "loud", "1"

    def __call__(self, recordings: Any) -> list[torch.Tensor]:
        return [torch.tensor([float(a.samples.square().mean().sqrt()), 0.1]) for a in recordings]


def other(tiny: Path) -> Model:
    """The same with another vocoder."""
    model = load(tiny)
    assert model.recipe.vocoder is not None
    recipe = replace(model.recipe, vocoder=replace(model.recipe.vocoder, num_layers=3))  # type: ignore[call-arg]
    torch.manual_seed(1)
    made = Model(recipe, learned=model.learned, identities=model.identities)
    made.lms.load_state_dict(model.lms.state_dict())
    return made


def codec() -> Alone:
    torch.manual_seed(0)
    return Alone(Codec.Config(16_000).tiny().build())


@pytest.fixture(scope="module")
def done(
    tiny: Path, corpus: Path, phones: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Setting, dict[str, Any], Path]:
    """The setting, what was found, and the page."""
    place = tmp_path_factory.mktemp("compared")
    setting = Setting(tiny, corpus, phones, place / "page")
    found = setting.run()
    return setting, found, save_page(found, place / "page", place / "page.html", audio=2)


class Reads(HTMLParser):
    """The parts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.cells: list[tuple[str, str]] = []
        self.audio, self.open = 0, list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [str(given[a]) for a in ("href", "src", "action", "data") if given.get(a)]
        self.audio += tag == "audio"
        if tag == "td" and given.get("data-value"):
            self.cells.append((str(given["data-value"]), ""))
        if tag not in ("meta", "rect", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line", "circle", "polyline"):
            assert self.open.pop() == tag


def silent(page: str) -> str:
    """A page without its sound; an Opus file has a number drawn by lot."""
    return re.sub(r"data:audio/ogg;base64,[\w+/=]+", "", page)


def test_every_model_has_what_it_can_do(done: Any) -> None:
    _, found, _ = done
    one, two, bare = found["models"]
    assert set(one["results"]) == set(two["results"]) == set(NAMES)
    assert set(bare["results"]) == set(NAMES) - {"continuations"}
    assert bare["left_out"] == {"continuations": "It has no language model."}
    assert bare["results"]["speed"]["notes"] == ["the language model was not timed: It has no language model."]
    assert len(one["results"]["resynthesis"]["items"]) == 6
    assert len(one["results"]["continuations"]["details"]["truth_texts"]) == 2


def test_models_that_have_parts_alike_are_asked_once(done: Any) -> None:
    setting, found, path = done
    one, two, bare = (m["results"] for m in found["models"])
    assert {n for n, r in two.items() if "of" in r} == {"mini-phones", "bit-rate"}
    assert all("of" not in r for r in (*one.values(), *bare.values()))
    for name in ("mini-phones", "bit-rate"):
        assert two[name] == {"of": "one", **one[name]}
        assert not (setting.folder / found["models"][1]["folder"] / name).exists()
    assert "mini-phones of &lt;two&gt;" in path.read_text("utf-8")


def test_the_page_needs_nothing_from_outside(done: Any) -> None:
    page = done[2].read_text("utf-8")
    read = Reads(page)
    assert not read.open
    assert all(link.startswith(("#", "data:audio/ogg;base64,")) for link in read.links)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", silent(page))
    # Two recordings that three models and one speak, and two that two models go on with.
    assert read.audio == 2 * (1 + 3) + 2 * (2 + 2)
    assert "<two>" not in page
    assert "&lt;two&gt;" in page


def test_numbers_in_the_page_are_those_of_the_results(done: Any) -> None:
    _, found, path = done
    page = path.read_text("utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data == json.loads(json.dumps(summary(found)))
    shown = {value for value, _ in Reads(page).cells}
    for measure in data["measures"].values():
        for estimate in (*measure["models"].values(), *measure["references"].values()):
            assert repr(estimate["value"]) in shown
    own = {k: m["models"] for k, m in data["measures"].items()}
    for model in found["models"]:
        figures = {
            f"{name}.{f['key'].removesuffix('_own')}": {k: f[k] for k in ("value", "low", "high", "n")}
            for name, r in model["results"].items()
            for f in r["figures"]
        }
        shown = ["resynthesis.wer", "mini-phones.abx_within", "bit-rate.measured", "speed.both"]
        if "continuations" in model["results"]:
            shown += ["continuations.geometric", "continuations.vert", "continuations.sim_o"]
        for key in shown:
            assert own[key][model["name"]] == figures[key]
        total = sum(model["parts"]["parameters"].values())
        assert own["size.parameters"][model["name"]]["value"] == total
    assert set(data["measures"]["continuations.geometric"]["references"]) == {"the recording going on"}
    assert set(data["measures"]["resynthesis.wer"]["references"]) == {"the original"}


def test_models_that_differ_in_their_vocoder_are_put_side_by_side(done: Any) -> None:
    _, found, path = done
    effects = summary(found)["effects"]
    assert {e["axis"] for e in effects} == {"vocoder"}
    wer = next(e for e in effects if e["measure"] == "resynthesis.wer")
    assert sorted(wer["pairs"][0]) == ["<two>", "one"]
    items = {m["name"]: {i["id"]: i for i in m["results"]["resynthesis"]["items"]} for m in found["models"]}

    def errors(item: Any) -> int:
        edits = item["edits"]["text"]["wer"]["resynthesis"]
        return sum(edits[k] for k in ("substitutions", "deletions", "insertions"))

    a, b = wer["pairs"][0]
    delta = sum(errors(items[a][i]) - errors(items[b][i]) for i in items[a]) / (5 * 6)
    assert wer["value"] == pytest.approx(delta)
    # One tokenizer, and so nothing to tell: no phones were heard twice, and to hear takes both as long.
    assert not {"mini-phones.abx_within", "bit-rate.measured", "speed.encode"} & {e["measure"] for e in effects}
    assert {"speed.vocode", "speed.both"} <= {e["measure"] for e in effects}
    heard = summary(found)["measures"]["speed.encode"]["models"]
    assert heard["one"] == heard["<two>"]
    times = [[i["encode"] for i in m["results"]["speed"]["items"]] for m in found["models"][:2]]
    assert heard["one"]["value"] == pytest.approx(np.median(np.median(times, axis=0)))
    assert "One part exchanged" in path.read_text("utf-8")


def test_a_second_run_does_nothing_again(done: Any) -> None:
    setting, found, path = done
    files = [*setting.folder.rglob("*.jsonl"), *setting.folder.rglob("*.flac")]
    times = {p: p.stat().st_mtime_ns for p in files}
    loaded, asked = list(setting.loaded), setting.judges.judge.asked
    again = setting.run()
    assert setting.loaded == loaded
    assert setting.judges.judge.asked == asked
    assert {p: p.stat().st_mtime_ns for p in files} == times
    assert summary(again) == summary(found)
    written = path.read_text("utf-8")
    save_page(gather(setting.folder), setting.folder, path, audio=2)
    assert silent(path.read_text("utf-8")) == silent(written)


def test_a_run_that_was_stopped_goes_on(done: Any, tiny: Path, corpus: Path, phones: Path, tmp_path: Path) -> None:
    setting = Setting(tiny, corpus, phones, tmp_path / "page")
    setting.subjects = setting.subjects[:1]

    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if line == "one: continuations":
            raise Stop

    with pytest.raises(Stop):
        setting.run(tell=stop)
    assert set(Kept.read(tmp_path / "page/one/results.jsonl").answers) == {"model", *NAMES[:3]}
    told: list[str] = []
    found = setting.run(tell=told.append)
    assert told == ["one: continuations", "one: speed"]
    first = done[1]["models"][0]["results"]
    for name in NAMES[:3]:
        assert found["models"][0]["results"][name]["figures"] == first[name]["figures"]


def test_what_was_missing_is_tried_again(done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, bits = done[0], find(["bit-rate"])
    here: list[str] = []

    def needs(self: Any, model: Any) -> None:
        if len(here) < 2:
            raise WeightsError("It is not here. Fetch it.")

    monkeypatch.setattr("lalia.evaluation.benchmarks.bit_rate.BitRate.check", needs)
    first, second = (
        compare(setting.subjects[2:], bits, tmp_path / "again", data=setting.data, tell=here.append) for _ in range(2)
    )
    assert first["models"][0]["left_out"] == {"bit-rate": "It is not here. Fetch it."}
    assert set(second["models"][0]["results"]) == {"bit-rate"}
    # What a model cannot do is found out once, and once more by other code.
    cannot = find(["continuations"])
    for code in ("a", "a", "b"):
        monkeypatch.setattr("lalia.evaluation.comparison.work.code_identity", lambda code=code: code)
        compare(setting.subjects[2:], cannot, tmp_path / "again", data=setting.data, tell=here.append)
    assert here == ["codec: bit-rate", "codec: bit-rate", "codec: continuations", "codec: continuations"]


def test_other_settings_are_measured_anew(done: Any, tmp_path: Path) -> None:
    setting = done[0]
    bits = [b for b in setting.benchmarks if b.name in ("bit-rate", "resynthesis")]
    few = Setting.__new__(Setting)
    few.__dict__ |= {**vars(setting), "folder": tmp_path / "few", "subjects": setting.subjects[2:]}
    whole, told = few.run(benchmarks=bits), list[str]()
    some = few.run(benchmarks=bits, limit=3, tell=told.append)
    assert told == ["codec: resynthesis", "codec: bit-rate"]
    items = [r["models"][0]["results"]["resynthesis"]["items"] for r in (whole, some)]
    # What had been answered was not asked again.
    assert items[1] == items[0][:3]
    assert len(Kept.read(tmp_path / "few/codec/resynthesis/answers.jsonl").answers) == 6
    few.subjects = [Subject("codec", codec, "3" * 64)]
    with pytest.raises(DataError, match=r"results\.jsonl has answers of another run: its model\.identity is None"):
        few.run(benchmarks=bits)


def test_phones_that_were_aligned_anew_are_measured_anew(done: Any, phones: Path, tmp_path: Path) -> None:
    setting = done[0]
    place = tmp_path / "phones"
    shutil.copytree(phones, place)
    few = Setting.__new__(Setting)
    few.__dict__ |= {**vars(setting), "folder": tmp_path / "few", "subjects": setting.subjects[2:]}
    told = list[str]()
    few.run(benchmarks=[Phones(place)], tell=told.append)
    few.run(benchmarks=[Phones(place)], tell=told.append)
    assert told == ["codec: mini-phones"]
    listed = (place / "manifest.jsonl").read_text().splitlines()
    (place / "manifest.jsonl").write_text("\n".join(listed[:-1]) + "\n")
    few.run(benchmarks=[Phones(place)], tell=told.append)
    assert told == ["codec: mini-phones"] * 2


def test_what_cannot_be_compared_is_one_clear_error(done: Any, tmp_path: Path) -> None:
    setting = done[0]
    with pytest.raises(ConfigError, match="Name each once"):
        compare([], setting.benchmarks, tmp_path / "a")
    with pytest.raises(ConfigError, match="Models one, one were given"):
        compare(setting.subjects[:1] * 2, setting.benchmarks, tmp_path / "a")
    with pytest.raises(ConfigError, match="Nothing was asked"):
        compare(setting.subjects, [], tmp_path / "a")
    with pytest.raises(DataError, match="no recordings"):
        compare(setting.subjects, setting.benchmarks, tmp_path / "a", data=Manifest([]))
    with pytest.raises(DataError, match="holds no comparison"):
        gather(tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        gather(tmp_path)
    (tmp_path / "comparison.json").write_text('{"models": []}')
    with pytest.raises(DataError, match="no comparison of this version"):
        gather(tmp_path)


def test_a_model_that_cannot_be_loaded_says_why(done: Any, tmp_path: Path) -> None:
    def fail() -> Any:
        raise WeightsError("It is not here. Fetch it.")

    setting, bits = done[0], find(["bit-rate"])
    with pytest.raises(DataError, match=r"Nothing is known of 'lost' in .*: It is not here"):
        compare([Subject("lost", fail)], bits, tmp_path / "a", data=setting.data)
    beside = [Subject("lost", fail), setting.subjects[2]]
    found = compare(beside, bits, tmp_path / "b", data=setting.data)
    assert [m["name"] for m in found["models"]] == ["codec"]
    page = save_page(found, tmp_path / "b", tmp_path / "b.html").read_text("utf-8")
    assert "It is not here. Fetch it." in page


# -- the command --------------------------------------------------------------------------------


def test_the_command_compares_and_writes_again(tiny: Path, corpus: Path, tmp_path: Path, lalia: Any) -> None:
    page = tmp_path / "page.html"
    ran = lalia("compare", tiny, "-o", page, "--data", corpus, "--benchmarks", "bit-rate", "--limit", 2, "--json")
    assert ran.status == 0, ran.err
    measures = ran.json["measures"]
    assert set(measures) == {"bit-rate.measured", "bit-rate.nominal", "size.parameters"}
    assert f"\n{tiny.name}: bit-rate" in f"\n{ran.err}", "where a model lies is nobody's business"
    written = page.read_bytes()
    page.unlink()
    ran = lalia("compare", "--from", tmp_path / "page", "-o", page)
    assert ran.status == 0, ran.err
    assert ran.out.endswith(f"{page}\n")
    assert page.read_bytes() == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: No model was named. Name one or more, or --from a folder of results."),
        (("mini-gslm", "-o", "page.txt"), "error: The page was to be page.txt."),
        (("mini-gslm", "--benchmarks", "unit"), "error: There is no benchmark 'unit'."),
        (("mini-gslmm",), "error: There is no model 'mini-gslmm'. Did you mean 'mini-gslm'?"),
        (("mini-gslm", "--from", "x"), "error: --from takes the models that its folder has."),
        (("--from", "x"), "error: x holds no comparison."),
        (("mini-gslm", "mini-gslm"), "error: Models mini-gslm, mini-gslm were given."),
    ],
)
def test_wrong_commands_are_one_line(
    arguments: tuple[str, ...], message: str, lalia: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = lalia("compare", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(message)
    assert ran.err.count("\n") == 1
