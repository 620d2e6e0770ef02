"""Pitch tokens: short stretches of F0, quantised."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.config import Configurable
from lalia.errors import ConfigError, DataError
from lalia.streaming import State
from lalia.streams import Discrete, StreamSpec, TokenSequence, pad_batch
from lalia.tokenizers.base import identity_of
from lalia.tokenizers.contour import ContourState
from lalia.tokenizers.held import Held
from lalia.tokenizers.kmeans import assign, fit_kmeans
from lalia.tokenizers.prosody import Pitch
from lalia.tokenizers.runs import OpenRun

__all__ = ["PitchVQ", "PitchVQState"]


@dataclass
class PitchVQState(State):
    """The state of the pitch, frames that make no whole token yet, and the run of each row that is still going."""

    pitch: ContourState
    held: Held
    run: OpenRun


class PitchVQ(Configurable, nn.Module):
    """Pitch tokens like those of SpiRit-LM expressive (arXiv:2402.05755 §3.2): 64 codes at 12.5 Hz, deduplicated.

    There, a VQ-VAE learns to code F0; here k-means quantises ``stack`` frames of log-F0 and voicing side by side, which
    needs no training of a network.

    :param pitch: what is quantised, features with voicing.
    :param stack: frames per code.
    :param clusters: size of the codebook.
    :param voicing_weight: what a voiced frame for an unvoiced one costs, in the unit of the pitch (nats).
    :param deduplicate: runs of one code become one token that keeps its duration.
    """

    @dataclass(frozen=True)
    class Config(Configurable.Config):
        _: KW_ONLY
        clusters: int = 64
        stack: int = 4
        deduplicate: bool = True
        voicing_weight: float = 0.25
        pitch: Pitch.Config = field(default_factory=lambda: Pitch.Config(voicing=True))

        def __post_init__(self) -> None:
            if self.clusters < 2 or self.stack < 1:
                raise ConfigError(
                    f"PitchVQ has {self.clusters} clusters of {self.stack} frames. Give at least 2 and at least 1."
                )
            if not self.pitch.voicing or self.pitch.clusters is not None:
                raise ConfigError("PitchVQ quantises features with voicing. Set pitch.voicing and no pitch.clusters.")

        @property
        def spec(self) -> StreamSpec:
            """What the stream holds, known without building anything."""
            rate = self.pitch.frame_rate / self.stack
            return StreamSpec(kind=Discrete(self.clusters), frame_rate=rate, deduplicated=self.deduplicate)

        @property
        def sample_rate(self) -> int:
            """Of the sound that it reads, in Hz."""
            return self.pitch.sample_rate

    centroids: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.spec, self.sample_rate = config.spec, config.sample_rate
        self.pitch: Pitch = config.pitch.build()
        self.fitted = False
        # Drawn, not empty: what was never fitted still gives codes (for tests and tiny models).
        drawn = torch.randn(config.clusters, 2 * config.stack, generator=torch.Generator().manual_seed(0))
        self.register_buffer("centroids", drawn / math.sqrt(2 * config.stack))

    @property
    def by_speaker(self) -> bool:
        """Whether the pitch is relative to the speaker's level."""
        return self.pitch.by_speaker

    def level(self, recordings: Iterable[Audio]) -> float:
        """The mean pitch of somebody's recordings, as ``encode`` takes it."""
        return self.pitch.level(recordings)

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the configuration and the centroids."""
        return identity_of(self.config, self.weights())

    def weights(self) -> dict[str, Tensor]:
        """What was learned."""
        return {"centroids": self.centroids} if self.fitted else {}

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``weights``.

        :raises ConfigError: they are of another tokenizer.
        """
        given = tensors.get("centroids")
        if given is None or given.shape != self.centroids.shape:
            raise ConfigError(
                f"The centroids should be {tuple(self.centroids.shape)}, not "
                f"{'nothing' if given is None else tuple(given.shape)}. They are of another tokenizer."
            )
        self.centroids.copy_(given)
        self.fitted = True
        self.__dict__.pop("identity", None)

    @torch.no_grad()
    def fit(
        self,
        recordings: Iterable[Audio],
        *,
        speakers: Iterable[Hashable] | None = None,
        passes: int = 10,
        seed: int = 0,
        report: Callable[[int, float], None] | None = None,
    ) -> None:
        """Fit the codebook on a corpus, which is read once.

        :param speakers: as for ``Contour.fit``.
        :raises DataError: there is too little speech.
        """
        rows = [self._stack(frames) for frames in self.pitch.levelled(recordings, speakers)]
        if not sum(map(len, rows)):
            raise DataError("There is nothing to fit pitch tokens on. Give recordings with speech in them.")
        found = fit_kmeans(lambda: [torch.cat(rows)], self.config.clusters, passes=passes, seed=seed, report=report)
        self.centroids.copy_(found)
        self.fitted = True
        self.__dict__.pop("identity", None)

    def _stack(self, frames: Tensor) -> Tensor:
        """Frames [t, 2] side by side: [ceil(t / stack), 2 * stack]; the last one is repeated to fill up."""
        room = -len(frames) % self.config.stack
        frames = torch.cat([frames, frames[-1:].expand(room, -1)]) if room else frames
        scaled = frames * frames.new_tensor([1.0, self.config.voicing_weight])
        return scaled.reshape(-1, 2 * self.config.stack)

    def init_state(self, batch_size: int) -> PitchVQState:
        """An empty stream for each row."""
        return PitchVQState(self.pitch.init_state(batch_size), Held.empty(batch_size, 2), OpenRun.empty(batch_size))

    @torch.no_grad()
    def encode(
        self,
        audio: Audio,
        state: PitchVQState | None = None,
        *,
        final: bool = False,
        level: float | Tensor | None = None,
    ) -> TokenSequence:
        """
        :param level: of the speaker's pitch; see ``Contour.encode``.
        :returns: codes [B, 1, T]; with ``deduplicate`` also durations [B, T] in frames of 1 / (12.5 Hz).
        """
        tokens = self.pitch.encode(audio, state.pitch if state else None, final=final, level=level)
        rows = []
        for b in range(len(tokens)):
            frames = tokens.row(b).values[0]
            if state is not None:
                frames = state.held.join(b, frames)
                whole = len(frames) if final else len(frames) // self.config.stack * self.config.stack
                state.held.rows[b], frames = frames[whole:].clone(), frames[:whole]
            codes = assign(self._stack(frames), self.centroids) if len(frames) else torch.zeros(0, dtype=torch.long)
            row = TokenSequence(codes[None, None], torch.tensor([len(codes)]))
            if self.config.deduplicate:
                row = row.deduplicate() if state is None else state.run.add(codes, b, final=final)
            rows.append(row)
        return pad_batch(rows)
