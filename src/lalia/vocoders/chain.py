"""Chain: stages that turn streams into streams, and a vocoder that makes audio of the last."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.streaming import State
from lalia.streams import Streams, StreamSpec
from lalia.vocoders.base import Stage, Vocoder, check_speaker

__all__ = ["Chain", "ChainState"]


@dataclass
class ChainState(State):
    """The state of every part, in order."""

    parts: list[State]


class Chain(Vocoder):
    """Input-enhanced synthesis: every part reads what the ones before it made, or what was given.

    :param stages: what turns streams into streams, in order.
    :param vocoder: what makes audio at the end.
    """

    @dataclass(frozen=True)
    class Config(Vocoder.Config):
        stages: tuple[Stage.Config, ...]
        vocoder: Vocoder.Config

        @property
        def stream(self) -> str:
            """What the first part reads."""
            return self.stages[0].stream

        @property
        def reads(self) -> tuple[str, ...]:
            found: dict[str, None] = {}
            made: set[str] = set()
            for stage in self.stages:
                found |= dict.fromkeys(n for n in (stage.stream,) if n not in made)
                made |= set(stage.made)
            return tuple(found | dict.fromkeys(n for n in self.vocoder.reads if n not in made))

        @property
        def makes(self) -> tuple[str, ...]:
            """What its parts make, in order."""
            return (*(stage.makes for stage in self.stages), "audio")

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.config = config
        known = dict(specs)
        self.stages, self.reads = nn.ModuleList(), config.reads
        for part in config.stages:
            stage: Stage = part.build(known)
            # A stream that recordings have too (units) is learned from these, and made where there is no recording.
            taken = sorted(name for name, spec in stage.makes.items() if known.get(name, spec) != spec)
            if taken:
                raise ConfigError(f"{type(stage).__name__} makes another {taken[0]!r} than there is. Rename it.")
            known.update(stage.makes)
            self.stages.append(stage)
        self.vocoder: Vocoder = config.vocoder.build(known)
        self.sample_rate = self.vocoder.sample_rate
        self.num_speakers = max(part.num_speakers for part in (*self._stages, self.vocoder))
        # What one of them makes of a token is about one of the next.
        self.ahead = sum(part.ahead for part in self._stages)

    def adopt(self, learned: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.vocoder.adopt(learned)

    def init_state(self, batch_size: int) -> ChainState:
        return ChainState(
            [stage.init_state(batch_size) for stage in self._stages] + [self.vocoder.init_state(batch_size)]
        )

    @property
    def _stages(self) -> list[Stage]:
        return [stage for stage in self.stages if isinstance(stage, Stage)]

    def _needed(self, given: Collection[str]) -> list[Stage]:
        """The stages whose streams are not there: units that were heard need no letters."""
        lacking, needed = set(self.vocoder.reads) - set(given), []
        for stage in reversed(self._stages):
            if lacking & set(stage.makes):
                needed.append(stage)
                lacking |= set(stage.reads) - set(given)
        return needed

    def part(self, makes: str) -> nn.Module:
        """The part that makes a stream, or ``audio``.

        :raises ConfigError: there is none.
        """
        if makes == "audio":
            return self.vocoder
        for stage in self._stages:
            if makes in stage.makes:
                return stage
        raise ConfigError(f"No part of the vocoder makes {makes!r}. Name one of {', '.join(self.config.makes)}.")

    def stages_until(self, part: nn.Module) -> list[Stage]:
        """The stages before a part, and the part itself where it is one."""
        stages = self._stages
        return stages[: stages.index(part) + 1] if part in stages else stages

    @torch.no_grad()
    def decode(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Audio:
        assert state is None or isinstance(state, ChainState)
        states = [None] * (len(self.stages) + 1) if state is None else state.parts
        known = dict(streams)
        if streams:
            check_speaker(speaker, len(next(iter(streams.values()))), self.num_speakers)
        wanted = self._needed(known)
        for stage, part in zip(self._stages, states, strict=False):
            if stage not in wanted:
                continue
            voice = speaker if stage.num_speakers > 1 else None
            known |= stage.convert(known, part, final=final, speaker=voice)
        voice = speaker if self.vocoder.num_speakers > 1 else None
        return self.vocoder.decode(known, states[-1], final=final, speaker=voice)
