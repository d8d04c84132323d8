"""reduce.py VOCABULARY.gguf TEXTS.inp OUT.gguf - a vocabulary that gives the same tokens for some texts.

Of a vocabulary GGUF file (without weights) it keeps the tokens that can play a part in tokenising the
texts, under their own ids; all others become empty strings, merges that cannot happen are left out.
Needs the Python package gguf. How vectors.tar.xz was made of them is in README.md.
"""
import sys

import gguf

SEPARATOR = b"\n__ggml_vocab_test__\n"
COPIED = ["general.name", "tokenizer.ggml.pre", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
          "tokenizer.ggml.add_space_prefix"]
IDS = ["bos", "eos", "unknown", "eot", "eom"]


def byte_chars():
    """GPT-2's characters for bytes."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    chars, n = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in chars:
            chars[b], n = chr(256 + n), n + 1
    return chars


def main(source, texts, out):
    reader = gguf.GGUFReader(source)
    field = reader.fields

    def strings(key):
        f = field[key]
        return [bytes(f.parts[i]) for i in f.data]

    def value(key):
        return field[key].contents() if key in field else None

    tokens = strings("tokenizer.ggml.tokens")
    types = [int(field["tokenizer.ggml.token_type"].parts[i][0]) for i in field["tokenizer.ggml.token_type"].data]
    bpe = value("tokenizer.ggml.model") == "gpt2"
    text = open(texts, "rb").read().replace(SEPARATOR, b"\0\0")
    if bpe:
        chars = byte_chars()
        coded = "".join(chars[b] for b in text).encode()
    else:
        coded = b"\xe2\x96\x81" + text.replace(b" ", b"\xe2\x96\x81").replace(b"\0\0", b"\0\xe2\x96\x81")
    # A special token is kept whether it occurs or not, but for numbered ones, which no text has.
    kept = [t in coded or len(t) <= 2 or k == 6 or (k in (2, 3, 4) and not any(c in t for c in (b"PAD", b"reserved", b"unused")))
            for t, k in zip(tokens, types)]
    names = {t for t, k in zip(tokens, kept) if k}

    w = gguf.GGUFWriter(out, "llama")
    w.add_string("tokenizer.ggml.model", value("tokenizer.ggml.model"))
    for key in COPIED:
        v = value(key)
        if isinstance(v, bool):
            w.add_bool(key, v)
        elif v is not None:
            w.add_string(key, v)
    w.add_array("tokenizer.ggml.tokens", [t if k else b"" for t, k in zip(tokens, kept)])
    w.add_array("tokenizer.ggml.token_type", types)
    if "tokenizer.ggml.scores" in field:
        f = field["tokenizer.ggml.scores"]
        w.add_array("tokenizer.ggml.scores", [float(f.parts[i][0]) for i in f.data])
    if bpe:
        merges = []
        for m in strings("tokenizer.ggml.merges"):
            left, right = m[:m.index(b" ", 1)], m[m.index(b" ", 1) + 1:]
            if left in names and right in names and left + right in names:
                merges.append(m)
        w.add_array("tokenizer.ggml.merges", merges)
    for name in IDS:
        v = value("tokenizer.ggml.%s_token_id" % name)
        if v is not None:
            w.add_uint32("tokenizer.ggml.%s_token_id" % name, int(v))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


main(*sys.argv[1:])
