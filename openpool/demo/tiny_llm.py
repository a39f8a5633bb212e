"""A language model made on the spot: a few kilobytes, yet a real GGUF file for llama.cpp.

It writes as a child babbles: each letter follows from the one before it, as often as it does in the
few sentences below. Every character is one token, so that tokens can be counted by hand.
"""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from numpy.typing import NDArray

PROSE = (
    "the pool is where many small rivers meet. each worker brings what it has, and each is paid "
    "for what it did. a job comes in at the gate, finds a hand that is free, and leaves with its "
    "answer. the ledger writes it down, once, and never forgets. when a worker falls silent "
    "another takes its place. that is all there is to it."
)
LETTERS = "abcdefghijklmnopqrstuvwxyz ,."
START = len(LETTERS)
"""The state before the first letter, and after any character that is no letter here."""
WIDTH = 32
CONSTANT = 4.0
"""What every embedding holds in its last place, so that logits can have a fixed part."""
EOS = 2
BYTES_FROM = 3
NEVER = -30.0
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def make_tiny_llm(path: Path, *, context: int = 512) -> None:
    """Write the model to `path`; it takes `context` tokens of prompt and answer together."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    _write_shape(writer, context)
    _write_tokens(writer)
    _write_weights(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: "gguf.GGUFWriter", context: int) -> None:
    writer.add_name("tiny")
    writer.add_license("MIT")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // 2)


def _write_tokens(writer: "gguf.GGUFWriter") -> None:
    from gguf import TokenType

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    special = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([*special, *[TokenType.BYTE] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)


def _write_weights(writer: "gguf.GGUFWriter") -> None:
    import numpy as np

    def zeros(*shape: int) -> "NDArray[np.float32]":
        return np.zeros(shape, np.float32)

    writer.add_tensor("token_embd.weight", _embeddings())
    writer.add_tensor("output.weight", _logits())
    ones = np.ones(WIDTH, np.float32)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", ones)
    # A block that adds nothing: the next letter depends on the last one alone.
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", zeros(WIDTH, WIDTH))


def _embeddings() -> "NDArray[np.float32]":
    """One row for each token: which letter it is."""
    import numpy as np

    table = np.zeros((BYTES_FROM + 256, WIDTH), np.float32)
    table[:, START] = 1
    for i, letter in enumerate(LETTERS):
        for byte in {ord(letter), ord(letter.upper())}:
            table[BYTES_FROM + byte] = 0
            table[BYTES_FROM + byte, i] = 1
    table[:, -1] = CONSTANT
    return table


def _logits() -> "NDArray[np.float32]":
    """One row for each token: how likely it is after each letter."""
    import numpy as np

    scale = math.sqrt((1 + CONSTANT**2) / WIDTH)  # what the last normalisation divides by
    table = np.zeros((BYTES_FROM + 256, WIDTH), np.float32)
    table[:, -1] = NEVER * scale / CONSTANT
    follows = _follows()
    for letter in LETTERS:
        row = table[BYTES_FROM + ord(letter)]
        row[-1] = 0
        for before, count in follows.items():
            row[before] = scale * math.log((count[letter] + 0.01) / (count.total() + 1))
    table[EOS, -1] = 0
    table[EOS, : START + 1] = NEVER * scale
    table[EOS, LETTERS.index(".")] = 0  # an answer ends with a sentence
    return table


def _follows() -> dict[int, Counter[str]]:
    """How often which letter follows which, or begins a sentence."""
    follows: dict[int, Counter[str]] = {i: Counter() for i in range(START + 1)}
    for sentence in PROSE.split(". "):
        text = sentence.rstrip(".") + "."
        follows[START][text[0]] += 1
        for before, letter in pairwise(text):
            follows[LETTERS.index(before)][letter] += 1
    return follows


def make_tiny_tokenizer(path: Path) -> None:
    """Write the model's tokenizer as Hugging Face has them: each byte of a text is a token."""
    from tokenizers import Tokenizer, models

    names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    vocabulary = {name: number for number, name in enumerate(names)}
    Tokenizer(models.BPE(vocabulary, [], byte_fallback=True)).save(str(path))
