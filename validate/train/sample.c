/* sample.c: text from a model, one token at a time; each needs a pass over all tokens before it (there is no cache of keys). */
#include "loop.h"
#include "random.h"

#include <stdlib.h>

typedef struct choice {
    float logit;
    int32_t token;
} choice;

static int by_logit(const void *a, const void *b)
{
    const choice *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

static int32_t draw(choice *choices, int64_t vocab, double temperature, int top, double at)
{
    qsort(choices, (size_t)vocab, sizeof *choices, by_logit);
    int64_t n = top < 1 ? 1 : top < vocab ? top : vocab;
    double sum = 0;
    if (temperature <= 0) return choices[0].token;
    for (int64_t i = 0; i < n; i++) sum += exp(((double)choices[i].logit - (double)choices[0].logit) / temperature);
    for (int64_t i = 0; i < n; i++) {
        at -= exp(((double)choices[i].logit - (double)choices[0].logit) / temperature) / sum;
        if (at < 0) return choices[i].token;
    }
    return choices[n - 1].token;
}

bool loop_sample(lm_model *m, const int32_t *prompt, int64_t prompt_count, int64_t count, double temperature, int top, uint64_t seed, int32_t *out,
                 ck_error *e)
{
    int64_t vocab = m->config.vocab_size, seq = m->options.seq, total = prompt_count;
    int32_t *tokens = malloc((size_t)(prompt_count + count) * sizeof *tokens);
    float *logits = malloc((size_t)vocab * sizeof *logits);
    choice *choices = malloc((size_t)vocab * sizeof *choices);
    bool ok = (tokens && logits && choices) || ck_fail(e, "sample", NULL, "no memory");
    if (ok && prompt_count < 1) ok = ck_fail(e, "sample", NULL, "the prompt is empty");
    if (ok) memcpy(tokens, prompt, (size_t)prompt_count * sizeof *tokens);
    for (int64_t i = 0; ok && i < count; i++) {
        int64_t from = total > seq ? total - seq : 0; /* what does not fit is forgotten */
        ok = lm_next_logits(m, tokens + from, total - from, logits, e);
        for (int64_t t = 0; ok && t < vocab; t++) choices[t] = (choice){logits[t], (int32_t)t};
        if (ok) out[i] = tokens[total++] = draw(choices, vocab, temperature, top, lm_uniform(seed, 0x5a3b1e, (uint64_t)i));
    }
    free(tokens), free(logits), free(choices);
    return ok;
}
