#!/usr/bin/env python3
"""Writes tests/data/dequant/TYPE.bin: random blocks and the values the gguf Python package gives them.

    pip install gguf numpy
    tools/make_dequant_vectors.py tests/data/dequant

File: uint32 number of values, then the blocks, then the values as float32, all little-endian.
Scales cover ordinary numbers, zeros of both signs, denormals, the largest finite and infinity.
Codes are random bytes. Where infinity meets 0 the value is a NaN: the test takes any NaN for it.
"""
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Byte offsets of the f16 numbers in a block.
HALVES = {
    T.F16: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [], T.F32: [], T.BF16: [],
}
EXTREMES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0x3C00, 0xBC00]


def blocks_of(dtype, rng):
    values, size = GGML_QUANT_SIZES[dtype]
    n = {1: 512, 32: 40, 256: 14}[values]
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for offset in HALVES[dtype]:
        scale = (rng.standard_normal(n) * 0.05).astype(np.float16).view(np.uint16)
        extreme = np.array(EXTREMES, np.uint16)
        if values == 1:
            scale = np.concatenate([extreme, rng.integers(0, 0x7C00, n - 10).astype(np.uint16)])
        elif offset == HALVES[dtype][0]:
            scale[:len(extreme)] = extreme
        else:  # a minimum: finite, so that no infinity meets its opposite
            scale[:6] = extreme[[0, 1, 2, 5, 6, 8]]
        raw[:, offset:offset + 2] = scale.reshape(-1, 1).view(np.uint8)
    if dtype in (T.F32, T.BF16):  # exponent bits of all ones would be a NaN
        raw[:, size - 1] &= 0xBF
    if dtype == T.MXFP4:
        raw[:8, 0] = [0, 1, 2, 3, 127, 128, 254, 255]
    return raw


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with np.errstate(all="ignore"):
        for number, dtype in enumerate(HALVES):
            raw = blocks_of(dtype, np.random.default_rng(number))
            values = dequantize(raw.reshape(1, -1), dtype).astype("<f4").ravel()
            assert values.size == raw.shape[0] * GGML_QUANT_SIZES[dtype][0]
            (out / f"{dtype.name.lower()}.bin").write_bytes(
                np.uint32(values.size).tobytes() + raw.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
