"""A Whisper model of one layer with random weights: it hears nothing right, but runs as all do."""

from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import WhisperSpec
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WIDTH = 64
LANGUAGES = ["en", "de", "fr"]
SPECIAL = [
    "<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES),
    "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>",
    "<|notimestamps|>", *(f"<|{i * 0.02:.2f}|>" for i in range(1501)),
]  # fmt: skip


def make_tiny_whisper(folder: Path) -> None:
    """Write the model's folder."""
    folder.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = [*letters, *SPECIAL]
    spec = WhisperSpec(1, 4, 1, 4)
    _fill(spec, len(tokens))
    spec.register_vocabulary(tokens)
    spec.config.lang_ids = [tokens.index(f"<|{name}|>") for name in LANGUAGES]
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.alignment_heads = [[0, 0]]
    spec.validate()
    spec.save(str(folder))


def _fill(spec: WhisperSpec, tokens: int) -> None:
    random = np.random.default_rng(1)

    def some(*shape: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
        return (random.standard_normal(shape) * 0.05).astype(np.float32)

    def linear(layer: Any, rows: int, columns: int) -> None:
        layer.weight, layer.bias = some(rows, columns), some(rows)

    def attention(layer: Any, *rows: int) -> None:
        norm(layer)
        for part, count in zip(layer.linear, rows, strict=True):
            linear(part, count * WIDTH, WIDTH)

    def norm(layer: Any) -> None:
        layer.layer_norm.gamma = np.ones(WIDTH, np.float32)
        layer.layer_norm.beta = np.zeros(WIDTH, np.float32)

    def feed_forward(layer: Any) -> None:
        norm(layer)
        linear(layer.linear_0, 4 * WIDTH, WIDTH)
        linear(layer.linear_1, WIDTH, 4 * WIDTH)

    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = some(WIDTH, 80, 3), some(WIDTH)
    encoder.conv2.weight, encoder.conv2.bias = some(WIDTH, WIDTH, 3), some(WIDTH)
    encoder.position_encodings.encodings = some(1500, WIDTH)
    decoder.position_encodings.encodings = some(448, WIDTH)
    decoder.embeddings.weight = some(tokens, WIDTH)
    linear(decoder.projection, tokens, WIDTH)
    for half in (encoder, decoder):
        norm(half)
        for layer in half.layer:
            attention(layer.self_attention, 3, 1)
            feed_forward(layer.ffn)
    attention(decoder.layer[0].attention, 1, 2, 1)
