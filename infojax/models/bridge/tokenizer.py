"""BERT's uncased tokenizer: words without accents, then the longest known parts from the left (WordPiece)."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from infojax.models.clip.tokenizer import padded

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
LONGEST_WORD = 100  # letters; a longer word is unknown
# Blocks of CJK ideographs, each of which is a word.
IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class Tokenizer:
    """Texts to token ids, equal to Hugging Face's BertTokenizer in lower case; "[CLS]" in a text is plain text.

    Args:
      words: the vocabulary in the order of its ids; parts inside a word begin with "##".
      context: tokens of a text, with the start and the end.
    """

    def __init__(self, words: Sequence[str], context: int = 512) -> None:
        self.context = context
        self.ids = {word: i for i, word in enumerate(words)}

    @property
    def start(self) -> int:
        """Id of the token that begins a text."""
        return self.ids[START]

    @property
    def end(self) -> int:
        """Id of the token that ends it."""
        return self.ids[END]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without start and end."""
        return [part for word in split(text) for part in self._parts(word)]

    def __call__(self, texts: str | Sequence[str], *, length: int | None = None) -> np.ndarray:
        """(n, length) int32: start, tokens, end, then zeros.

        Args:
          length: of the rows, by default the context; 0: of the longest text, which gives the same features.
        Raises:
          TextTooLong: names the text and its tokens.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        return padded(texts, [[self.start, *self.encode(text), self.end] for text in texts], length, self.context)

    def _parts(self, word):
        found, at = [], 0
        while at < len(word) <= LONGEST_WORD:
            inside = "##" if at else ""
            stop = next((stop for stop in range(len(word), at, -1) if inside + word[at:stop] in self.ids), None)
            if stop is None:
                break
            found.append(self.ids[inside + word[at:stop]])
            at = stop
        return found if at == len(word) else [self.ids[UNKNOWN]]


def split(text: str) -> list[str]:
    """Words of a text: lower case without accents; punctuation signs and ideographs are words of their own."""
    shown = "".join(_letter(letter) for letter in text)
    bare = "".join(letter for letter in unicodedata.normalize("NFD", shown) if unicodedata.category(letter) != "Mn")
    return "".join(f" {letter} " if _punctuation(letter) else letter for letter in bare.lower()).split()


def _letter(letter):
    """A space for white space, nothing for what is not shown, an ideograph between spaces."""
    if letter in "\t\n\r" or unicodedata.category(letter) == "Zs":
        return " "
    if letter in "\0\ufffd" or unicodedata.category(letter)[0] == "C":
        return ""
    return f" {letter} " if any(first <= ord(letter) <= last for first, last in IDEOGRAPHS) else letter


def _punctuation(letter):
    """Unicode's, and all other ASCII that is neither letter, number nor space, as $ and +."""
    ascii_sign = letter.isascii() and letter.isprintable() and not letter.isalnum() and letter != " "
    return ascii_sign or unicodedata.category(letter)[0] == "P"
