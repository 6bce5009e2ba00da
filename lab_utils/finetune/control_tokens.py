"""Control tokens apart from the same letters in a text: `<|im_end|>` in a message is ten characters, not a command."""

import json
import re
from collections.abc import Sequence

from ..errors import LabError

PRIVATE = 0xF0000  # the first of the private characters beyond U+FFFF: no text means anything by them
MARK = "\U00100000"  # private as well: with it before its name, no text spells a control token


class ControlTokens:
    """What of a tokenizer's vocabulary is a command, and how to read a text in which such letters occur.

    Parameters
    ----------
    tokenizer : of transformers
    frame : str, what the chat template writes around messages: an added token in it is a control token too
    """

    def __init__(self, tokenizer, frame: str = ""):
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.added = {token.content: number for number, token in added.items() if token.content}
        special = {token.content for token in added.values() if token.special}
        self.tokens = {
            token: number for token, number in self.added.items() if token in special or token in frame
        }  # fmt: skip
        self.pattern = _any_of(self.tokens)
        self.counted = {number for number in self.tokens.values() if number != getattr(tokenizer, "unk_token_id", None)}
        self.twin = None  # made when it is first needed

    def first_added(self, text: str) -> int | None:
        """The first added token in `text`, special or not."""
        found = _any_of(self.added).search(text)
        return self.added[found[0]] if found else None

    def prompt_ids(self, tokenizer, contents: Sequence[str], write) -> list[int]:
        """The tokens of `write(contents)`: only what `write` adds to the contents may be a control token.

        Parameters
        ----------
        contents : the messages' texts
        write : function of such a list to the whole text; with other texts it writes the same control tokens
        """
        return self.piece_ids(tokenizer, contents, lambda texts: [write(texts)])[0]

    def piece_ids(self, tokenizer, contents: Sequence[str], write) -> list[list[int]]:
        """`prompt_ids` for a text in pieces, each of them turned into tokens on its own.

        Parameters
        ----------
        contents : the messages' texts
        write : function of such a list to the pieces
        """
        if not any(self.pattern.search(content) for content in contents):
            pieces = write(contents)
            ids = [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
            if all(self._count(one) == self._commands(piece) for one, piece in zip(ids, pieces, strict=True)):
                return ids
        hidden, signs = self._hide(contents)
        return [self._piece(tokenizer, piece, signs) for piece in write(hidden)]

    def _piece(self, tokenizer, piece: str, signs: dict[str, str]) -> list[int]:
        """The tokens of a piece whose contents have signs in place of control tokens' letters."""
        text = self.pattern.sub(lambda found: MARK + found[0], piece)
        commands = self._commands(text)
        for token, sign in signs.items():
            text = text.replace(sign, token)
        return self._read(tokenizer, text, commands)

    def text_ids(self, tokenizer, text: str) -> list[int]:
        """The tokens of a text that holds no command."""
        return self.prompt_ids(tokenizer, [text], lambda contents: contents[0])

    def _count(self, ids: Sequence[int]) -> int:
        """How many of the tokens are control tokens; the unknown token says nothing, it is not counted."""
        return sum(number in self.counted for number in ids)

    def _commands(self, text: str) -> int:
        """How many control tokens a text spells."""
        return sum(self.tokens[found] in self.counted for found in self.pattern.findall(text))

    def _hide(self, contents: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The contents with a private character for each control token's letters, and which one is whose."""
        whole = "".join(contents)
        if MARK in whole:
            raise LabError(
                f"A message holds a control token's letters and the private character U+{ord(MARK):X}, "
                "which marks control tokens here. Take that character out."
            )
        free = (chr(PRIVATE + number) for number in range(0xFFFE) if chr(PRIVATE + number) not in whole)
        signs = {token: next(free) for token in dict.fromkeys(self.pattern.findall(whole))}
        return [self.pattern.sub(lambda found: signs[found[0]], content) for content in contents], signs

    def _read(self, tokenizer, text: str, commands: int) -> list[int]:
        """The tokens of a text in which commands are marked, and all else is text."""
        self.twin = self.twin or _twin(tokenizer, self.tokens)
        ids = self.twin.encode(text, add_special_tokens=False).ids if self.twin else None
        if ids is None or self._count(ids) != commands:
            spelt = ", ".join(sorted(set(self.pattern.findall(text)))) or "one"
            raise LabError(
                f"A text holds the letters of a control token ({spelt}), and this tokenizer "
                f"({type(tokenizer).__name__}) cannot read them as letters. Change or leave out that text."
            )
        return ids


def _any_of(tokens) -> re.Pattern:
    """A pattern that finds any of these tokens, the longest first; without tokens, nothing."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) if longest_first else r"(?!)")


def _twin(tokenizer, tokens: dict[str, int]):
    """The same fast tokenizer with `MARK` before each control token's name, or None if that cannot be made."""
    from tokenizers import Tokenizer

    if not getattr(tokenizer, "is_fast", False):
        return None
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    model, named = parts["model"], {token: MARK + token for token in tokens}
    for token in parts["added_tokens"]:
        token["content"] = named.get(token["content"], token["content"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {named.get(piece, piece): number for piece, number in vocabulary.items()}
    else:  # Unigram's: pairs of piece and score
        model["vocab"] = [[named.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in named:
        model["unk_token"] = named[model["unk_token"]]
    parts["post_processor"] = parts["truncation"] = parts["padding"] = None
    twin = Tokenizer.from_str(json.dumps(parts))
    same = all(twin.token_to_id(named[token]) == number for token, number in tokens.items())
    return twin if same else None
