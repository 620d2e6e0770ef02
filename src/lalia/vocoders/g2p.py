"""G2P: letters to phones, as they come."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor, nn

from lalia.audio import Audio
from lalia.errors import ConfigError
from lalia.nn.blocks import run_blocks
from lalia.nn.ctc import collapse, ctc_loss
from lalia.nn.fir import Field, FirState, init_fir
from lalia.streaming import State
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence, pad_batch, valid_steps
from lalia.vocoders.ahead import AheadBlocks
from lalia.vocoders.base import Stage, check_codes, find_spec, find_stream

__all__ = ["G2P", "G2PState"]


@dataclass
class G2PState(State):
    """Letters that wait for those behind them, and the last label of each row [B], blank where nothing came yet."""

    letters: FirState
    last: Tensor


class G2P(Stage):
    """Graphemes to phonemes by CTC (Graves et al. 2006) along the letters, some labels for each.

    Convolutions see few letters ahead, so that a text is pronounced while it is written; what is made of pieces is
    what is made of the whole.

    :param stream: the stream of letters.
    :param makes: the stream of phones; its alphabet is that of the recipe's stream of this name.
    :param labels: for each letter ("x" has two phones, with stress and length as phones of their own more).
    :param lookahead: letters that each block sees ahead, one number for each block.
    """

    terms = ("ctc",)
    learns_from: tuple[str, ...] = ()

    @dataclass(frozen=True)
    class Config(Stage.Config):
        makes: str = "phones"
        _: KW_ONLY
        dim: int = 224
        ffn_dim: int = 512
        labels: int = 3
        lookahead: tuple[int, ...] = (4, 3, 2, 1, 1, 1)
        kernel_size: int = 9

        def tiny(self) -> "G2P.Config":
            return replace(self, dim=32, ffn_dim=64, lookahead=self.lookahead[:2])

    def __init__(self, config: Config, specs: Mapping[str, StreamSpec]) -> None:
        super().__init__()
        self.config = config
        spec, made = find_spec(specs, config.stream, "G2P"), find_spec(specs, config.makes, "G2P")
        if not isinstance(spec.kind, Discrete) or not isinstance(made.kind, Discrete):
            raise ConfigError(f"G2P turns {config.stream!r} into {config.makes!r}. Give both codes.")
        self.stream, self.reads, self.makes = config.stream, (config.stream,), {config.makes: made}
        self.learns_from = (config.stream, config.makes)
        self.num_letters, self.blank = spec.kind.codebook_size, made.kind.codebook_size
        self.embedding = nn.Embedding(self.num_letters, config.dim)
        self.blocks = AheadBlocks(config.dim, config.ffn_dim, config.lookahead, kernel_size=config.kernel_size)
        self.out = nn.Linear(config.dim, config.labels * (self.blank + 1))
        self.field = Field(self.blocks.past, self.blocks.future, 1)
        self.ahead = self.blocks.future

    def forward(self, letters: Tensor, there: Tensor | None = None) -> Tensor:
        """Letters [B, T] to logits [B, T * labels, phones + 1], the last of them the blank."""
        hidden = self.blocks(self.embedding(letters), there)
        return self.out(hidden).unflatten(-1, (self.config.labels, -1)).flatten(1, 2)

    # -- training ---------------------------------------------------------------------------------

    def counts(self, streams: Streams, audio: Audio | None = None) -> dict[str, float]:
        """What to divide the loss by: phones."""
        return {"ctc": float(find_stream(streams, self.config.makes).lengths.sum())}

    def losses(self, streams: Streams, audio: Audio | None = None, speaker: Tensor | None = None) -> dict[str, Tensor]:
        """The sum of the CTC loss of the phones."""
        letters, phones = find_stream(streams, self.stream), find_stream(streams, self.config.makes)
        there = valid_steps(letters.lengths, letters.num_tokens)
        steps = letters.lengths * self.config.labels
        logits = self(letters.values[:, 0], there)
        return {"ctc": ctc_loss(logits, steps, phones.values[:, 0], phones.lengths, self.blank)}

    # -- synthesis --------------------------------------------------------------------------------

    def init_state(self, batch_size: int) -> G2PState:
        device = self.embedding.weight.device
        letters = init_fir(self.field, torch.zeros(1, 1, dtype=torch.long, device=device), batch_size)
        return G2PState(letters, torch.full((batch_size,), self.blank))

    @torch.no_grad()
    def convert(
        self,
        streams: Streams,
        state: State | None = None,
        *,
        final: bool = False,
        speaker: int | Tensor | None = None,
    ) -> Streams:
        """The likeliest phones, without repeats and blanks, one frame each: a duration model tells how long."""
        assert state is None or isinstance(state, G2PState)
        letters = find_stream(streams, self.stream)
        check_codes(letters, self.stream, 1, self.num_letters)
        if state is None:
            state, final = self.init_state(len(letters)), True
        labels, lengths = run_blocks(
            lambda x, _: self(x).argmax(-1).unflatten(1, (-1, self.config.labels)),
            self.field,
            letters.values[:, 0],
            letters.lengths,
            state.letters,
            final=final,
        )
        steps = labels.flatten(1).long().cpu()
        found = collapse(steps, lengths * self.config.labels, state.last, self.blank)
        if final:
            state.last.fill_(self.blank)
        return {self.config.makes: pad_batch([_one_each(new) for new in found]).to(letters.values.device)}


def _one_each(ids: Tensor) -> TokenSequence:
    return TokenSequence(ids[None, None], torch.tensor([len(ids)]), torch.ones(1, len(ids), dtype=torch.long))
