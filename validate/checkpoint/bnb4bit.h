/* bnb4bit.h: 4-bit modules in a safetensors file, under the keys that Hugging Face
 * transformers and bitsandbytes use ("bnb-4bit").
 *
 * A weight K (for example "model.layers.0.mlp.up_proj.weight") of n elements:
 *
 *   key                              type   shape             what
 *   K                                U8     [(n+1)/2, 1]      codes, two an element byte (formats.h)
 *   K.absmax                         F32    [blocks]          or U8, when nested
 *   K.quant_map                      F32    [16]              codebook, code 0 ... 15
 *   K.nested_absmax                  F32    [blocks/256, up]  nested only
 *   K.nested_quant_map               F32    [256]             nested only
 *   K.quant_state.bitsandbytes__nf4  U8     [length]          JSON, UTF-8 (or ..__fp4)
 *
 *   {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4096, 4096],
 *    "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.0123}
 *
 * The last three only when nested. The codes may be stored under another type of
 * the same number of bytes (bitsandbytes' quant_storage).
 *
 * What bitsandbytes has no spelling for is written under ours, "fourbit__" in place
 * of "bitsandbytes__", so that bitsandbytes refuses the file instead of decoding it
 * wrongly. bitsandbytes does NOT read these:
 *
 *   K.quant_state.fourbit__int4          quant_type "int4": codes 0 ... 15 are -8 ... 7
 *   K.quant_state.fourbit__int4-affine   quant_type "int4-affine"
 *     K.zero_points                      U8 [blocks], 0 ... 15
 *   K.quant_state.fourbit__<any>         a tensor that was normalised first
 *     K.moments                          F32 [2]: mean and deviation; weight = value * deviation + mean
 */
#ifndef FOURBIT_BNB4BIT_H
#define FOURBIT_BNB4BIT_H

#include "fourbit.h"
#include "safetensors.h"

/* The JSON. */
typedef struct bnb_state {
    fb_format format;
    int32_t block_size;
    fb_dtype dtype;   /* of the weight before quantization */
    int rank;
    int64_t shape[ST_MAX_RANK];
    int64_t elements;
    bool nested;
    float nested_offset;
} bnb_state;

/* Every key is checked, and one that is not known is an error: it might change what
 * the bytes mean. file and key name the text in messages. */
bool bnb_parse_state(bnb_state *s, const void *json, size_t bytes, const char *file, const char *key, ck_error *e);
/* Key order, spelling and number format of bitsandbytes (Python's json.dumps);
 * at most ST_LATE_MAX bytes. malloc'd; NULL: out of memory. */
char *bnb_format_state(const bnb_state *s);

/* ---- reading --------------------------------------------------------------------------- */

/* Which tensors of a file belong to 4-bit modules. */
typedef struct bnb_index {
    size_t count;
    const st_tensor **states; /* the quant_state tensor of each module, in the file's order */
    bool *is_part;            /* [file->count] */
} bnb_index;

bool bnb_scan(bnb_index *index, const st_file *file, ck_error *e);
void bnb_index_free(bnb_index *index);

typedef struct bnb_module {
    char *name;         /* K */
    bnb_state state;
    fb_matrix w;        /* [product of the leading dimensions, last]. Over the mapping: read-only, though not
                           declared so. The codebooks are the file's. */
    bool normalized;
    float moments[2];
    size_t bytes;       /* of all its parts in the file */
    void *copies[5];    /* parts that were not aligned in the mapping */
    int copied;
} bnb_module;

/* Valid until st_close(file). */
bool bnb_open(bnb_module *m, const st_file *file, const st_tensor *state, ck_error *e);
void bnb_close(bnb_module *m);

/* ---- writing ----------------------------------------------------------------------------- */

/* Can the matrix t be replaced by a module? Not where another tensor of its file has a name that a module's part
 * would have: a reader would take it for that. */
bool bnb_can_name(const st_file *file, const st_tensor *t, ck_error *e);

/* The slots of one module's parts in a writer. */
typedef struct bnb_slots {
    size_t codes, absmax, quant_map, nested_absmax, nested_quant_map, state, zero_points, moments;
} bnb_slots;

/* Declares the parts of weight `name`. Of s, nested_offset is not needed yet. */
bool bnb_plan(st_writer *writer, const char *name, const bnb_state *s, bool normalized, bnb_slots *slots,
              ck_error *e);
/* Puts them. w is quantized; moments NULL unless normalised. */
bool bnb_put(st_writer *writer, const bnb_slots *slots, const bnb_state *s, const fb_matrix *w,
             const float *moments, ck_error *e);

/* rows and columns of the matrix that a shape makes: the leading dimensions
 * flattened, and the last. */
void bnb_matrix_shape(int rank, const int64_t *shape, int64_t *rows, int64_t *cols);

#endif
