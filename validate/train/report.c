/* report.c: what fourbit-train says about a run (report.h). */
#include "report.h"

#include "validate/checkpoint/atomic_file.h"

#include <jansson.h>
#include <stdlib.h>

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

enum { COMPONENTS = 8 };
typedef struct component {
    const char *name, *key;
    size_t predicted, measured;
} component;

static void components_of(const lm_model *m, optimizer *o, component out[COMPONENTS])
{
    lm_memory p = lm_predict_memory(&m->config, &m->options), q = m->memory;
    size_t per_element = 0, state = 0;
    if (o) per_element = opt_state_bytes(o), state = pager_count(opt_pager(o)).total_bytes;
    const component all[COMPONENTS] = {
        {"base, linear layers", "base_linear", p.base_linear, q.base_linear}, {"base, the rest", "base_other", p.base_other, q.base_other},
        {"adapters", "adapters", p.adapters, q.adapters}, {"gradients", "gradients", p.gradients, q.gradients},
        {"optimizer state", "optimizer", per_element, state}, {"activations", "activations", p.activations, q.activations},
        {"logits", "logits", p.logits, q.logits}, {"workspace", "workspace", p.workspace, q.workspace}};
    memcpy(out, all, sizeof all);
}

void report_memory(FILE *to, const lm_model *m, optimizer *o)
{
    component c[COMPONENTS];
    component sum = {0};
    components_of(m, o, c);
    fprintf(to, "  %-22s %12s %12s\n", "memory, bytes", "predicted", "measured");
    for (int i = 0; i < COMPONENTS; i++) {
        fprintf(to, "  %-22s %12zu %12zu\n", c[i].name, c[i].predicted, c[i].measured);
        sum.predicted += c[i].predicted, sum.measured += c[i].measured;
    }
    fprintf(to, "  %-22s %12zu %12zu\n", "all", sum.predicted, sum.measured);
}

/* ---- text ------------------------------------------------------------------------------------------------------------------ */

static void put_byte(FILE *to, int byte)
{
    if (byte == '\n') fputs("\n  | ", to);
    else fputc((byte >= 32 && byte != 127) ? byte : byte == '\t' ? ' ' : '.', to);
}

static void put_tokens(FILE *to, const tokenizer *by, const int32_t *tokens, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        size_t bytes = 0;
        const char *text = by ? tokenizer_bytes(by, tokens[i], &bytes) : NULL;
        for (size_t k = 0; k < bytes; k++) put_byte(to, (unsigned char)text[k]);
        if (!by) put_byte(to, tokens[i] < 127 ? tokens[i] : 127); /* a byte alone is no character beyond ASCII */
    }
}

void report_text(FILE *to, const char *title, const tokenizer *by, const int32_t *prompt, int64_t prompt_count, const int32_t *tokens, int64_t count)
{
    fprintf(to, "%s\n  | ", title);
    put_tokens(to, by, prompt, prompt_count);
    fputs(" >>> ", to);
    put_tokens(to, by, tokens, count);
    fputc('\n', to);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------ */

static json_t *memory_of(const train_report *r)
{
    component c[COMPONENTS];
    json_t *all = json_object();
    components_of(r->model, r->optimizer, c);
    for (int i = 0; i < COMPONENTS; i++)
        json_object_set_new(all, c[i].key,
                            json_pack("{s:I, s:I}", "predicted", (json_int_t)c[i].predicted, "measured", (json_int_t)c[i].measured));
    return all;
}

static json_t *real_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *paging_of(optimizer *o)
{
    pager_counters n = pager_count(opt_pager(o));
    return json_pack("{s:I, s:I, s:I, s:I}", "bytes_in", (json_int_t)n.bytes_in, "bytes_out", (json_int_t)n.bytes_out, "total_bytes",
                     (json_int_t)n.total_bytes, "peak_bytes", (json_int_t)n.peak_bytes);
}

bool report_save(const char *path, const train_report *r, ck_error *e)
{
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "backend", fb_backend_name(r->cli->model.backend), "variant",
                          fb_backend_variant(r->cli->model.backend), "base", r->base, "base_sha256", r->base_sha256, "text", r->text->source,
                          "text_sha256", r->text->sha256, "text_bytes", (json_int_t)r->text->bytes, "trainable", (json_int_t)r->model->trainable_elements,
                          "steps", (json_int_t)r->result.steps);
    if (!j) return ck_fail(e, path, NULL, "no memory for a summary");
    json_object_set_new(j, "run", json_string(r->identity));
    json_object_set_new(j, "held_out_before", real_or_null(r->before));
    json_object_set_new(j, "held_out_after", real_or_null(r->after));
    json_object_set_new(j, "loss_first", real_or_null(r->result.first_loss));
    json_object_set_new(j, "loss_last_tenth", real_or_null(r->result.last_loss));
    json_object_set_new(j, "step_seconds_median", real_or_null(r->result.median_seconds));
    json_object_set_new(j, "tokens_per_second", real_or_null(r->result.tokens_per_second));
    json_object_set_new(j, "peak_flops", real_or_null(r->peak));
    json_object_set_new(j, "share_of_peak", real_or_null(r->result.share_of_peak));
    json_object_set_new(j, "memory", memory_of(r));
    json_object_set_new(j, "paging", paging_of(r->optimizer));
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(j);
    if (!text) return ck_fail(e, path, NULL, "no memory for a summary");
    af_file f;
    size_t n = strlen(text);
    bool ok = af_create(&f, path, e) && af_write(&f, text, n, 0, e) && af_write(&f, "\n", 1, n, e) && af_commit(&f, n + 1, e);
    free(text);
    return ok;
}
