# Fuzz targets: fuzz_X.c reads corpus/X. `make fuzz` runs them under libFuzzer; `make test` replays their corpora.
FUZZ_TARGETS := container quant_state
FUZZ_SECONDS ?= 60
FUZZ_BUILD   := build/fuzz
FUZZ_LIBS     = -ljansson $(LIB_LIBS)

$(BUILD)/validate/fuzz/replay_%.o: validate/fuzz/replay.c
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(CC) $(CPPFLAGS) $(COMMON) $(CFLAGS) -DFUZZ_CORPUS='"validate/fuzz/corpus/$*"' -MMD -MP -c $< -o $@
$(BUILD)/validate/fuzz/replay_%: $(BUILD)/validate/fuzz/replay_%.o $(BUILD)/validate/fuzz/fuzz_%.o $(CHECKPOINT_OBJS) $(LIB)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(FUZZ_LIBS) -o $@
TESTS += $(addprefix $(BUILD)/validate/fuzz/replay_,$(FUZZ_TARGETS))
.SECONDARY: $(addprefix $(BUILD)/validate/fuzz/fuzz_,$(addsuffix .o,$(FUZZ_TARGETS)))

# With clang: the same sources and the fuzzer's own main.
$(BUILD)/bin/fuzz_%: $(BUILD)/validate/fuzz/fuzz_%.o $(CHECKPOINT_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer $^ $(FUZZ_LIBS) -o $@
$(BUILD)/bin/fuzz_container: $(BUILD)/validate/fuzz/mutate_container.o

# New inputs go to build/fuzz/corpus; the committed corpus is only read. A finding is left in build/fuzz/found/.
.PHONY: fuzz
fuzz: bootstrap ## libFuzzer on file headers and quant_state JSON, FUZZ_SECONDS=60 each (clang)
	@command -v clang >/dev/null || { echo "make fuzz: clang is needed (apt-get install clang)" >&2; exit 1; }
	@$(MAKE) --no-print-directory BUILD=$(FUZZ_BUILD) CC=clang CXX=clang++ SANITIZE=1 CUDA=0 \
	    CPPFLAGS="$(CPPFLAGS) -fsanitize=fuzzer-no-link" $(addprefix $(FUZZ_BUILD)/bin/fuzz_,$(FUZZ_TARGETS))
	@set -eo pipefail; for target in $(FUZZ_TARGETS); do \
	    mkdir -p $(FUZZ_BUILD)/corpus/$$target $(FUZZ_BUILD)/found; \
	    echo "fuzz_$$target, $(FUZZ_SECONDS) s"; \
	    $(FUZZ_BUILD)/bin/fuzz_$$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -timeout=10 \
	        -dict=validate/fuzz/$$target.dict -artifact_prefix=$(FUZZ_BUILD)/found/$$target- \
	        $(FUZZ_BUILD)/corpus/$$target validate/fuzz/corpus/$$target \
	        2>&1 | awk '!/(REDUCE|NEW) /'; \
	done
