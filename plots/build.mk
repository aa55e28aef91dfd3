# Pictures from result files. plots/plot.sh draws; fourbit-rows turns a benchmark's JSON into a table for it.
TOOLS += $(BUILD)/bin/fourbit-rows
TESTS += $(BUILD)/bin/test-plots

$(BUILD)/bin/fourbit-rows: $(BUILD)/plots/rows.o
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) $^ $(call PKG,jansson) -o $@

# `make test` runs programs without arguments: this one knows which fourbit-rows it belongs to.
$(BUILD)/bin/test-plots: plots/test_plots.sh $(BUILD)/bin/fourbit-rows
	@printf '#!/bin/sh\nFOURBIT_ROWS=%s exec %s "$$@"\n' '$(abspath $(BUILD)/bin/fourbit-rows)' '$(abspath $<)' > $@
	@chmod +x $@

# Where `make bench` and `make validate` leave their results and draw them, unless OUT says one folder for both. Not
# `OUT ?=`: that would give the others' OUT a value too.
BENCH_JSON = $(if $(OUT),$(OUT),build/results/bench)/bench.json
ERROR_CSV  = $(if $(OUT),$(OUT),build/results/validate)/error.csv
PLOT       = FOURBIT_ROWS='$(abspath $(BUILD)/bin/fourbit-rows)' plots/plot.sh

.PHONY: plots
plots: $(BUILD)/bin/fourbit-rows ## redraw the pictures of the last results (OUT=folder with bench.json or error.csv)
	@[ -e '$(BENCH_JSON)' ] || [ -e '$(ERROR_CSV)' ] || { \
	    echo 'plots: no $(BENCH_JSON) (make bench) and no $(ERROR_CSV) (make validate)' >&2; exit 2; }
	@[ ! -e '$(BENCH_JSON)' ] || $(PLOT) bench '$(BENCH_JSON)' '$(dir $(BENCH_JSON))plots'
	@[ ! -e '$(ERROR_CSV)' ] || $(PLOT) error '$(ERROR_CSV)' '$(dir $(ERROR_CSV))'
