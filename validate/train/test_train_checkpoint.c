/* test_train_checkpoint.c: a run that is saved and goes on in another process has the bits of one that was never
 * interrupted; what does not belong to the run is refused by name, and nothing is changed then; a file that cannot be
 * written leaves the one before it. */
#include "test_state.h"
#include "train_checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { TENSORS = 3 };

typedef struct run {
    lm_tensor tensors[TENSORS], *list[TENSORS];
    optimizer *o;
    int64_t step;
    uint64_t rng;
    double lr;
    char config[80], note[16];
    tc_field fields[5];
} run;

static bool start(run *r, pager_kind kind, bool state8)
{
    static const int64_t shapes[TENSORS][2] = {{8, 300}, {0, 77}, {50, 20}};
    ck_error e = {0};
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_CPU);
    ctx.threads = 1;
    opt_config c = opt_default(&ctx, NULL);
    c.state8 = state8;
    c.pager = (pager_config){.kind = kind, .budget = 8192, .page_bytes = 4096, .folder = test_folder()};
    *r = (run){.rng = 0xfeedfacecafebeefu, .lr = 1.0 / 3, .config = "sha256 of a configuration", .note = "\xc3\xa4"};
    for (int t = 0; t < TENSORS; t++) {
        char name[32];
        snprintf(name, sizeof name, "layer.%d.lora_A.weight", t);
        r->tensors[t] = test_tensor(name, shapes[t][0], shapes[t][1], (uint64_t)t, true);
        r->list[t] = &r->tensors[t];
    }
    const tc_field fields[] = {{"step", TC_I64, &r->step, 0, false}, {"rng", TC_U64, &r->rng, 0, false}, {"lr", TC_F64, &r->lr, 0, true},
                               {"config", TC_TEXT, r->config, sizeof r->config, true}, {"note", TC_TEXT, r->note, sizeof r->note, false}};
    memcpy(r->fields, fields, sizeof fields);
    r->o = opt_new(&c, r->list, TENSORS, &e);
    return REQUIRE(r->o != NULL, "%s", e.message);
}

static void end(run *r)
{
    opt_free(r->o);
    for (int t = 0; t < TENSORS; t++) test_tensor_free(&r->tensors[t]);
}

static tc_state state_of(run *r) { return (tc_state){r->fields, 5, r->list, TENSORS, r->o, NULL}; }

static void steps(run *r, int count)
{
    ck_error e = {0};
    for (; count > 0; count--) {
        double norm;
        for (int t = 0; t < TENSORS; t++)
            for (int64_t i = 0; i < r->tensors[t].count; i++) r->tensors[t].grad[i] = test_value(r->rng + (uint64_t)t, i);
        REQUIRE(opt_gradient_norm(r->o, &norm, &e) && opt_step(r->o, r->lr, 1, norm, &e), "%s", e.message);
        r->rng = r->rng * 6364136223846793005u + 1;
        r->step++;
    }
}

static bool same(run *a, run *b)
{
    bool good = a->step == b->step && a->rng == b->rng && opt_steps(a->o) == opt_steps(b->o);
    for (int t = 0; t < TENSORS; t++)
        good &= memcmp(a->tensors[t].data, b->tensors[t].data, (size_t)a->tensors[t].count * sizeof(float)) == 0;
    return good;
}

static void resumes_bit_for_bit(void)
{
    for (int state8 = 0; state8 < 2; state8++)
        for (int kind = PAGER_RESIDENT; kind <= PAGER_FILE; kind++) {
            ck_error e = {0};
            const char *path = test_path("state.safetensors");
            test_folder_empty();
            run a, b;
            if (!start(&a, (pager_kind)kind, state8) || !start(&b, PAGER_FILE - (pager_kind)kind, state8)) return;
            steps(&a, 3);
            tc_state s = state_of(&a), t = state_of(&b);
            REQUIRE(tc_save(path, &s, &e), "%s", e.message);
            steps(&a, 4);
            steps(&b, 1); /* what was there must not matter */
            strcpy(b.note, "other");
            if (REQUIRE(tc_load(path, &t, &e), "%s", e.message)) {
                CU_ASSERT(b.step == 3 && strcmp(b.note, "\xc3\xa4") == 0);
                steps(&b, 4);
                REQUIRE(same(&a, &b), "state8 %d, saved from %s: other bits after resuming", state8, pager_kind_name((pager_kind)kind));
            }
            end(&a);
            end(&b);
        }
}

/* The file, changed by `change`, is refused with these words, and the run is as it was. */
static void refused(const char *name, const char *says, void (*change)(run *, tc_state *))
{
    ck_error e = {0};
    const char *path = test_path("state.safetensors");
    run a, before;
    if (!start(&a, PAGER_RESIDENT, false) || !start(&before, PAGER_RESIDENT, false)) return;
    tc_state s = state_of(&a);
    change(&a, &s);
    float first = a.tensors[0].data[0] = 42;
    CU_ASSERT(!tc_load(path, &s, &e));
    REQUIRE_MESSAGE(&e, path, says, name);
    CU_ASSERT(a.tensors[0].data[0] == first && a.step == 0 && opt_steps(a.o) == 0);
    end(&a);
    end(&before);
}

static void other_lr(run *r, tc_state *s) { (void)s, r->lr = 0.25; }
static void other_config(run *r, tc_state *s) { (void)s, strcpy(r->config, "another"); }
static void new_field(run *r, tc_state *s) { (void)s, r->fields[4].name = "newer"; }
static void one_field_less(run *r, tc_state *s) { (void)r, s->field_count = 4; }
static void other_kind(run *r, tc_state *s) { (void)s, r->fields[0].kind = TC_F64; }
static void other_shape(run *r, tc_state *s) { (void)s, r->tensors[2].shape[0] = 20, r->tensors[2].shape[1] = 50; }
static void other_name(run *r, tc_state *s) { (void)s, strcpy(r->tensors[1].name, "renamed"); }
static void one_tensor_less(run *r, tc_state *s) { (void)r, s->tensor_count = 2; }
static void no_optimizer(run *r, tc_state *s) { (void)r, s->optimizer = NULL; }

static void refuses_by_name(void)
{
    ck_error e = {0};
    test_folder_empty();
    run a;
    if (!start(&a, PAGER_RESIDENT, false)) return;
    steps(&a, 2);
    tc_state s = state_of(&a);
    CU_ASSERT_FATAL(tc_save(test_path("state.safetensors"), &s, &e));
    refused("lr", "key 'lr': is 0.33333333333333331 in the checkpoint and 0.25 in this run", other_lr);
    refused("config", "key 'config': is \"sha256 of a configuration\" in the checkpoint and \"another\" in this run", other_config);
    refused("a new field", "key 'newer': is missing", new_field);
    refused("a field less", "key 'note': is not a field of this run", one_field_less);
    refused("another kind", "key 'step': is not of the right kind", other_kind);
    refused("another shape", "key 'layer.2.lora_A.weight': is F32 of rank 2 with 1000 elements", other_shape);
    refused("another name", "key 'renamed': is missing", other_name);
    refused("a tensor less", "is not a tensor of this run", one_tensor_less);
    refused("no optimizer", "key 'optimizer_steps': is not a field of this run", no_optimizer);
    /* 8-bit state does not take fp32's */
    run b;
    if (start(&b, PAGER_RESIDENT, true)) {
        tc_state t = state_of(&b);
        CU_ASSERT(!tc_load(test_path("state.safetensors"), &t, &e));
        REQUIRE_MESSAGE(&e, test_path("state.safetensors"), "m_absmax': is missing: the optimizer's state is 8-bit here", "another state");
        end(&b);
    }
    end(&a);
}

static void corrupt_files(void)
{
    ck_error e = {0};
    const char *path = test_path("state.safetensors");
    test_folder_empty();
    run a;
    if (!start(&a, PAGER_RESIDENT, true)) return;
    steps(&a, 1);
    tc_state s = state_of(&a);
    CU_ASSERT_FATAL(tc_save(path, &s, &e));
    bytes whole = test_read(path);
    for (size_t cut = 0; cut < whole.size; cut += 97 + cut / 5) {
        test_write(path, whole.p, cut);
        REQUIRE(!tc_load(path, &s, &e), "cut to %zu bytes, and loaded", cut);
    }
    test_replace(&whole, "\\\"version\\\":1", "\\\"version\\\":7");
    test_write(path, whole.p, whole.size);
    CU_ASSERT(!tc_load(path, &s, &e));
    REQUIRE_MESSAGE(&e, path, "key 'version': is not 1", "another version");
    test_replace(&whole, "\\\"version\\\":7", "\\\"version\\\":{");
    test_write(path, whole.p, whole.size);
    CU_ASSERT(!tc_load(path, &s, &e));
    REQUIRE_MESSAGE(&e, path, "is not a JSON object", "no JSON");
    test_replace(&whole, "fourbit_training", "fourbit_trainynG");
    test_write(path, whole.p, whole.size);
    CU_ASSERT(!tc_load(path, &s, &e));
    REQUIRE_MESSAGE(&e, path, "not a checkpoint of a training run", "another file");
    free(whole.p);
    end(&a);
}

static int without_room(void *user)
{
    run *r = user;
    ck_error e = {0};
    struct rlimit limit = {.rlim_cur = 8192, .rlim_max = 8192};
    tc_state s = state_of(r);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 9;
    if (tc_save(test_path("state.safetensors"), &s, &e)) return 2;
    return strstr(e.message, "File too large") ? 0 : 3;
}

static void full_disk_keeps_the_last(void)
{
    ck_error e = {0};
    const char *path = test_path("state.safetensors");
    test_folder_empty();
    run a, b;
    if (!start(&a, PAGER_RESIDENT, false) || !start(&b, PAGER_RESIDENT, false)) return;
    steps(&a, 2);
    steps(&b, 2);
    tc_state s = state_of(&a), t = state_of(&b);
    CU_ASSERT_FATAL(tc_save(path, &s, &e));
    steps(&a, 1);
    REQUIRE(test_child(without_room, &a) == 0, "the child: %d", test_child(without_room, &a));
    REQUIRE(test_count_files(test_folder()) == 1, "a file was left behind");
    CU_ASSERT(tc_load(path, &t, &e) && b.step == 2);
    steps(&b, 1);
    CU_ASSERT(same(&a, &b));
    end(&a);
    end(&b);
}

void test_train_checkpoint(CU_pSuite suite)
{
    CU_add_test(suite, "resumes_bit_for_bit", resumes_bit_for_bit);
    CU_add_test(suite, "refuses_by_name", refuses_by_name);
    CU_add_test(suite, "corrupt_files", corrupt_files);
    CU_add_test(suite, "full_disk_keeps_the_last", full_disk_keeps_the_last);
}
