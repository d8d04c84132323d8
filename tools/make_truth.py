#!/usr/bin/env python3
"""Writes tests/data/truth: logits of the tests' tiny models in float32 truth (tools/truth.py).

    make_truth.py MAKE_TINY OUT_DIR        MAKE_TINY: the program build/tests/make_tiny

For each family one file FAMILY.f32: float32 [24, n_vocab], for the tokens that tests/test_engine.c
feeds: token i is (i * 7 + 3) % 256. Needs: pip install gguf numpy
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import truth

FAMILIES = ['llama', 'llama3', 'mixtral', 'qwen2', 'qwen3', 'qwen3moe', 'gemma2', 'gemma3', 'phi3']


def main():
    make_tiny, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    ids = np.array([(i * 7 + 3) % 256 for i in range(24)], np.int64)
    with tempfile.TemporaryDirectory() as tmp:
        for family in FAMILIES:
            path = os.path.join(tmp, family + '.gguf')
            subprocess.run([make_tiny, path, family, 'Q8_0', '7'], check=True)
            logits = truth.forward(truth.Model(path), ids).astype(np.float32)
            logits.tofile(os.path.join(out, family + '.f32'))
            print(family, logits.shape, float(np.abs(logits).max()))


if __name__ == '__main__':
    main()
