# The QLoRA training loop (README.md): fourbit-train, its experiment, its tests.
#
# TRAIN_OBJS: everything but the programs' main files. A new .c here joins it by being here.
TRAIN_MAINS  := validate/train/train_main.c validate/train/experiment_main.c
TRAIN_OBJS   := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(TRAIN_MAINS) validate/train/test_%.c,$(wildcard validate/train/*.c)))
