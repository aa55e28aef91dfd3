/* bnb_state.c: the quant_state JSON, read and written. See bnb4bit.h. */
#include "bnb4bit.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const torch_names[FB_DTYPE_COUNT] = {
    [FB_F32] = "float32", [FB_BF16] = "bfloat16", [FB_F16] = "float16"};

/* One text being read: what each check needs. */
typedef struct reader {
    const json_t *object;
    const char *file, *key;
    ck_error *e;
} reader;

#define FAIL(r, ...) ck_fail((r)->e, (r)->file, (r)->key, __VA_ARGS__)

static const char *text(const reader *r, const char *key)
{
    const json_t *value = json_object_get(r->object, key);
    if (json_is_string(value)) return json_string_value(value);
    FAIL(r, "\"%s\" is %s", key, value ? "not a string" : "missing");
    return NULL;
}

static bool integer(const reader *r, const char *key, json_int_t *out)
{
    const json_t *value = json_object_get(r->object, key);
    if (!json_is_integer(value)) return FAIL(r, "\"%s\" is %s", key, value ? "not an integer" : "missing");
    *out = json_integer_value(value);
    return true;
}

static bool known_keys(const reader *r)
{
    static const char *const known[] = {"quant_type", "blocksize", "dtype", "shape", "nested_blocksize",
                                        "nested_dtype", "nested_offset"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->object, key, value) {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) found |= strcmp(key, known[i]) == 0;
        if (!found) return FAIL(r, "\"%.64s\" is not a key of a quant_state that this version knows", key);
    }
    return true;
}

static bool read_format(const reader *r, bnb_state *s)
{
    const char *name = text(r, "quant_type");
    if (!name) return false;
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        if (strcmp(name, fb_format_name((fb_format)f)) == 0) {
            s->format = (fb_format)f;
            return true;
        }
    return FAIL(r, "quant_type \"%.32s\" is none of nf4, fp4, int4, int4-affine", name);
}

static bool read_dtype(const reader *r, bnb_state *s)
{
    const char *name = text(r, "dtype");
    if (!name) return false;
    for (int t = 0; t < FB_DTYPE_COUNT; t++)
        if (strcmp(name, torch_names[t]) == 0) {
            s->dtype = (fb_dtype)t;
            return true;
        }
    return FAIL(r, "dtype \"%.32s\" is none of float32, bfloat16, float16", name);
}

static bool read_shape(const reader *r, bnb_state *s)
{
    const json_t *shape = json_object_get(r->object, "shape");
    if (!json_is_array(shape)) return FAIL(r, "\"shape\" is %s", shape ? "not an array" : "missing");
    if (json_array_size(shape) > ST_MAX_RANK)
        return FAIL(r, "shape has %zu dimensions; at most %d are read", json_array_size(shape), ST_MAX_RANK);
    s->rank = (int)json_array_size(shape);
    s->elements = 1;
    bool overflow = false;
    for (int i = 0; i < s->rank; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return FAIL(r, "shape[%d] is not an integer of 0 or more", i);
        s->shape[i] = json_integer_value(d);
        overflow |= __builtin_mul_overflow(s->elements, s->shape[i], &s->elements);
    }
    if (overflow) return FAIL(r, "shape: the product of the dimensions overflows 63 bits");
    return true;
}

static bool read_nested(const reader *r, bnb_state *s)
{
    s->nested = json_object_get(r->object, "nested_blocksize") || json_object_get(r->object, "nested_dtype") ||
                json_object_get(r->object, "nested_offset");
    if (!s->nested) return true;
    json_int_t block;
    if (!integer(r, "nested_blocksize", &block)) return false;
    if (block != FB_NESTED_BLOCK)
        return FAIL(r, "nested_blocksize is %lld; only %d is supported", (long long)block, FB_NESTED_BLOCK);
    const char *dtype = text(r, "nested_dtype");
    if (!dtype) return false;
    if (strcmp(dtype, "float32") != 0)
        return FAIL(r, "nested_dtype is \"%.32s\"; only float32 is supported", dtype);
    const json_t *offset = json_object_get(r->object, "nested_offset");
    if (!json_is_number(offset)) return FAIL(r, "\"nested_offset\" is %s", offset ? "not a number" : "missing");
    double value = json_number_value(offset);
    /* compared as double: the cast of something beyond fp32 would be undefined */
    if (!(fabs(value) <= 3.4028234663852886e38)) return FAIL(r, "nested_offset is beyond the range of fp32");
    s->nested_offset = (float)value;
    return true;
}

bool bnb_parse_state(bnb_state *s, const void *json, size_t bytes, const char *file, const char *key, ck_error *e)
{
    *s = (bnb_state){0};
    reader r = {.file = file, .key = key, .e = e};
    /* far above what eight dimensions can need: not worth a parser's time */
    if (bytes > 65536) return FAIL(&r, "the text has %zu bytes; a quant_state has at most 65536", bytes);
    json_error_t why;
    json_t *object = json_loadb(bytes ? json : "", bytes, JSON_REJECT_DUPLICATES, &why);
    if (!object) return FAIL(&r, "byte %d of its text: %s", why.position, why.text);
    r.object = object;
    json_int_t block = 0;
    bool good = json_is_object(object) ? known_keys(&r) && read_format(&r, s) && integer(&r, "blocksize", &block) &&
                                             read_dtype(&r, s) && read_shape(&r, s) && read_nested(&r, s)
                                       : FAIL(&r, "the text is not a JSON object");
    if (good && !fb_block_size_valid(block))
        good = FAIL(&r, "blocksize is %lld; it must be a power of two, %d ... %d", (long long)block, FB_BLOCK_MIN,
                    FB_BLOCK_MAX);
    s->block_size = good ? (int32_t)block : 0;
    json_decref(object);
    return good;
}

/* As Python prints a float: the shortest decimal that reads back as the same double,
 * with an exponent below 1e-4 and from 1e16 on. (jansson writes exponents otherwise.) */
static void python_float(char text[40], double value)
{
    int precision = 0;
    do snprintf(text, 40, "%.*e", precision, value);
    while (strtod(text, NULL) != value && ++precision < 17);
    int exponent = atoi(strchr(text, 'e') + 1);
    if (exponent < -4 || exponent >= 16) return;
    int decimals = precision - exponent;
    snprintf(text, 40, "%.*f", decimals > 1 ? decimals : 1, value);
}

char *bnb_format_state(const bnb_state *s)
{
    char shape[ST_MAX_RANK * 24] = "", nested[128] = "", offset[40], *text = NULL;
    int used = 0;
    for (int i = 0; i < s->rank; i++)
        used += snprintf(shape + used, sizeof shape - (size_t)used, "%s%lld", i ? ", " : "", (long long)s->shape[i]);
    if (s->nested) {
        python_float(offset, (double)s->nested_offset);
        snprintf(nested, sizeof nested,
                 ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", \"nested_offset\": %s", FB_NESTED_BLOCK,
                 offset);
    }
    return asprintf(&text, "{\"quant_type\": \"%s\", \"blocksize\": %d, \"dtype\": \"%s\", \"shape\": [%s]%s}",
                    fb_format_name(s->format), (int)s->block_size, torch_names[s->dtype], shape, nested) < 0
               ? NULL
               : text;
}
