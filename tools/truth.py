#!/usr/bin/env python3
"""Reference logits in float32: the yardstick for onetrip's correctness.

Dequantises every weight of a GGUF file and runs a plain forward pass in numpy: no quantised
activations, no fast paths, no cache. Slow on purpose. Families: llama (also with experts),
qwen2, qwen3, qwen3moe, gemma2, gemma3, phi3.

    truth.py MODEL.gguf IDS.json OUT.npy      IDS.json: [token id, ...]; OUT: float32 [n_tokens, n_vocab]
    truth.py --compare OUT.npy OTHER.npy      mean and maximum KL(truth || other), share of equal argmax

Needs: pip install gguf numpy
"""
import json
import sys

import numpy as np


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def compare(a, b):
    p, q = log_softmax(a), log_softmax(b)
    kl = (np.exp(p) * (p - q)).sum(-1)
    same = (a.argmax(-1) == b.argmax(-1)).mean()
    return dict(kl_mean=float(kl.mean()), kl_max=float(kl.max()), same_argmax=float(same), n=len(kl))


class Model:
    def __init__(self, path):
        from gguf import GGUFReader
        from gguf.quants import dequantize
        r = GGUFReader(path)
        self.kv = {k: f.contents() for k, f in r.fields.items() if not k.startswith('tokenizer.')}
        self.raw = {t.name: t for t in r.tensors}
        self.dequantize = dequantize
        self.arch = self.kv['general.architecture']

    def hp(self, key, default=None):
        v = self.kv.get(f'{self.arch}.{key}', default)
        if v is None:
            raise SystemExit(f'missing key {self.arch}.{key}')
        return v

    def has(self, name):
        return name in self.raw

    def w(self, name):
        t = self.raw[name]
        return self.dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(x) for x in reversed(t.shape)])


def rms(x, g, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * g


def rope(x, pos, base, n_rot, neox, freq_factors=None, scale=1.0):
    """x: [n, heads, head_dim]; rotates the first n_rot dimensions."""
    half = n_rot // 2
    f = base ** (-np.arange(half, dtype=np.float64) * 2 / n_rot)
    if freq_factors is not None:
        f = f / freq_factors
    a = pos[:, None].astype(np.float64) * f[None, :] * scale
    c, s = np.cos(a)[:, None, :].astype(np.float32), np.sin(a)[:, None, :].astype(np.float32)
    y = x.copy()
    if neox:
        u, v = x[..., :half], x[..., half:n_rot]
        y[..., :half], y[..., half:n_rot] = u * c - v * s, u * s + v * c
    else:
        u, v = x[..., 0:n_rot:2], x[..., 1:n_rot:2]
        y[..., 0:n_rot:2], y[..., 1:n_rot:2] = u * c - v * s, u * s + v * c
    return y


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def forward(m, ids):
    a = m.arch
    gemma = a in ('gemma2', 'gemma3')
    if a not in ('llama', 'qwen2', 'qwen3', 'qwen3moe', 'phi3') and not gemma:
        raise SystemExit(f'family {a} is not covered')
    d, L, H = m.hp('embedding_length'), m.hp('block_count'), m.hp('attention.head_count')
    KV = m.hp('attention.head_count_kv', H)
    hd = m.hp('attention.key_length', d // H)
    n_rot = m.hp('rope.dimension_count', hd)
    eps = m.hp('attention.layer_norm_rms_epsilon')
    base = m.hp('rope.freq_base', 10000.0)
    lin = m.kv.get(f'{a}.rope.scaling.factor', 1.0) if m.kv.get(f'{a}.rope.scaling.type') == 'linear' else 1.0
    window = m.hp('attention.sliding_window', 0) if gemma else 0
    neox = a != 'llama'
    cap_attn = m.hp('attn_logit_softcapping', 50.0) if a == 'gemma2' else 0
    cap_out = m.hp('final_logit_softcapping', 30.0) if a == 'gemma2' else 0
    scale = hd ** -0.5
    if a == 'gemma3' and L == 62 or a == 'gemma2' and L == 46:
        scale = (d / H) ** -0.5
    n = len(ids)
    pos = np.arange(n)
    emb = m.w('token_embd.weight')
    x = emb[ids]
    if gemma:
        x = x * np.float32(np.sqrt(d))
    ff = m.w('rope_freqs.weight') if m.has('rope_freqs.weight') else None
    for i in range(L):
        b = f'blk.{i}.'
        local = window and ((i + 1) % 6 != 0 if a == 'gemma3' else i % 2 == 0)
        h = rms(x, m.w(b + 'attn_norm.weight'), eps)

        def proj(name, heads):
            y = h @ m.w(b + name + '.weight').T
            if m.has(b + name + '.bias'):
                y = y + m.w(b + name + '.bias')
            return y.reshape(n, heads, hd)
        if m.has(b + 'attn_qkv.weight'):
            y = h @ m.w(b + 'attn_qkv.weight').T
            q, k, v = (t.reshape(n, -1, hd) for t in np.split(y, [H * hd, (H + KV) * hd], -1))
        else:
            q, k, v = proj('attn_q', H), proj('attn_k', KV), proj('attn_v', KV)
        if m.has(b + 'attn_q_norm.weight'):
            q, k = rms(q, m.w(b + 'attn_q_norm.weight'), eps), rms(k, m.w(b + 'attn_k_norm.weight'), eps)
        rb, rs = (10000.0, 1.0) if (a == 'gemma3' and local) else (base, 1.0 / lin)
        q, k = rope(q, pos, rb, n_rot, neox, ff, rs), rope(k, pos, rb, n_rot, neox, ff, rs)
        mask = pos[:, None] >= pos[None, :]
        if local:
            mask &= (pos[:, None] - pos[None, :]) < window
        o = np.empty((n, H, hd), np.float32)
        for j in range(H):
            s = (q[:, j] @ k[:, j * KV // H].T) * np.float32(scale)
            if cap_attn:
                s = cap_attn * np.tanh(s / cap_attn)
            o[:, j] = softmax(np.where(mask, s, -np.inf)) @ v[:, j * KV // H]
        y = o.reshape(n, H * hd) @ m.w(b + 'attn_output.weight').T
        if m.has(b + 'post_attention_norm.weight'):
            y = rms(y, m.w(b + 'post_attention_norm.weight'), eps)
        x = x + y
        h = rms(x, m.w(b + 'ffn_norm.weight'), eps)
        act = gelu if gemma else silu
        if m.has(b + 'ffn_gate_inp.weight'):
            E, used = m.hp('expert_count'), m.hp('expert_used_count')
            p = softmax(h @ m.w(b + 'ffn_gate_inp.weight').T)
            top = np.argsort(-p, -1, kind='stable')[:, :used]
            wt = np.take_along_axis(p, top, -1)
            wt = wt / wt.sum(-1, keepdims=True)
            G, U, D = (m.w(b + f'ffn_{t}_exps.weight') for t in ('gate', 'up', 'down'))
            y = np.zeros_like(x)
            for e in range(E):
                t, s = np.nonzero(top == e)
                if len(t):
                    y[t] += wt[t, s][:, None] * ((act(h[t] @ G[e].T) * (h[t] @ U[e].T)) @ D[e].T)
        elif not m.has(b + 'ffn_gate.weight'):
            gate, up = np.split(h @ m.w(b + 'ffn_up.weight').T, 2, -1)
            y = (act(gate) * up) @ m.w(b + 'ffn_down.weight').T
        else:
            y = (act(h @ m.w(b + 'ffn_gate.weight').T) * (h @ m.w(b + 'ffn_up.weight').T)) @ m.w(b + 'ffn_down.weight').T
        if m.has(b + 'post_ffw_norm.weight'):
            y = rms(y, m.w(b + 'post_ffw_norm.weight'), eps)
        x = x + y
    x = rms(x, m.w('output_norm.weight'), eps)
    y = x @ (m.w('output.weight') if m.has('output.weight') else emb).T
    return cap_out * np.tanh(y / cap_out) if cap_out else y


if __name__ == '__main__':
    if len(sys.argv) == 4 and sys.argv[1] == '--compare':
        print(json.dumps(compare(np.load(sys.argv[2]), np.load(sys.argv[3]))))
    elif len(sys.argv) == 4:
        np.save(sys.argv[3], forward(Model(sys.argv[1]), np.array(json.load(open(sys.argv[2])), np.int64)).astype(np.float32))
    else:
        raise SystemExit(__doc__)
