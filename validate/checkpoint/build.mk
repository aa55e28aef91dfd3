# Checkpoints: safetensors and bnb-4bit (CHECKPOINT_OBJS, for other tools to link), the fourbit program, their tests.
CHECKPOINT_OBJS := $(addprefix $(BUILD)/validate/checkpoint/,error.o atomic_file.o safetensors_read.o \
                     safetensors_write.o bnb4bit.o bnb_state.o)
FOURBIT_OBJS    := $(addprefix $(BUILD)/validate/checkpoint/,fourbit.o tool.o cmd_convert.o cmd_error.o cmd_info.o \
                     error_table.o) $(BUILD)/validate/inputs.o $(BUILD)/validate/theory.o

$(BUILD)/validate/checkpoint/cmd_error.o $(BUILD)/validate/checkpoint/error_table.o: EXTRA_FLAGS = $(OPENMP) -O3

$(BUILD)/bin/fourbit: $(FOURBIT_OBJS) $(CHECKPOINT_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -ljansson $(LIB_LIBS) -o $@
TOOLS += $(BUILD)/bin/fourbit

$(BUILD)/validate/checkpoint/test_%.o: CPPFLAGS += -DFOURBIT_PROGRAM='"$(BUILD)/bin/fourbit"'
$(BUILD)/validate/test_checkpoint: $(patsubst %.c,$(BUILD)/%.o,$(wildcard validate/checkpoint/test_*.c)) \
                                   $(CHECKPOINT_OBJS) $(LIB) | $(BUILD)/bin/fourbit
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o %.a,$^) -lcunit -ljansson $(LIB_LIBS) -o $@
TESTS += $(BUILD)/validate/test_checkpoint

# OUT is also where `make bench` writes; without one, results of the two stay apart.
VALIDATE_OUT = $(if $(OUT),$(OUT),build/results/validate)
.PHONY: validate
validate: bootstrap ## quantization error of WEIGHTS=f.safetensors (else of synthetic data): table, CSV, plots in OUT
	@$(MAKE) --no-print-directory $(PARALLEL) $(BUILD)/bin/fourbit
	@mkdir -p "$(VALIDATE_OUT)"
	$(BUILD)/bin/fourbit error --csv "$(VALIDATE_OUT)/error.csv" --plots $(if $(WEIGHTS),"$(WEIGHTS)")
