#!/usr/bin/env python3
"""Writes synthetic GGUF models: random weights in real shapes, to measure bytes and time with.

    mkmodel.py SHAPE-QUANT OUT.gguf VOCAB.gguf      `make synthetic NAME=SHAPE-QUANT` does all of it

SHAPE    llama-1b llama-3b llama-8b   the shapes of Llama 3.2 1B and 3B (tied embeddings) and 3.1 8B
         qwen3moe-8g                  22 of the 48 layers of Qwen3 30B-A3B: 128 experts, 8 used
QUANT    q4_0 q4_k_m q8_0
VOCAB    a model whose tokenizer is copied, and padded with filler tokens to the shape's size

Weights are drawn so that activations keep their scale; the text that such a model writes means
nothing. They are the same each time, and whatever the vocabulary. OUT gets its name only when it is
whole. Needs: pip install gguf numpy
"""
import argparse
import os
import shutil
import signal
import sys
import tempfile
from math import prod, sqrt

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

LLAMA = dict(arch='llama', base=500000.0, tied=True, vocab=128256, experts=0)
SHAPES = {
    'llama-1b': dict(LLAMA, layers=16, width=2048, ff=8192, heads=32, kv_heads=8, head=64),
    'llama-3b': dict(LLAMA, layers=28, width=3072, ff=8192, heads=24, kv_heads=8, head=128),
    'llama-8b': dict(LLAMA, layers=32, width=4096, ff=14336, heads=32, kv_heads=8, head=128, tied=False),
    'qwen3moe-8g': dict(arch='qwen3moe', base=1e6, tied=False, vocab=151936, layers=22, width=2048, ff=6144,
                        heads=32, kv_heads=4, head=128, experts=128, used=8, expert_ff=768),
}
FILE_TYPES = {'q4_0': 2, 'q8_0': 7, 'q4_k_m': 15}
SEED = 7


def plan(s, quant):
    """What the file holds, in its order: (name, shape, type, kind)."""
    def weight_type(kind, layer):
        if quant == 'q8_0':
            return T.Q8_0
        if kind == ('embedding' if s['tied'] else 'output'):
            return T.Q6_K
        if quant == 'q4_0':
            return T.Q4_0
        # as llama.cpp's Q4_K_M: half of the values and downs, those of the outer layers among them
        eighth = s['layers'] // 8
        finer = layer < eighth or layer >= 7 * s['layers'] // 8 or (layer - eighth) % 3 == 2
        return T.Q6_K if kind in ('v', 'down') and finer else T.Q4_K

    tensors = []

    def norm(name, n):
        tensors.append((name + '.weight', (n,), T.F32, 'ones'))

    def matrix(name, kind, *shape, layer=0):
        tensors.append((name + '.weight', shape, weight_type(kind, layer), kind))

    width, heads, kv, head = s['width'], s['heads'], s['kv_heads'], s['head']
    matrix('token_embd', 'embedding', s['vocab'], width)
    norm('output_norm', width)
    if not s['tied']:
        matrix('output', 'output', s['vocab'], width)
    for i in range(s['layers']):
        b = f'blk.{i}.'
        norm(b + 'attn_norm', width)
        norm(b + 'ffn_norm', width)
        matrix(b + 'attn_q', 'q', heads * head, width, layer=i)
        matrix(b + 'attn_k', 'k', kv * head, width, layer=i)
        matrix(b + 'attn_v', 'v', kv * head, width, layer=i)
        matrix(b + 'attn_output', 'o', width, heads * head, layer=i)
        experts, ff, suffix = (), s['ff'], ''
        if s['experts']:
            experts, ff, suffix = (s['experts'],), s['expert_ff'], '_exps'
            norm(b + 'attn_q_norm', head)
            norm(b + 'attn_k_norm', head)
            tensors.append((b + 'ffn_gate_inp.weight', (s['experts'], width), T.F32, 'router'))
        matrix(b + 'ffn_gate' + suffix, 'gate', *experts, ff, width, layer=i)
        matrix(b + 'ffn_up' + suffix, 'up', *experts, ff, width, layer=i)
        matrix(b + 'ffn_down' + suffix, 'down', *experts, width, ff, layer=i)
    return tensors


def stored(shape, dtype):
    """The shape in bytes of the rows, as the file holds them."""
    block, size = gguf.GGML_QUANT_SIZES[dtype]
    return shape[:-1] + (shape[-1] // block * size,)


def half(value):
    return np.frombuffer(np.float16(value).tobytes(), np.uint8)


def draw(rng, shape, dtype, kind):
    """A tensor's bytes: random codes, with the scales that give products of the activations' size."""
    def raw(n):
        return rng.integers(0, 2 ** 64, size=(n + 7) // 8, dtype=np.uint64).view(np.uint8)[:n]

    scale = 1 / sqrt(shape[-1])
    if kind == 'ones':
        return np.ones(shape, np.float32)
    if kind == 'router':
        rng.standard_normal((shape[0], 1))  # where experts' popularity was drawn; it is even here
        return (rng.standard_normal(shape) * scale * 4).astype(np.float32)
    size = gguf.GGML_QUANT_SIZES[dtype][1]
    blocks = raw(prod(stored(shape, dtype))).reshape(-1, size)
    if dtype == T.Q4_0:  # codes are symmetric but for a half step, so the scale's sign varies
        blocks[:, 0:2] = half(scale / 4.6)
        blocks[:, 1] ^= raw(len(blocks)) & 0x80
    elif dtype == T.Q8_0:
        blocks[:, 0:2] = half(scale / 74)
    elif dtype == T.Q4_K:
        blocks[:, 0:2], blocks[:, 2:4] = half(scale / (32 * 4.6)), half(scale / (32 * 4.6) * 7.5)
        blocks[:, 4:12], blocks[:, 12:16] = 160, 0
    else:  # Q6_K
        scales = blocks[:, 192:208].view(np.int8)
        scales[:] = np.where(scales < 0, np.int8(-32), np.int8(32))
        blocks[:, 208:210] = half(scale / (32 * 18.5))
    return blocks


def write_facts(w, s, quant, shape_name):
    w.add_name(f'synthetic {shape_name}')
    w.add_context_length(8192)
    w.add_embedding_length(s['width'])
    w.add_block_count(s['layers'])
    w.add_feed_forward_length(s['ff'])
    w.add_head_count(s['heads'])
    w.add_head_count_kv(s['kv_heads'])
    w.add_key_length(s['head'])
    w.add_value_length(s['head'])
    w.add_rope_dimension_count(s['head'])
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(s['base'])
    w.add_vocab_size(s['vocab'])
    w.add_file_type(FILE_TYPES[quant])
    if s['experts']:
        w.add_expert_count(s['experts'])
        w.add_expert_used_count(s['used'])
        w.add_expert_feed_forward_length(s['expert_ff'])


def write_vocabulary(w, path, n_vocab):
    source = gguf.GGUFReader(path)

    def fact(key, default=None):
        field = source.get_field('tokenizer.ggml.' + key)
        return default if field is None else field.contents()

    tokens = fact('tokens')
    n_filler = n_vocab - len(tokens)
    if n_filler < 0:
        sys.exit(f'mkmodel.py: {path} has {len(tokens)} tokens, more than the {n_vocab} of the shape')
    w.add_tokenizer_model(fact('model'))
    w.add_tokenizer_pre(fact('pre', 'default'))
    w.add_token_list(tokens + [f' w{i}' for i in range(n_filler)])
    w.add_token_types(fact('token_type') + [1] * n_filler)
    if fact('scores'):
        w.add_token_scores(fact('scores') + [-1e6] * n_filler)
    if fact('merges'):
        w.add_token_merges(fact('merges'))
    w.add_bos_token_id(fact('bos_token_id', 0))
    w.add_eos_token_id(fact('eos_token_id', 0))
    w.add_add_bos_token(False)


def write(path, shape_name, quant, tensors, vocabulary):
    s = SHAPES[shape_name]
    rng = np.random.Generator(np.random.SFC64(SEED))
    w = gguf.GGUFWriter(path, s['arch'])
    write_facts(w, s, quant, shape_name)
    write_vocabulary(w, vocabulary, s['vocab'])
    for name, shape, dtype, _ in tensors:
        if dtype == T.F32:
            w.add_tensor_info(name, shape, np.dtype(np.float32), 4 * prod(shape))
        else:
            row_bytes = stored(shape, dtype)
            w.add_tensor_info(name, row_bytes, np.dtype(np.uint8), prod(row_bytes), raw_dtype=dtype)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for _, shape, dtype, kind in tensors:
        w.write_tensor_data(draw(rng, shape, dtype, kind))
    w.close()


def main():
    names = [f'{shape}-{quant}' for shape in SHAPES for quant in FILE_TYPES]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', choices=names, metavar='SHAPE-QUANT')
    p.add_argument('out')
    p.add_argument('vocab')
    o = p.parse_args()
    shape_name, quant = o.name.rsplit('-', 1)
    tensors = plan(SHAPES[shape_name], quant)
    sizes = [prod(stored(shape, dtype)) for _, shape, dtype, _ in tensors]
    folder = os.path.dirname(os.path.abspath(o.out))
    room = shutil.disk_usage(folder).free
    print(f'mkmodel.py: {o.name}: {sum(sizes) / 1e9:.2f} GB of random weights; needs that room on disk '
          f'and about {1.3 * max(sizes) / 1e9 + 0.2:.1f} GB of memory', file=sys.stderr)
    if room < sum(sizes) + 50e6:
        sys.exit(f'mkmodel.py: {folder} has {room / 1e9:.2f} GB left')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    with tempfile.TemporaryDirectory(prefix='.mkmodel-', dir=folder) as work:
        part = os.path.join(work, 'part')
        write(part, shape_name, quant, tensors, o.vocab)
        os.replace(part, o.out)


if __name__ == '__main__':
    main()
