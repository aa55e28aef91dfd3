# A kernel from outside the project, as its author would build it: only headers of ours, and nothing linked.
PLUGIN_DIR := $(BUILD)/validate/plugin_example
PLUGIN_SO   = $(CC) -std=c11 -O3 -Wall -Wextra $(WERROR) -ffp-contract=off -fPIC -shared -I kernels

$(PLUGIN_DIR)/example.so: validate/plugin_example/dequantize.c $(wildcard kernels/f*.h)
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(PLUGIN_SO) $< -o $@

# The same with its nibbles swapped: what suites and benchmark must catch. The example itself stays free of #ifdefs.
$(PLUGIN_DIR)/swapped.so: validate/plugin_example/dequantize.c $(wildcard kernels/f*.h)
	@mkdir -p $(@D)
	@grep -q 'fb_nibble(w->codes, i)' $< || { echo '$<: no fb_nibble(w->codes, i) to plant a bug in' >&2; exit 1; }
	$(Q)sed 's/fb_nibble(w->codes, i)/fb_nibble(w->codes, i ^ 1)/; s/"example"/"swapped"/' $< | $(PLUGIN_SO) -x c - -o $@

$(PLUGIN_DIR)/odd.so: validate/plugin_example/test_odd.c $(wildcard kernels/f*.h)
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(PLUGIN_SO) $< -o $@

TESTS += $(BUILD)/validate/test_plugin
$(BUILD)/validate/plugin_example/test_plugin.o: EXTRA_FLAGS += -DBUILD_FOLDER='"$(abspath $(BUILD))"'
$(BUILD)/validate/test_plugin: $(BUILD)/validate/plugin_example/test_plugin.o $(LIB) | $(BUILD)/validate/test_fourbit \
        $(BUILD)/bin/fourbit-bench $(BUILD)/bin/fourbit-peer $(addprefix $(PLUGIN_DIR)/,example.so swapped.so odd.so)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o %.a,$^) -lcunit $(call PKG,jansson) -pthread $(LIB_LIBS) -o $@
