# fourbit-goals: a run's rows against the goals. `make goals` exits 2 whatever it says; scripts call the program.
TOOLS += $(BUILD)/bin/fourbit-goals
TESTS += $(BUILD)/bin/test-goals

$(BUILD)/bin/fourbit-goals: $(addprefix $(BUILD)/bench/goals/,main.o table.o)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(call PKG,jansson) -lm -o $@

# `make test` runs programs without arguments: this one knows which fourbit-goals it belongs to.
$(BUILD)/bin/test-goals: bench/goals/test_goals.sh $(BUILD)/bin/fourbit-goals
	@printf '#!/bin/sh\nGOALS=%s exec %s "$$@"\n' '$(abspath $(BUILD)/bin/fourbit-goals)' '$(abspath $<)' > $@
	@chmod +x $@

RESULTS ?= build/results/bench/bench.json
.PHONY: goals
goals: $(BUILD)/bin/fourbit-goals ## what a run reached of what was meant (RESULTS='bench.json ...' TSV=1; exit 0 met 1 missed 2 cannot 3 not measured)
	@$(BUILD)/bin/fourbit-goals $(if $(TSV),--tsv) $(RESULTS)
