# Pictures from result files. plots/plot.sh draws; fourbit-rows turns a benchmark's JSON into a table for it.
OUT ?= build/results/bench

TOOLS += $(BUILD)/bin/fourbit-rows
TESTS += $(BUILD)/bin/test-plots

$(BUILD)/bin/fourbit-rows: $(BUILD)/plots/rows.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(call PKG,jansson) -o $@

# `make test` runs programs without arguments: this one knows which fourbit-rows it belongs to.
$(BUILD)/bin/test-plots: plots/test_plots.sh $(BUILD)/bin/fourbit-rows
	@printf '#!/bin/sh\nFOURBIT_ROWS=%s exec %s "$$@"\n' '$(abspath $(BUILD)/bin/fourbit-rows)' '$(abspath $<)' > $@
	@chmod +x $@

.PHONY: plots
plots: $(BUILD)/bin/fourbit-rows ## redraw the pictures of the last results (OUT=folder with bench.json or error.csv)
	@FOURBIT_ROWS=$(abspath $(BUILD)/bin/fourbit-rows) plots/plot.sh all $(OUT) $(OUT)/plots
