/* fuzz_quant_state.c: any bytes as the JSON of a quantized weight. What is accepted must
 * come back the same through the writer. */
#include "fuzz.h"

#include "validate/checkpoint/bnb4bit.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bnb_state s, again;
    ck_error e = {0};
    if (!bnb_parse_state(&s, data, size, "fuzz", "k", &e)) {
        if (strncmp(e.message, "fuzz: key 'k': ", 15) != 0) abort();
        return 0;
    }
    char *text = bnb_format_state(&s);
    if (!text) return 0;
    if (strlen(text) > ST_LATE_MAX || !bnb_parse_state(&again, text, strlen(text), "fuzz", "k", &e)) abort();
    bool same = s.format == again.format && s.block_size == again.block_size && s.dtype == again.dtype &&
                s.rank == again.rank && s.elements == again.elements && s.nested == again.nested &&
                memcmp(s.shape, again.shape, sizeof s.shape) == 0 &&
                fb_float_to_bits(s.nested_offset) == fb_float_to_bits(again.nested_offset);
    if (!same) abort();
    free(text);
    return 0;
}
