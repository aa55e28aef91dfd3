/* cmd_info.c: what is in a safetensors file. */
#include "tool.h"

#include <stdio.h>

static const char *shown(char *line, size_t size, const char *name)
{
    snprintf(line, size, "%s", name);
    ck_printable(line);
    return line;
}

static void print_shape(int rank, const int64_t *shape)
{
    putchar('[');
    for (int i = 0; i < rank; i++) printf("%s%lld", i ? ", " : "", (long long)shape[i]);
    putchar(']');
}

static bool print_modules(const st_file *f, const bnb_index *modules, ck_error *e)
{
    char name[512];
    for (size_t i = 0; i < modules->count; i++) {
        bnb_module m;
        if (!bnb_open(&m, f, modules->states[i], e)) return false;
        int64_t n = m.state.elements;
        printf("%-48s %-5s ", shown(name, sizeof name, m.name), fb_format_name(m.state.format));
        print_shape(m.state.rank, m.state.shape);
        printf("  block %d%s%s, of %s, %zu bytes, %.3f bits per weight\n", m.state.block_size,
               m.state.nested ? ", double-quantized" : "", m.normalized ? ", normalised" : "",
               fb_dtype_name(m.state.dtype), m.bytes, n ? 8.0 * (double)m.bytes / (double)n : 0.0);
        bnb_close(&m);
    }
    return true;
}

int cmd_info(const options *o)
{
    ck_error e;
    st_file f;
    bnb_index modules;
    char name[512];
    if (!st_open(&f, o->in, &e)) return failed(&e);
    if (!bnb_scan(&modules, &f, &e)) {
        st_close(&f);
        return failed(&e);
    }
    for (size_t i = 0; i < f.metadata_count; i++) {
        printf("# %s", shown(name, sizeof name, f.metadata[2 * i]));
        printf(": %s\n", shown(name, sizeof name, f.metadata[2 * i + 1]));
    }
    size_t plain = 0, passed_over = 0;
    for (size_t i = 0; i < f.count; i++) {
        const st_tensor *t = &f.tensors[i];
        if (modules.is_part[i]) continue;
        plain++;
        printf("%-48s %-5s ", shown(name, sizeof name, t->name), st_dtype_name(t->dtype));
        print_shape(t->rank, t->shape);
        printf("  %zu bytes%s\n", t->bytes, t->dtype > ST_U8 ? " (of a type that is only copied)" : "");
        passed_over += t->dtype > ST_U8;
    }
    bool good = print_modules(&f, &modules, &e);
    if (good)
        printf("%zu plain tensors (%zu of types that are only copied), %zu 4-bit weights, %zu bytes\n", plain,
               passed_over, modules.count, f.size);
    bnb_index_free(&modules);
    st_close(&f);
    return good ? EXIT_OK : failed(&e);
}
