# fourbit-compare: the verdict between two results. Gates and A/B runs: scripts/build.mk.
COMPARE_OBJS := $(addprefix $(BUILD)/bench/compare/,load.o stats.o decide.o output.o)
TOOLS += $(BUILD)/bin/fourbit-compare
TESTS += $(BUILD)/bench/test_compare

$(BUILD)/bin/fourbit-compare: $(BUILD)/bench/compare/main.o $(COMPARE_OBJS)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(call PKG,jansson) -lm -o $@

$(BUILD)/bench/compare/test_compare.o: EXTRA_FLAGS += -DCOMPARE_PROGRAM='"$(abspath $(BUILD))/bin/fourbit-compare"'
$(BUILD)/bench/test_compare: $(BUILD)/bench/compare/test_compare.o $(COMPARE_OBJS) | $(BUILD)/bin/fourbit-compare
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit $(call PKG,jansson) -lm -o $@

# ALLOW=dirty,machine  THRESHOLD=3  FORMAT=--markdown
.PHONY: compare
compare: ## regression verdict between two results (BASE=a.json NEW=b.json ALLOW=dirty,... ; exit 0 pass 1 regression 2 cannot 3 ambiguous)
	@[ -n '$(BASE)' ] && [ -n '$(NEW)' ] || { echo 'make compare BASE=a.json NEW=b.json (or two folders of rounds)' >&2; exit 2; }
	@$(MAKE) --no-print-directory --silent $(BUILD)/bin/fourbit-compare
	@$(BUILD)/bin/fourbit-compare $(if $(ALLOW),--allow '$(ALLOW)') $(if $(THRESHOLD),--threshold $(THRESHOLD)) $(FORMAT) '$(BASE)' '$(NEW)'
