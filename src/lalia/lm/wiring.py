"""Wiring: which table each stream reads and which one it is predicted from, checked before anything is built."""

from collections.abc import Mapping
from dataclasses import dataclass

from lalia.errors import ConfigError
from lalia.lm.head import Head
from lalia.lm.heads import Linear
from lalia.lm.inputs import Lookup, Project
from lalia.streams import Continuous, Discrete, StreamSpec

__all__ = ["Wiring"]


@dataclass(frozen=True)
class Wiring:
    """The inputs and heads of a SpeechLM on the streams of its layout.

    :param specs: of every stream of the layout, in its order.
    :raises ConfigError: an input or a head names a stream that is not there or of the wrong kind, or tables do
        not fit.
    """

    inputs: Mapping[str, Lookup | Project.Config]
    heads: Mapping[str, Head.Config]
    specs: Mapping[str, StreamSpec]

    def __post_init__(self) -> None:
        for part, names in (("inputs", list(self.inputs)), ("heads", list(self.heads))):
            for name in names:
                if name not in self.specs:
                    raise ConfigError(
                        f"The LM's {part} name stream {name!r}, but its layout has {', '.join(self.specs)}. "
                        "Fix the name or the layout."
                    )
        if not self.inputs or not self.heads:
            raise ConfigError("The LM has no inputs or no heads. Give at least one of each.")
        for name, entry in self.inputs.items():
            if not isinstance(entry, Lookup):
                self._check_map(name, entry)
                continue
            self.discrete(name)
            if entry.tied_to is not None:
                owner = self.inputs.get(entry.tied_to)
                if (
                    not isinstance(owner, Lookup)
                    or owner.tied_to
                    or self.discrete(entry.tied_to) != self.discrete(name)
                ):
                    raise ConfigError(
                        f"Stream {name!r} is tied to {entry.tied_to!r}, which is not a table of its own for the same "
                        "codes. Tie it to one that is, or untie it."
                    )
        for stream, head in self.heads.items():
            if head.kind == "codes":
                self.discrete(stream)
            elif isinstance(self.specs[stream].kind, Discrete):
                raise ConfigError(
                    f"Stream {stream!r} holds codes, but its head {head.owner.__name__} predicts features. Use Linear."
                )
            for other in head.needs:
                if other not in self.specs:
                    raise ConfigError(
                        f"The head of {stream!r} reads stream {other!r}, but there is {', '.join(self.specs)}. "
                        "Fix the name or the layout."
                    )
        for table, streams in self.tables().items():
            tied = {h.tied for s, h in self.linear().items() if self.table_of(s) == table}
            if len(streams) > 1 and len(tied) > 1:
                raise ConfigError(
                    f"Streams {', '.join(streams)} share table {table!r}, but only some of their heads are tied to it. "
                    "Tie all of them or none."
                )

    def _check_map(self, name: str, entry: Project.Config) -> None:
        kind = self.continuous(name)
        if entry.tied_to is None:
            return
        owner = self.inputs.get(entry.tied_to)
        if not isinstance(owner, Project.Config) or owner.tied_to or self.continuous(entry.tied_to) != kind:
            raise ConfigError(
                f"Stream {name!r} is tied to {entry.tied_to!r}, which has no map of its own for features of {kind.dim} "
                "values. Tie it to one that has, or untie it."
            )

    def map_of(self, stream: str) -> str | None:
        """The stream by whose map features enter: its own, or that which it is tied to; None where codes enter."""
        entry = self.inputs.get(stream)
        return entry.tied_to or stream if isinstance(entry, Project.Config) else None

    def linear(self) -> dict[str, Linear.Config]:
        """The heads that predict from a table."""
        return {s: h for s, h in self.heads.items() if isinstance(h, Linear.Config)}

    def rows_of(self, stream: str) -> str:
        """The stream whose rows of the table a stream has: its own, or those of the stream that it is tied to."""
        entry = self.inputs.get(stream)
        return entry.tied_to or stream if isinstance(entry, Lookup) else stream

    def table_of(self, stream: str) -> str:
        """The table of a stream."""
        owner = self.rows_of(stream)
        entry = self.inputs.get(owner)
        return (entry.table if isinstance(entry, Lookup) else None) or owner

    def tables(self) -> dict[str, list[str]]:
        """The streams with rows in each table, by table."""
        tables: dict[str, list[str]] = {}
        for stream in self.specs:
            wanted = stream in self.linear() or isinstance(self.inputs.get(stream), Lookup)
            if wanted and self.rows_of(stream) == stream:
                tables.setdefault(self.table_of(stream), []).append(stream)
        return tables

    def embedded(self, table: str) -> bool:
        """Whether a table needs embeddings: a stream enters by it, or is predicted with them."""
        return any(self.table_of(s) == table for s, i in self.inputs.items() if isinstance(i, Lookup)) or any(
            self.table_of(s) == table for s, h in self.linear().items() if h.tied
        )

    def discrete(self, stream: str) -> Discrete:
        """The codes of a stream."""
        kind = self.specs[stream].kind
        if not isinstance(kind, Discrete):
            part, cure = ("input", "Use Project") if stream in self.inputs else ("head", "Leave the head out")
            raise ConfigError(f"Stream {stream!r} holds features, but its {part} is made for codes. {cure}.")
        return kind

    def continuous(self, stream: str) -> Continuous:
        """The features of a stream."""
        kind = self.specs[stream].kind
        if not isinstance(kind, Continuous):
            raise ConfigError(f"Stream {stream!r} holds codes, which cannot be projected. Use Lookup for its input.")
        return kind
