/* test_state.c: the tests of what a training run keeps. */
#include "test_state.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

float test_value(uint64_t seed, int64_t i)
{
    uint64_t x = (seed << 32 ^ (uint64_t)i) + 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (float)((int64_t)((x ^ x >> 31) >> 40) - (1 << 23)) / (1 << 23);
}

lm_tensor test_tensor(const char *name, int64_t rows, int64_t cols, uint64_t seed, bool trained)
{
    lm_tensor t = {.rank = rows ? 2 : 1, .shape = {rows ? rows : cols, cols}, .count = (rows ? rows : 1) * cols, .decays = rows > 0};
    snprintf(t.name, sizeof t.name, "%s", name);
    t.data = malloc((size_t)(t.count + 1) * sizeof *t.data);
    t.grad = trained ? calloc((size_t)(t.count + 1), sizeof *t.grad) : NULL;
    if (!t.data || (trained && !t.grad)) exit(1);
    for (int64_t i = 0; i < t.count; i++) t.data[i] = test_value(seed, i);
    return t;
}

void test_tensor_free(lm_tensor *t)
{
    free(t->data);
    free(t->grad);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*fill)(CU_pSuite);
    } suites[] = {{"text", test_text}, {"tokenizer", test_tokenizer}, {"pager", test_pager}, {"pager on a GPU", test_pager_gpu}, {"optimizer", test_optimizer},
                  {"training checkpoint", test_train_checkpoint},
                  {"memory spike", test_spike},
                  {"Hugging Face folders", test_hf},
                  {"PEFT adapters", test_peft}};
    signal(SIGXFSZ, SIG_IGN);
    if (CU_initialize_registry() != CUE_SUCCESS) return 1;
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++) {
        CU_pSuite suite = CU_add_suite(suites[i].name, NULL, NULL);
        if (!suite) return 1;
        suites[i].fill(suite);
    }
    CU_basic_set_mode(CU_BRM_NORMAL);
    CU_ErrorCode ran = CU_basic_run_tests();
    unsigned failures = CU_get_number_of_failures(), asserted = CU_get_number_of_asserts();
    CU_cleanup_registry();
    return ran == CUE_SUCCESS && failures == 0 && asserted > 0 ? 0 : 1;
}
