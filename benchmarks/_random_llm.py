"""A language model in the shape of a small trained one, all its 100 million weights random."""

from pathlib import Path

import gguf
import numpy as np
from gguf import TokenType

WIDTH, INNER, LAYERS, HEADS, CONTEXT = 1024, 2752, 8, 8, 2048
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
END = 2
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def write_random_llm(file: Path) -> float:
    """Write the model; how many million weights it has."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    special = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types([*special, *[TokenType.BYTE] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    count = _write_weights(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count / 1e6


def _write_weights(writer: gguf.GGUFWriter) -> int:
    generator, count = np.random.default_rng(0), 0
    matrices = {"token_embd": (len(TOKENS), WIDTH), "output": (len(TOKENS), WIDTH)}
    for layer in range(LAYERS):
        names = ("attn_q", "attn_k", "attn_v", "attn_output")
        matrices |= {f"blk.{layer}.{name}": (WIDTH, WIDTH) for name in names}
        matrices |= {f"blk.{layer}.{name}": (INNER, WIDTH) for name in ("ffn_gate", "ffn_up")}
        matrices[f"blk.{layer}.ffn_down"] = (WIDTH, INNER)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for name, shape in matrices.items():
        values = generator.normal(0, 0.04, shape).astype(np.float16)
        writer.add_tensor(f"{name}.weight", values)
        count += values.size
    return count
