# fourbit-report: a results folder as one HTML page.
REPORT_DIR  := $(BUILD)/plots/report
REPORT_OBJS := $(addprefix $(REPORT_DIR)/,load.o svg.o html.o page.o)
TOOLS += $(BUILD)/bin/fourbit-report
TESTS += $(BUILD)/plots/test_report

# Style sheet and script as C strings.
$(REPORT_DIR)/page.%.inc: plots/report/page.% plots/report/build.mk
	@mkdir -p $(@D)
	$(Q)sed 's/\\/\\\\/g; s/"/\\"/g; s/^/"/; s/$$/\\n"/; 1s/^/static const char page_$*[] =\n/; $$s/$$/;/' $< > $@

$(REPORT_DIR)/page.o: EXTRA_FLAGS = -I$(REPORT_DIR)
$(REPORT_DIR)/page.o: $(REPORT_DIR)/page.css.inc $(REPORT_DIR)/page.js.inc

$(BUILD)/bin/fourbit-report: $(REPORT_DIR)/main.o $(REPORT_OBJS)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(call PKG,jansson) -lm -o $@

$(REPORT_DIR)/test_report.o: EXTRA_FLAGS = -DREPORT_PROGRAM='"$(abspath $(BUILD))/bin/fourbit-report"' -DTESTDATA='"$(abspath plots/testdata)"'
$(BUILD)/plots/test_report: $(REPORT_DIR)/test_report.o $(REPORT_OBJS) | $(BUILD)/bin/fourbit-report
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit $(call PKG,jansson) -lm -o $@

.PHONY: report
report: ## one HTML page of the last results (OUT=folder with bench.json or error.csv, VERDICT=file of make compare)
	@$(MAKE) --no-print-directory --silent $(BUILD)/bin/fourbit-report
	@$(BUILD)/bin/fourbit-report $(if $(VERDICT),--verdict '$(VERDICT)') '$(if $(OUT),$(OUT),build/results/bench)'
