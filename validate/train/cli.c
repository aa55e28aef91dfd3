/* cli.c: fourbit-train's arguments. */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char help[] =
    "fourbit-train: fine-tune LoRA adapters on a 4-bit base (QLoRA)\n"
    "\n"
    "  Without arguments: makes a small byte-level base from packaged prose in about a minute, quantizes it to NF4, fine-tunes\n"
    "  adapters on the licence texts of this machine, and shows text from the model before and after.\n"
    "\n"
    "  what on what\n"
    "    --base DIR             a Hugging Face folder of a LLaMA-style model (bf16, fp16, fp32 or bnb-4bit); default: OUT/base,\n"
    "                           made if it is not there\n"
    "    --text PATH            a file, or a folder of files, of text (default /usr/share/common-licenses), in bytes or the\n"
    "                           tokens of the base's tokenizer.json\n"
    "    --out DIR              log, checkpoint, adapter (default build/results/train)\n"
    "    --backend NAME         reference, cpu (default) or cuda      --threads N\n"
    "\n"
    "  the base's linear layers\n"
    "    --format NAME          nf4 (default), fp4, int4, int4-affine, bf16, fp32; int3: the experiment's control\n"
    "    --block-size N         32 ... 4096 (default 64)             --double-quant    --normalize\n"
    "\n"
    "  adapters and optimizer\n"
    "    --rank N --alpha X --dropout P --rslora                     (8, 16, 0)\n"
    "    --lr X --schedule constant|cosine|linear --warmup N         (1e-3, constant, 10 steps)\n"
    "    --steps N --batch N --seq N --accumulate N --seed N         (200, 16, 128, 1, 1)\n"
    "    --clip X --weight-decay X --beta2 X                         (0.3, 0, 0.999)\n"
    "    --optimizer NAME       adamw32 (default) or adamw8: 8-bit blockwise state\n"
    "    --paged KIND[:BYTES]   resident (default), file, managed or pinned, of at most BYTES (k, m, g) in memory\n"
    "    --unfused | --fused    adapters by dense products (default) or by the library's LoRA calls\n"
    "    --recompute            activation checkpointing: each layer is run again on the way back\n"
    "\n"
    "  what comes out\n"
    "    --eval-every N --eval-windows N                             (50, 64)\n"
    "    --checkpoint-every N   OUT/state.safetensors (100)          --resume\n"
    "    --export DIR           adapters as peft keeps them (default OUT/adapter)\n"
    "    --merge DIR            base and adapters as one bf16 model  --merge-4bit: quantized again\n"
    "    --log FILE             .csv or .json, a line a step (default OUT/log.csv)\n"
    "    --sample N --prompt TEXT --temperature X --top N            (200, start of held-out text, 0.8, 40)\n"
    "\n"
    "  the base that is made\n"
    "    --base-text PATH --base-steps N --base-lr X                 (vim's documentation, 900, 4e-3)\n"
    "    --hidden N --layers N --heads N --kv-heads N --intermediate N --untied\n"
    "\n"
    "Ctrl-C leaves a checkpoint that --resume goes on from with the same bits. Exit status: 0; 1 if something failed; 2 for\n"
    "wrong arguments; 130 after Ctrl-C.\n";

enum option_id {
    O_BASE = 256, O_TEXT, O_OUT, O_BACKEND, O_THREADS, O_FORMAT, O_BLOCK, O_DQ, O_NORMALIZE, O_RANK, O_ALPHA, O_DROPOUT, O_RSLORA, O_LR, O_SCHEDULE,
    O_WARMUP, O_STEPS, O_BATCH, O_SEQ, O_ACCUMULATE, O_SEED, O_CLIP, O_DECAY, O_BETA2, O_OPTIMIZER, O_PAGED, O_RECOMPUTE, O_EVAL, O_WINDOWS,
    O_CHECKPOINT, O_RESUME, O_EXPORT, O_MERGE, O_MERGE4, O_LOG, O_SAMPLE, O_PROMPT, O_TEMPERATURE, O_TOP, O_BASE_TEXT, O_BASE_STEPS, O_BASE_LR,
    O_HIDDEN, O_LAYERS, O_HEADS, O_KV_HEADS, O_INTERMEDIATE, O_UNTIED, O_UNFUSED, O_FUSED, O_HELP
};

static const struct option options[] = {
    {"base", 1, 0, O_BASE}, {"text", 1, 0, O_TEXT}, {"out", 1, 0, O_OUT}, {"backend", 1, 0, O_BACKEND}, {"threads", 1, 0, O_THREADS},
    {"format", 1, 0, O_FORMAT}, {"block-size", 1, 0, O_BLOCK}, {"double-quant", 0, 0, O_DQ}, {"normalize", 0, 0, O_NORMALIZE},
    {"rank", 1, 0, O_RANK}, {"alpha", 1, 0, O_ALPHA}, {"dropout", 1, 0, O_DROPOUT}, {"rslora", 0, 0, O_RSLORA}, {"lr", 1, 0, O_LR},
    {"schedule", 1, 0, O_SCHEDULE}, {"warmup", 1, 0, O_WARMUP}, {"steps", 1, 0, O_STEPS}, {"batch", 1, 0, O_BATCH}, {"seq", 1, 0, O_SEQ},
    {"accumulate", 1, 0, O_ACCUMULATE}, {"seed", 1, 0, O_SEED}, {"clip", 1, 0, O_CLIP}, {"weight-decay", 1, 0, O_DECAY}, {"beta2", 1, 0, O_BETA2},
    {"optimizer", 1, 0, O_OPTIMIZER}, {"paged", 1, 0, O_PAGED}, {"recompute", 0, 0, O_RECOMPUTE}, {"eval-every", 1, 0, O_EVAL},
    {"eval-windows", 1, 0, O_WINDOWS}, {"checkpoint-every", 1, 0, O_CHECKPOINT}, {"resume", 0, 0, O_RESUME}, {"export", 1, 0, O_EXPORT},
    {"merge", 1, 0, O_MERGE}, {"merge-4bit", 0, 0, O_MERGE4}, {"log", 1, 0, O_LOG}, {"sample", 1, 0, O_SAMPLE}, {"prompt", 1, 0, O_PROMPT},
    {"temperature", 1, 0, O_TEMPERATURE}, {"top", 1, 0, O_TOP}, {"base-text", 1, 0, O_BASE_TEXT}, {"base-steps", 1, 0, O_BASE_STEPS},
    {"base-lr", 1, 0, O_BASE_LR}, {"hidden", 1, 0, O_HIDDEN}, {"layers", 1, 0, O_LAYERS}, {"heads", 1, 0, O_HEADS}, {"kv-heads", 1, 0, O_KV_HEADS},
    {"intermediate", 1, 0, O_INTERMEDIATE}, {"untied", 0, 0, O_UNTIED}, {"unfused", 0, 0, O_UNFUSED}, {"fused", 0, 0, O_FUSED}, {"help", 0, 0, O_HELP}, {0, 0, 0, 0}};

static const char *name_of(int id)
{
    for (const struct option *o = options; o->name; o++)
        if (o->val == id) return o->name;
    return "?";
}

static bool wrong(int id, const char *text, const char *expected)
{
    fprintf(stderr, "fourbit-train: --%s %s: expected %s (--help lists the options)\n", name_of(id), text, expected);
    return false;
}

static bool whole(int id, const char *text, int64_t least, int64_t *value)
{
    char *end, expected[64];
    errno = 0;
    long long v = strtoll(text, &end, 10);
    snprintf(expected, sizeof expected, "a whole number, %lld or more", (long long)least);
    if (errno || end == text || *end || v < least || v > (long long)1 << 40) return wrong(id, text, expected);
    *value = v;
    return true;
}

static bool real(int id, const char *text, double least, double below, double *value)
{
    char *end, expected[64];
    double v = strtod(text, &end);
    snprintf(expected, sizeof expected, "a number, %g or more and below %g", least, below);
    if (end == text || *end || !(v >= least) || !(v < below)) return wrong(id, text, expected);
    *value = v;
    return true;
}

static bool one_of(int id, const char *text, const char *const *names, int count, const char *expected, int *which)
{
    for (int i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0) return *which = i, true;
    return wrong(id, text, expected);
}

static bool format_of(const char *text, lm_options *m)
{
    static const char *const names[] = {"nf4", "fp4", "int4", "int4-affine", "bf16", "fp32", "int3"};
    int which;
    if (!one_of(O_FORMAT, text, names, 7, "nf4, fp4, int4, int4-affine, bf16, fp32 or int3", &which)) return false;
    m->base = which < 4 ? LM_BASE_4BIT : which == 4 ? LM_BASE_BF16 : which == 5 ? LM_BASE_F32 : LM_BASE_INT3;
    m->format = which < 4 ? (fb_format)which : FB_NF4;
    return true;
}

static bool paging_of(const char *text, train_cli *c)
{
    char kind[16];
    const char *colon = strchr(text, ':'), *expected = "resident, file, managed or pinned, the last three with :BYTES if not all is to fit";
    size_t length = colon ? (size_t)(colon - text) : strlen(text);
    int k = 0;
    if (length >= sizeof kind) return wrong(O_PAGED, text, expected);
    memcpy(kind, text, length), kind[length] = '\0';
    while (k < PAGER_KIND_COUNT && strcmp(kind, pager_kind_name((pager_kind)k))) k++;
    if (k == PAGER_KIND_COUNT) return wrong(O_PAGED, text, expected);
    c->paging = (pager_kind)k, c->paging_budget = 0;
    if (!colon) return true;
    char *end;
    double bytes = strtod(colon + 1, &end);
    const char *unit = "kmg", *u = *end ? strchr(unit, *end) : NULL;
    for (int i = 0; u && i <= u - unit; i++) bytes *= 1024;
    if (end == colon + 1 || (*end && (!u || end[1])) || !(bytes >= 1) || !(bytes < 1e15)) return wrong(O_PAGED, text, expected);
    c->paging_budget = (size_t)bytes;
    return true;
}

/* Thousands of threads on a few processors wait for each other longer than anybody would. */
static bool threads_of(const char *text, int *threads)
{
    const long processors = sysconf(_SC_NPROCESSORS_ONLN), most = 4 * (processors < 2 ? 2 : processors);
    int64_t v;
    char expected[64];
    snprintf(expected, sizeof expected, "1 to %ld, four for each processor", most);
    if (!whole(O_THREADS, text, 1, &v)) return false;
    if (v > most) return wrong(O_THREADS, text, expected);
    *threads = (int)v;
    return true;
}

/* int64 options and their least values; real ones. */
static bool number(train_cli *c, int id, const char *text, bool *known)
{
    const struct { int id; int64_t *to, least; } wholes[] = {
        {O_RANK, &c->model.rank, 1}, {O_WARMUP, &c->loop.warmup, 0}, {O_STEPS, &c->loop.steps, 1}, {O_BATCH, &c->model.batch, 1},
        {O_SEQ, &c->model.seq, 1}, {O_ACCUMULATE, &c->loop.accumulate, 1}, {O_EVAL, &c->eval_every, 0}, {O_WINDOWS, &c->eval_windows, 1},
        {O_CHECKPOINT, &c->checkpoint_every, 0}, {O_SAMPLE, &c->sample, 0}, {O_BASE_STEPS, &c->base_steps, 1}, {O_HIDDEN, &c->made.hidden_size, 1},
        {O_LAYERS, &c->made.num_hidden_layers, 1}, {O_HEADS, &c->made.num_attention_heads, 1}, {O_KV_HEADS, &c->made.num_key_value_heads, 1},
        {O_INTERMEDIATE, &c->made.intermediate_size, 1}};
    const struct { int id; double *to, least, below; } reals[] = {
        {O_ALPHA, &c->model.alpha, 0, 1e6}, {O_DROPOUT, &c->model.dropout, 0, 1}, {O_LR, &c->loop.lr, 0, 10}, {O_CLIP, &c->clip, 0, 1e9},
        {O_DECAY, &c->weight_decay, 0, 10}, {O_BETA2, &c->beta2, 0, 1}, {O_TEMPERATURE, &c->temperature, 0, 100}, {O_BASE_LR, &c->base_lr, 0, 10}};
    *known = true;
    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++)
        if (wholes[i].id == id) return whole(id, text, wholes[i].least, wholes[i].to);
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (reals[i].id == id) return real(id, text, reals[i].least, reals[i].below, reals[i].to);
    int64_t v = 0;
    switch (id) {
    case O_THREADS: return threads_of(text, &c->model.threads);
    case O_BLOCK: return whole(id, text, 1, &v) && (fb_block_size_valid(v) || wrong(id, text, "a power of two, 32 ... 4096")) && (c->model.block_size = (int32_t)v, true);
    case O_SEED: return whole(id, text, 0, &v) && (c->model.seed = c->loop.seed = (uint64_t)v, true);
    case O_TOP: return whole(id, text, 0, &v) && (c->top = (int)(v > 1 << 24 ? 1 << 24 : v), true);
    default: return *known = false, true;
    }
}

static bool word(train_cli *c, int id, const char *text)
{
    static const char *const backends[] = {"reference", "cpu", "cuda"}, *const optimizers[] = {"adamw32", "adamw8"};
    int which = 0;
    switch (id) {
    case O_BASE: return c->base = text, true;
    case O_TEXT: return c->text = text, true;
    case O_OUT: return c->out = text, true;
    case O_EXPORT: return c->export_to = text, true;
    case O_MERGE: return c->merge_to = text, true;
    case O_LOG: return c->log = text, true;
    case O_PROMPT: return *text ? (c->prompt = text, true) : wrong(id, "''", "some text");
    case O_BASE_TEXT: return c->base_text = text, true;
    case O_DQ: return c->model.double_quant = true;
    case O_NORMALIZE: return c->model.normalize = true;
    case O_RSLORA: return c->model.rslora = true;
    case O_RECOMPUTE: return c->model.recompute = true;
    case O_UNFUSED: return c->model.unfused = true;
    case O_FUSED: return c->model.unfused = false, true;
    case O_RESUME: return c->resume = true;
    case O_MERGE4: return c->merge_4bit = true;
    case O_UNTIED: return c->made.tie_word_embeddings = false, true;
    case O_FORMAT: return format_of(text, &c->model);
    case O_PAGED: return paging_of(text, c);
    case O_BACKEND: return one_of(id, text, backends, 3, "reference, cpu or cuda", &which) && (c->model.backend = (fb_backend)which, true);
    case O_OPTIMIZER: return one_of(id, text, optimizers, 2, "adamw32 or adamw8", &which) && (c->state8 = which == 1, true);
    case O_SCHEDULE:
        return one_of(id, text, loop_schedule_names, LOOP_SCHEDULE_COUNT, "constant, cosine or linear", &which) &&
               (c->loop.schedule = (loop_schedule)which, true);
    default: return false;
    }
}

static train_cli defaults(void)
{
    return (train_cli){
        .out = "build/results/train",
        .model = {.backend = FB_BACKEND_CPU, .trains = LM_TRAINS_ADAPTERS, .base = LM_BASE_4BIT, .format = FB_NF4, .block_size = 64, .rank = 8,
                  .alpha = 16, .unfused = true, .batch = 16, .seq = 128, .seed = 1},
        .loop = {.steps = 200, .accumulate = 1, .lr = 1e-3, .warmup = 10, .seed = 1},
        .clip = 0.3, .beta2 = 0.999,
        .made = {.vocab_size = TEXT_VOCABULARY, .hidden_size = 64, .num_hidden_layers = 3, .num_attention_heads = 2, .max_position_embeddings = 1024,
                 .rope_theta = 10000, .rms_norm_eps = 1e-5, .tie_word_embeddings = true},
        .base_steps = 900, .base_lr = 4e-3,
        .checkpoint_every = 100, .eval_every = 50, .eval_windows = 64, .sample = 200, .temperature = 0.8, .top = 40};
}

int cli_parse(train_cli *c, int argc, char **argv)
{
    int id;
    bool known;
    *c = defaults();
    optind = 1;
    while ((id = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (id == O_HELP || id == 'h') return fputs(help, stdout) < 0 ? 2 : 1;
        if (id == '?') return fprintf(stderr, "fourbit-train: --help lists the options\n"), 2;
        if (!number(c, id, optarg, &known)) return 2;
        if (!known && !word(c, id, optarg)) return 2;
    }
    if (optind < argc) return fprintf(stderr, "fourbit-train: %s: arguments begin with -- (--help lists them)\n", argv[optind]), 2;
    if (c->merge_4bit && !c->merge_to) return fprintf(stderr, "fourbit-train: --merge-4bit needs --merge DIR\n"), 2;
    if (!c->made.num_key_value_heads) c->made.num_key_value_heads = c->made.num_attention_heads;
    c->made.head_dim = c->made.hidden_size / c->made.num_attention_heads;
    if (!c->made.intermediate_size) c->made.intermediate_size = (c->made.hidden_size * 8 / 3 + 31) / 32 * 32;
    if (c->model.seq > c->made.max_position_embeddings) c->made.max_position_embeddings = c->model.seq;
    return 0;
}
