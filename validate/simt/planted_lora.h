/* planted_lora.h — the bugs that test_lora_planted.cpp can put into LoRA's tensor-core products, one at a time. */
#ifndef PLANTED_LORA_H
#define PLANTED_LORA_H

enum PlantedLora { kNone = 0, kWeakWait, kNoBarrier, kNotTransposed, kNoZeros, kOtherMask, kPlantedBugs };

static const char *const planted_names[kPlantedBugs] = {
    "no bug",
    "a copy is not waited for",
    "no barrier between copying and reading",
    "a matrix across the sum is not transposed",
    "the sum's tail is not filled with zeros",
    "the mask of the next four elements",
};

extern int planted_bug;

#endif
