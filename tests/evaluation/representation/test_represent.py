import numpy as np
import pytest
import torch

from lalia.audio import Audio
from lalia.errors import ConfigError, DataError
from lalia.evaluation.representation import Representation, represent
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import Mel


class Quarters:
    """Two codebooks at 4 Hz: a code that is held for two frames, and the number of the frame."""

    def __init__(self, deduplicated=False):
        self.spec = StreamSpec(kind=Discrete(100, 1 if deduplicated else 2), frame_rate=4.0, deduplicated=deduplicated)

    def encode(self, audio):
        frames = torch.arange(int(audio.seconds * 4))
        tokens = TokenSequence(torch.stack((frames // 2, frames))[None], torch.tensor([len(frames)]))
        if self.spec.deduplicated:
            return TokenSequence(tokens.values[:, :1], tokens.lengths).deduplicate()
        return tokens


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, seconds in (("b", 1), ("a", 2), ("deep/c", 1.5)):
        samples = torch.rand(1, 1, int(16000 * seconds), generator=torch.Generator().manual_seed(0)) * 0.1
        Audio(samples, 16000).save(tmp_path / f"{name}.wav")
    return tmp_path


def test_units(folder):
    found = represent(Quarters(), folder)
    assert found.discrete
    assert found.frame_rate == 4
    assert list(found.recordings) == ["a", "b", "c"]
    assert found.recordings["b"].tolist() == [0, 0, 1, 1]
    assert found.seconds == 4.5
    assert represent(Quarters(), folder, codebook=1).recordings["b"].tolist() == [0, 1, 2, 3]
    # Repeats that a tokenizer removed are there again.
    assert represent(Quarters(deduplicated=True), folder).recordings["a"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_features_of_files(folder):
    done = []
    files = [folder / "a.wav", folder / "b.wav"]
    found = represent(Mel.Config(8, hop=320).build(), files, names=["b"], progress=lambda *n: done.append(n))
    assert {k: tuple(v.shape) for k, v in found.recordings.items()} == {"b": (50, 8)}
    assert found.frame_rate == 50
    assert not found.discrete
    assert done == [(1, 1)]


def test_refusals(folder):
    with pytest.raises(DataError, match=r"There is no recording 'x' \(2 are missing\)"):
        represent(Quarters(), folder, names=["a", "x", "y"])
    (folder / "deep" / "a.wav").write_bytes((folder / "a.wav").read_bytes())
    with pytest.raises(DataError, match="have one name"):
        represent(Quarters(), folder)
    with pytest.raises(ConfigError, match=r"There is no codebook 2\. Name one from 0 to 1"):
        represent(Quarters(), folder, names=["b"], codebook=2)
    clockless = Quarters()
    clockless.spec = StreamSpec(kind=Discrete(4), frame_rate=None)
    with pytest.raises(ConfigError, match="Quarters has no frame rate"):
        represent(clockless, folder)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(3), "Give features"),
        (torch.zeros(3, 2, dtype=torch.long), "Give features"),
        (torch.zeros(2, 3, 4), "Give features"),
        (torch.zeros(0, 4), "'f' has no frames"),
        (torch.zeros(0, dtype=torch.long), "'f' has no frames"),
        (torch.tensor([[0.0, float("nan")]]), "'f' has features that are no numbers"),
        (torch.tensor([[0.0, float("inf")]]), "'f' has features that are no numbers"),
    ],
)
def test_what_is_no_representation(frames, message):
    with pytest.raises(DataError, match=message):
        Representation({"f": frames}, 50.0)


def test_of_one_kind():
    with pytest.raises(DataError, match="Recordings differ"):
        Representation({"f": torch.zeros(3, 4), "g": torch.zeros(3, 5)}, 50.0)
    with pytest.raises(DataError, match="Recordings differ"):
        Representation({"f": torch.zeros(3, 4), "g": torch.arange(3)}, 50.0)
    with pytest.raises(ConfigError, match="Give a rate above 0 Hz"):
        Representation({}, 0.0)
    assert Representation({"f": np.arange(3)}, 50.0).recordings["f"].tolist() == [0, 1, 2]
