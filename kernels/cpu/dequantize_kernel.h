/* dequantize_kernel.h: 4-bit codes to fp32, bf16 or fp16.
 *
 *   bytes   in 0.5 + 4/B a weight (double-quantized 0.5 + 1/B + 4/(256 B)), out 2 or 4: block 64
 *           to bf16 2.5625. FLOPs: 16 products a block, or one a weight for fp32
 *   bound   memory: the copy bandwidth
 *
 * A block has only 16 values. For 16-bit output they are scaled and rounded once a
 * block, and a weight is one table look-up: the same bits as code * absmax rounded.
 *
 * Versions (NF4 block 64 to bf16, 8192 x 8192, one core of a Zen 3, AVX2, beside a streaming copy in
 * the same run):
 *   1  a table of 16 scaled bf16 a block, two vpshufb and two unpacks for 32 weights, streaming stores:
 *      19.0 GB/s, 75 % of the copy (25.3), 11 times bitsandbytes (1.7); with other work on the
 *      machine 12.8 of 23.8, 9.5 times
 *   What is left: in cache the bf16 table costs 12 of 24 cycles for 64 weights at block 64, none at 4096.
 *   AVX-512 (one core of a Zen 5, shared, 4096 x 4096): 26 GB/s, 57 % of the copy, 1.2 times bitsandbytes' AVX-512;
 *   double-quantized 5 % slower; block 4096 29 GB/s, 63 %.
 *   2  turns of 512 K weights, not 64 K (cpu_chunk): two cores of a Zen 5, 8192 x 8192, block 64: 2.77 ms to 2.13 where a copy
 *      reaches 105 GB/s, 3.57 to 3.40 where it reaches 61
 *   3  a block's table with one vpermw for three instructions, vpshufb and vpsrlvw to spread the codes, the block size a constant:
 *      8.4 cycles in cache for 64 weights became 5.6. Now as fast as a loop that reads the same bytes and stores what it has read:
 *      3.40 ms and 3.41 at 61 GB/s, one core 0.48 and 0.475 ms for 8 M weights. AVX2 4.4 ms to 3.8
 *
 *     make bench FILTER=dequantize/cpu
 */
#include "decode.h"

/* Output beyond the last-level caches is streamed past
 * them: it would evict what the caller has there, and reading a line before
 * overwriting it costs a third of the traffic. */
enum { DEQUANTIZE_STREAM_BYTES = 16 << 20 };

static inline lut16 block_lut16(const decoder *d, int64_t block, fb_dtype t)
{
    float shifted[FB_CODES];
    const float *values = d->values;
    if (d->zero_points) {
        for (int c = 0; c < FB_CODES; c++) shifted[c] = d->values[c] - (float)d->zero_points[block];
        values = shifted;
    }
    return lut16_make(values, cpu_absmax(&d->scales, block), t);
}

/* Whole blocks, from element begin on. What is constant is compiled once for each of its values: the loop over a block of 64 is two
 * steps then, and nothing is asked but where it ends. */
ALWAYS_INLINE void dequantize16_blocks(const decoder *d, int64_t begin, int64_t end, const int64_t size, uint16_t *out, const fb_dtype t,
                                       const bool stream)
{
    for (int64_t i = begin, block = begin >> d->shift; i < end; block++) {
        const lut16 table = block_lut16(d, block, t);
        for (const int64_t stop = i + size; i < stop; i += GROUP) decode32_16(&table, d->codes + i / 2, out + i, stream);
    }
}

static void dequantize16(const decoder *d, int64_t begin, int64_t end, uint16_t *out, fb_dtype t, bool stream)
{
    const int64_t size = (int64_t)1 << d->shift, whole = begin + (end - begin) / size * size;
#define BLOCKS(size, t, stream) dequantize16_blocks(d, begin, whole, size, out, t, stream)
    if (t == FB_F16) BLOCKS(size, FB_F16, stream);
    else if (size != 64) BLOCKS(size, FB_BF16, stream);
    else if (stream) BLOCKS(64, FB_BF16, true);
    else BLOCKS(64, FB_BF16, false);
#undef BLOCKS
    if (whole == end) return;
    const lut16 table = block_lut16(d, whole >> d->shift, t); /* the matrix's last, short block */
    int64_t i = whole;
    for (; end - i >= GROUP; i += GROUP) decode32_16(&table, d->codes + i / 2, out + i, false);
    if (i < end) {
        uint8_t bytes[GROUP / 2];
        uint16_t tail[GROUP];
        copy_group(d, i, bytes);
        decode32_16(&table, bytes, tail, false);
        memcpy(out + i, tail, (size_t)(end - i) * sizeof *out);
    }
}

/* decode_span with streaming stores, for whole groups. */
static void dequantize32_stream(const decoder *d, int64_t begin, int64_t end, float *out)
{
    for (int64_t i = begin; i < end;) {
        const int64_t block = i >> d->shift, stop = cpu_min((block + 1) << d->shift, end);
        const lutv table = block_lut(d, block);
        const vf scale = vf_set1(cpu_absmax(&d->scales, block));
        for (; i < stop; i += GROUP) {
            vf v[GV];
            decode32(&table, d->codes + i / 2, v);
            for (int j = 0; j < GV; j++) vf_stream(out + i + j * VF, vf_mul(v[j], scale));
        }
    }
}

static void dequantize32(const decoder *d, int64_t begin, int64_t end, float *out, bool stream)
{
    const int64_t whole = stream ? end / GROUP * GROUP : begin;
    if (whole > begin) dequantize32_stream(d, begin, whole, out);
    if (end > whole) decode_span(d, whole, end - whole, out + whole);
}

fb_status ISA(cpu_dequantize)(fb_context *ctx, const fb_matrix *src, void *dst, fb_dtype t)
{
    decoder d;
    decoder_init(&d, src);
    const bool stream =
        d.n * (int64_t)fb_dtype_size(t) >= DEQUANTIZE_STREAM_BYTES && (uintptr_t)dst % sizeof(vf) == 0;
    const int64_t chunk = cpu_chunk(ctx, d.n), chunks = fb_ceil_div(d.n, chunk); /* every block size divides the chunk */
#pragma omp parallel for schedule(dynamic) num_threads(cpu_threads(ctx, chunks))
    for (int64_t c = 0; c < chunks; c++) {
        const int64_t begin = c * chunk, end = cpu_min(begin + chunk, d.n);
        if (t == FB_F32) dequantize32(&d, begin, end, dst, stream);
        else dequantize16(&d, begin, end, dst, t, stream);
        if (stream) vf_fence();
    }
    return FB_OK;
}
