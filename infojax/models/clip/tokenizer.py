"""CLIP's tokenizer: lower-cased, byte-level byte-pair encoding.

The table of merges next to this file is the used part (the first 48,894 of 262,144 merges) of OpenAI's
bpe_simple_vocab_16e6.txt.gz, https://github.com/openai/CLIP, MIT licence, Copyright (c) 2021 OpenAI (merges.LICENSE).
"""

import functools
import gzip
import html
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

MERGES = Path(__file__).with_name("merges.txt.gz")
START, END = "<|startoftext|>", "<|endoftext|>"
# Unicode's White_Space, which is what `\s` means to OpenAI's regular expressions.
SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Matches a text together with its kinds (`_kind`): special tokens, contractions, letters, one number, anything else.
SPECIAL = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'(?:[s\u017ftmd]|re|ve|ll)", re.IGNORECASE)
KINDS = re.compile(r"L+|N|O+")


class TextTooLong(ValueError):
    """A text with more tokens than the context holds; the message is one line."""


class Tokenizer:
    """Texts to token ids, equal to OpenAI's `clip.tokenize` and Hugging Face's CLIPTokenizer.

    Cleaning is OpenAI's: `ftfy.fix_text`, HTML entities decoded twice, white space collapsed, lower case. ftfy repairs
    wrongly decoded text and changes no printable ASCII; where it is not installed, other text is normalised (NFC) only,
    and a warning says so once.

    Args:
      context: tokens of a text, with the start and the end.

    >>> Tokenizer()(["a photo of a cat."])[0, :9]
    array([49406,   320,  1125,   539,   320,  2368,   269, 49407,     0], dtype=int32)
    """

    def __init__(self, context: int = 77) -> None:
        self.context = context
        self.ids, self._ranks, self._bytes = _tables()

    @property
    def start(self) -> int:
        """Id of the token that begins a text."""
        return self.ids[START]

    @property
    def end(self) -> int:
        """Id of the token that ends it, the largest."""
        return self.ids[END]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without start and end."""
        found = []
        for word in split(clean(text)):
            if word in (START, END):
                found.append(self.ids[word])
            else:
                found += [self.ids[part] for part in self._merged("".join(self._bytes[b] for b in word.encode()))]
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; words are separated by spaces."""
        parts, letters = {i: part for part, i in self.ids.items()}, {c: b for b, c in self._bytes.items()}
        text = "".join(parts[int(i)] for i in ids if int(i) not in (self.start, self.end))
        text = text.replace("</w>", " ")
        return bytes(letters.get(c, 32) for c in text).decode(errors="replace").strip()

    def __call__(self, texts: str | Sequence[str], *, length: int | None = None) -> np.ndarray:
        """(n, length) int32: start, tokens, end, then zeros.

        Args:
          length: of the rows, by default the context; 0: of the longest text, which gives the same features.
        Raises:
          TextTooLong: names the text and its tokens.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        return padded(texts, [[self.start, *self.encode(text), self.end] for text in texts], length, self.context)

    @functools.lru_cache(maxsize=100_000)  # noqa: B019  # there is one tokenizer in a process
    def _merged(self, word):
        """The parts of a word: the pair that comes first in the table is merged everywhere, until none is in it."""
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pairs = set(zip(parts, parts[1:], strict=False))
            first = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if first not in self._ranks:
                break
            merged: list[str] = []
            i = 0
            while i < len(parts):
                both = tuple(parts[i : i + 2]) == first
                merged.append("".join(first) if both else parts[i])
                i += 2 if both else 1
            parts = merged
        return tuple(parts)


def padded(texts: Sequence[str], rows: Sequence[list[int]], length: int | None, context: int) -> np.ndarray:
    """(n, length) int32: ids of each text, then zeros; `length` as of `Tokenizer`.

    Raises:
      TextTooLong: names the text and its tokens.
    """
    length = context if length is None else length or max(map(len, rows))
    found = np.zeros((len(rows), length), np.int32)
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        if len(row) > min(length, context):
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise TextTooLong(
                f"the text {shown!r} has {len(row)} tokens with start and end; at most {min(length, context)} fit"
            )
        found[i, : len(row)] = row
    return found


def clean(text: str) -> str:
    """A text as OpenAI's tokenizer reads it."""
    text = html.unescape(html.unescape(_fixed(text)))
    return re.sub(f"[{SPACE}]+", " ", text.strip()).strip().lower()


def split(text: str) -> list[str]:
    """Words of a clean text: contractions, runs of letters, single digits, runs of anything else but space."""
    kinds = "".join(map(_kind, text))
    words, at = [], 0
    while at < len(text):
        found = SPECIAL.match(text, at) or KINDS.match(kinds, at)
        if found:
            words.append(text[at : found.end()])
        at = found.end() if found else at + 1
    return words


@functools.cache
def _kind(letter):
    """L, N or O: letter, number, other; a blank for white space."""
    if re.match(f"[{SPACE}]", letter):
        return " "
    kind = unicodedata.category(letter)[0]
    return kind if kind in "LN" else "O"


def _fixed(text):
    if text.isascii() and text.isprintable():
        return text
    try:
        import ftfy
    except ImportError:
        warnings.warn(
            "ftfy is not installed: text that is not plain ASCII is only normalised (NFC), which can give other tokens "
            "than OpenAI's tokenizer; pip install ftfy",
            stacklevel=2,
        )
        return unicodedata.normalize("NFC", text)
    return ftfy.fix_text(text)


@functools.cache
def _tables():
    """(part -> id, pair -> rank, byte -> the letter that stands for it in the table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    letters = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    pairs = [tuple(line.split()) for line in gzip.decompress(MERGES.read_bytes()).decode().split("\n")]
    parts = [*letters.values(), *(c + "</w>" for c in letters.values()), *map("".join, pairs), START, END]
    return {part: i for i, part in enumerate(parts)}, {pair: i for i, pair in enumerate(pairs)}, letters
