#!/usr/bin/env python3
"""Capture vectors from bitsandbytes' CPU library, for test_golden.c to compare with.

    python3 capture_bitsandbytes.py path/to/libbitsandbytes_cpu.so VERSION > bitsandbytes_cpu.txt

The library is in the wheel that `pip download --no-deps bitsandbytes` fetches (a zip file). Standard library only.
Inputs are fixed (random.Random with a seed); they are written out with the outputs, so that the test needs no
generator in common. Run it where the processor has no AVX-512: that path of the library is wrong on some shapes.
"""
import ctypes
import hashlib
import platform
import random
import struct
import sys

WIDTH = {"u8": 2, "u16": 4, "u32": 8}


def emit(name, kind, values):
    digits = WIDTH[kind]
    print(f"array {name} {kind} {len(values)}")
    text = "".join(f"{v:0{digits}x}" for v in values)
    for i in range(0, len(text), 112):
        print(text[i:i + 112])


def bits(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def to_half(x, dtype):
    """fp32 -> 16 bits, round to nearest even."""
    if dtype == "fp16":
        return struct.unpack("<H", struct.pack("<e", x))[0]
    u = bits(x)
    return (u + 0x7FFF + (u >> 16 & 1)) >> 16


def output(dtype, n):
    return ((ctypes.c_uint32 if dtype == "fp32" else ctypes.c_uint16) * n)(), "u32" if dtype == "fp32" else "u16"


def signed_map():
    """The dynamic map's bits, read from the project's own header, where a test derives them anew."""
    text = open("kernels/formats.h").read()
    text = text[text.index("#define FB_DYNAMIC_SIGNED_BITS"):text.index("#define FB_DYNAMIC_UNSIGNED_BITS")]
    values = [int(w.strip(" ,\\")[2:10], 16) for w in text.split() if w.startswith("0x")]
    assert len(values) == 256
    return (ctypes.c_uint32 * 256)(*values)


def four_bits(lib, rng):
    rows, cols, block = 16, 80, 64
    n = rows * cols
    codes = (ctypes.c_uint8 * (n // 2))(*[i if i < 256 else rng.randrange(256) for i in range(n // 2)])
    absmax = (ctypes.c_uint32 * (n // block))(*[bits(rng.uniform(0.001, 4.0)) for _ in range(n // block)])
    emit("codes4", "u8", codes)
    emit("absmax4", "u32", absmax)
    for fmt in ("nf4", "fp4"):
        for dtype in ("fp32", "bf16", "fp16"):
            out, kind = output(dtype, n)
            getattr(lib, f"cdequantize_blockwise_cpu_{fmt}_{dtype}")(
                codes, absmax, out, ctypes.c_longlong(block), ctypes.c_longlong(rows), ctypes.c_longlong(cols))
            emit(f"dequantize_{fmt}_{dtype}", kind, out)


def eight_bits(lib, rng):
    n, block = 1000, 256
    table = signed_map()
    codes = (ctypes.c_uint8 * n)(*[i if i < 256 else rng.randrange(256) for i in range(n)])
    absmax = (ctypes.c_uint32 * 4)(*[bits(rng.uniform(0.001, 4.0)) for _ in range(4)])
    emit("codes8", "u8", codes)
    emit("absmax8", "u32", absmax)
    gaussian = [rng.gauss(0, 1) for _ in range(n)]
    for dtype in ("fp32", "bf16", "fp16"):
        out, kind = output(dtype, n)
        getattr(lib, f"cdequantize_blockwise_cpu_{dtype}")(
            table, codes, absmax, out, ctypes.c_longlong(block), ctypes.c_longlong(n))
        emit(f"dequantize8_{dtype}", kind, out)

        source, kind = output(dtype, n)
        for i, x in enumerate(gaussian):
            source[i] = bits(x) if dtype == "fp32" else to_half(x, dtype)
        found, scale = (ctypes.c_uint8 * n)(), (ctypes.c_uint32 * 4)()
        getattr(lib, f"cquantize_blockwise_cpu_{dtype}")(
            table, source, scale, found, ctypes.c_longlong(block), ctypes.c_longlong(n))
        emit(f"source8_{dtype}", kind, source)
        emit(f"quantize8_{dtype}", "u8", found)
        emit(f"quantize8_absmax_{dtype}", "u32", scale)


def main():
    if len(sys.argv) != 3 or sys.argv[1] == "--help":
        sys.exit(__doc__)
    path, version = sys.argv[1:]
    lib = ctypes.CDLL(path)
    digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
    print(f"# outputs of bitsandbytes {version}, libbitsandbytes_cpu.so, sha256 {digest}")
    print(f"# captured by validate/golden/capture_bitsandbytes.py on {platform.machine()}, "
          f"avx512f {'yes' if lib.has_avx512f_cpu() else 'no'}; bits in hexadecimal, elements in order")
    rng = random.Random(4)
    four_bits(lib, rng)
    eight_bits(lib, rng)


if __name__ == "__main__":
    main()
