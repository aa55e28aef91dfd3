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

# `make bench` draws into plots/ of its folder, `make validate` beside its table; OUT names one folder for both. Not
# `OUT ?=`: that would give the others' OUT a value too.
PLOT         = FOURBIT_ROWS='$(abspath $(BUILD)/bin/fourbit-rows)' plots/plot.sh
PLOTS_FROM   = $(if $(OUT),$(OUT),build/results/bench)
PLOTS_ERRORS = $(if $(OUT),,$(wildcard build/results/validate/error.csv))

.PHONY: plots
plots: $(BUILD)/bin/fourbit-rows ## redraw the pictures of the last results (OUT=folder with bench.json or error.csv)
	@[ -n '$(PLOTS_ERRORS)' ] && [ ! -e '$(PLOTS_FROM)' ] || $(PLOT) all '$(PLOTS_FROM)' '$(PLOTS_FROM)/plots'
	@[ -z '$(PLOTS_ERRORS)' ] || $(PLOT) error '$(PLOTS_ERRORS)' '$(dir $(PLOTS_ERRORS))'

-include plots/report/build.mk
