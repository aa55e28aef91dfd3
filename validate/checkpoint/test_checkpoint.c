/* test_checkpoint.c: the checkpoint tests: what is read, what is refused and in which
 * words, what is written, and what is left behind when writing fails. */
#include "test_files.h"

int main(void)
{
    static const struct {
        const char *name;
        void (*fill)(CU_pSuite);
    } suites[] = {{"safetensors, read", test_safetensors_read},
                  {"safetensors, written", test_safetensors_write},
                  {"bnb-4bit", test_bnb4bit},
                  {"the fourbit program", test_tool}};
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
