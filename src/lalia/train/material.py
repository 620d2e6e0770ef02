"""What a run learns from: folders of token shards, their recordings, and the tokenizers that made them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lalia.data import SPLITS, Manifest, Mixture, MixtureDataset, Source, StreamInfo, TokenDataset
from lalia.errors import DataError
from lalia.store import DESCRIPTION, read_description, read_weights
from lalia.training.recordings import Recorded
from lalia.training.tasks import StageData

__all__ = ["TOKENIZERS", "Material"]

TOKENIZERS = "tokenizers"
"""Beside token shards: what made each stream, in a folder by its name."""

_MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Material:
    """Folders that ``lalia tokenize`` wrote.

    :param info: what made each stream.
    :param learned: weights of the tokenizers, by stream; only of those that are kept beside the shards.
    """

    folders: tuple[Path, ...]
    info: Mapping[str, StreamInfo]
    learned: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def open(cls, folders: Sequence[str | Path]) -> "Material":
        """
        :raises DataError: there is nothing, or the folders do not go together.
        """
        paths = tuple(Path(folder) for folder in folders)
        if not paths:
            raise DataError("There are no data to train on. Give --data, a folder that `lalia tokenize` wrote.")
        info: dict[str, StreamInfo] = {}
        learned: dict[str, Mapping[str, Tensor]] = {}
        for path in paths:
            for name, made in TokenDataset(path).info.items():
                if name in info and made.sha256 != info[name].sha256:
                    raise DataError(
                        f"Stream {name!r} of {path} was made by {made}, that of {paths[0]} by {info[name]}. "
                        "Tokenize both with the same tokenizer."
                    )
                info[name] = made
                home = path / TOKENIZERS / name
                if (home / DESCRIPTION).is_file():
                    identity = read_description(home, "tokenizer")[1].get("identity")
                    if identity != made.sha256:
                        raise DataError(f"{home} is not what made the shards of {path}. Tokenize the corpus again.")
                    learned[name] = read_weights(home)
        return cls(paths, info, learned)

    @property
    def identities(self) -> dict[str, str]:
        """The SHA-256 of the tokenizer of each stream."""
        return {name: made.sha256 for name, made in self.info.items()}

    def stage_data(self, folders: Sequence[str | Path] = (), *, voices: Sequence[str] = ()) -> StageData:
        """The training part of all folders, and what is held out of them: speakers, or, where none falls to that part,
        single utterances of those who are learned from.

        :param folders: others than these.
        :param voices: speakers that are to be learned: single utterances of theirs are held out, never all.
        :raises DataError: they are of different tokenizers, or damaged.
        """
        paths = [Path(f) for f in folders] or list(self.folders)
        sizes = {path: TokenDataset(path) for path in paths}

        def part(split: str | None, scattered: Sequence[str] = voices) -> Recorded | None:
            held = [p for p in paths if split is None or len(sizes[p].split(split, SPLITS, scattered=scattered))]
            if not held:
                return None
            tokens: MixtureDataset = Mixture(
                tuple(Source(str(p), split=split) for p in held), fractions=SPLITS, scattered=tuple(scattered)
            ).open()
            return Recorded.of(tokens, [_manifest(p) for p in held])

        train, dev = part("train"), part("dev")
        if train is None:
            # So few speakers that all fell to the other parts: learning from them beats not learning.
            train, dev = part(None), None
            assert train is not None
        elif dev is None:
            # A hundred speakers may well have none in a hundredth. Those of the test stay apart.
            learned = {s for p in paths for s in sizes[p].split("train", SPLITS).speakers if s is not None}
            single = sorted({*voices, *learned})
            if (dev := part("dev", single)) is not None:
                train = part("train", single) or train
        return StageData(train, dev)


def _manifest(folder: Path) -> Manifest | None:
    path = folder / _MANIFEST
    return Manifest.load(path) if path.is_file() else None
