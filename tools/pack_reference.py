#!/usr/bin/env python3
"""Packs reference values (JSON, as written beside truth.py) for tests/test_live.c.

    pack_reference.py IN.json OUT.ref

OFFSET          SIZE    VALUE (little-endian)
0               4       "OTR1"
4               4       n_prompt: the first tokens are the text's
8               4       n_tokens: the text's and those that were generated greedily after it
12              4       n_top
16              4       mean KL of llama.cpp from the truth, in millionths
20              4 n     the token ids
20 + 4 n        4 n k   for each position the n_top likeliest next tokens of the float32 truth, id in
                        the low 18 bits, -log p in thousandths in the high 14
"""
import json
import struct
import sys

source = json.load(open(sys.argv[1]))
tokens, top = source["tokens"], len(source["top_ids"][0])
with open(sys.argv[2], "wb") as out:
    out.write(struct.pack("<4sIIII", b"OTR1", source["n_prompt"], len(tokens), top,
                          round(source["llama_cpp"]["kl_mean"] * 1e6)))
    out.write(struct.pack(f"<{len(tokens)}I", *tokens))
    for ids, logprobs in zip(source["top_ids"], source["top_logprobs"]):
        for token, logprob in zip(ids, logprobs):
            out.write(struct.pack("<I", token | min(round(-logprob * 1000), 16383) << 18))
