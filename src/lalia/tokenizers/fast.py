"""The tokenizer of a text LM from its files alone: the import of transformers takes longer than a question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lalia.checkpoints.tensors import read_config
from lalia.errors import WeightsError

__all__ = ["FastTokenizer"]


class FastTokenizer:
    """A ``tokenizer.json`` with what lalia asks of a tokenizer of transformers, under the same names.

    The classes of transformers may change what the files say. So this is for weights of which lalia knows that theirs
    does not.

    :raises WeightsError: the files cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # noqa: BLE001  tokenizers raises nothing more precise
            raise WeightsError(f"{folder / 'tokenizer.json'} cannot be read ({error}). Fetch it again.") from None
        facts = read_config(folder, "tokenizer_config.json")
        self.chat_template: str | None = facts.get("chat_template")
        self._named = {name: token for name, token in facts.items() if name.endswith("_token")}
        added = self._tokenizer.get_added_tokens_decoder()
        self.all_special_ids = tuple(i for i, token in added.items() if token.special)

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """The ids of a text.

        :param split_special_tokens: names of special tokens are letters like any other.
        """
        self._tokenizer.encode_special_tokens = split_special_tokens
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """The text of ids; nothing is ever cleaned up."""
        assert not clean_up_tokenization_spaces
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def apply_chat_template(
        self, talk: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        """A conversation as text, in the environment that transformers gives its templates."""
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        assert not tokenize
        assert self.chat_template is not None
        template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(self.chat_template)
        given: dict[str, Any] = {"messages": list(talk), "add_generation_prompt": add_generation_prompt}
        return template.render(**given, **self._named)
