"""Tokens of a text, counted with a model's own tokenizer.

The tokenizer is a file of the operator's (`tokenizer.json`, as Hugging Face has them); the text is
a stranger's: call this only inside a checker process (`pool.checkers`). The library is imported
when the first text is counted, since few pools need it.
"""

import os
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from openpool.pool.findings import Counted, Unreadable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MISSING = "needs the library `tokenizers`; install it with `pip install 'openpool[ai]'`"
TOKENIZERS_KEPT = 16

_decode_texts = msgspec.msgpack.Decoder(list[str]).decode


def count_tokens(file: str, data: bytes, marks: bool) -> Counted:
    """Count the texts in `data`, a MessagePack list. Raises Unreadable."""
    found = _tokenizer(file).encode_batch_fast(_decode_texts(data), add_special_tokens=marks)
    return Counted(tokens=tuple(map(len, found)))


@lru_cache(maxsize=TOKENIZERS_KEPT)
def _tokenizer(file: str) -> "Tokenizer":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one checker process uses one core
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Unreadable(MISSING) from None
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as error:  # the library raises nothing more exact
        raise Unreadable(f"cannot be read as a tokenizer.json ({error})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
