# fourbit-bench times what is there, fourbit-peer runs a peer library for it in a process of its own.
# oneDNN has no pkg-config file. What was found is written down, so that installing it makes the object anew.
ONEDNN     := $(shell printf '\043include <oneapi/dnnl/dnnl_version.h>\n\043if DNNL_VERSION_MAJOR != 2\n\043error\n\043endif\n' | \
                $(CC) -E -x c - >/dev/null 2>&1 && echo -ldnnl)
$(shell mkdir -p $(BUILD)/bench; echo '$(ONEDNN)' | cmp -s - $(BUILD)/bench/onednn || echo '$(ONEDNN)' > $(BUILD)/bench/onednn)
BENCH_LIBS  = $(ONEDNN) $(call PKG,benchmark) $(call PKG,openblas) $(call PKG,jansson) -lstdc++ -ldl -pthread $(LIB_LIBS)
BENCH_CASES := $(addprefix $(BUILD)/validate/,check.o check_lora.o cases.o inputs.o) $(addprefix $(BUILD)/bench/,work_lora.o layers.o)
BENCH_OBJS  := $(addprefix $(BUILD)/bench/,gbench.o timing.o ceilings.o work.o peer_openblas.o peer_onednn.o peer_client.o provenance.o \
                 results.o table.o run.o) $(BENCH_CASES)
PEER_OBJS   := $(addprefix $(BUILD)/bench/,peer_server.o peer_openblas.o timing.o work.o) $(BENCH_CASES)

TOOLS += $(BUILD)/bin/fourbit-bench $(BUILD)/bin/fourbit-peer
TESTS += $(BUILD)/bench/test_bench

$(BUILD)/bench/%.o: EXTRA_FLAGS = $(OPENMP) -I$(BUILD)/bench $(shell pkg-config --cflags openblas 2>/dev/null)
$(BUILD)/bench/peer_onednn.o: EXTRA_FLAGS += $(if $(ONEDNN),-DBENCH_ONEDNN)
$(BUILD)/bench/peer_onednn.o: $(BUILD)/bench/onednn
$(BUILD)/bench/provenance.o: EXTRA_FLAGS += '-DBENCH_CFLAGS="$(COMMON)"'
$(BUILD)/bench/provenance.o: $(BUILD)/bench/commit.h

$(BUILD)/bin/fourbit-bench: $(BUILD)/bench/main.o $(BENCH_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(BENCH_LIBS) -o $@

$(BUILD)/bin/fourbit-peer: $(PEER_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(call PKG,openblas) -ldl $(LIB_LIBS) -o $@

# A library that the tests load as a peer: it computes, computes wrongly or aborts, as its environment says.
$(BUILD)/bench/test_peer.so: bench/test_peer.c
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -O2 -fPIC -shared $< -o $@

$(BUILD)/bench/test_runs.o: EXTRA_FLAGS += -DBENCH_PROGRAM='"$(abspath $(BUILD))/bin/fourbit-bench"' \
    -DPEER_SERVER='"$(abspath $(BUILD))/bin/fourbit-peer"' -DTEST_PEER='"$(abspath $(BUILD))/bench/test_peer.so"'
$(BUILD)/bench/test_bench: $(addprefix $(BUILD)/bench/,test_bench.o test_runs.o test_throw.o) $(BENCH_OBJS) $(LIB) \
                           | $(BUILD)/bin/fourbit-bench $(BUILD)/bin/fourbit-peer $(BUILD)/bench/test_peer.so
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o %.a,$^) -lcunit $(BENCH_LIBS) -o $@

# Rewritten only when the commit or its cleanness changed.
.PHONY: bench-commit
$(BUILD)/bench/commit.h: bench-commit
	@mkdir -p $(@D)
	@printf '#define BENCH_COMMIT "%s"\n' "$$(git describe --always --abbrev=12 --dirty --exclude='*' 2>/dev/null || echo unknown)" > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

PROFILE  ?= quick
BACKENDS ?=
FILTER   ?=
MODELS   ?=
BENCH_OUT = $(if $(OUT),$(OUT),build/results/bench)
NO_PEERS ?=

.PHONY: peers
peers: ## fetch the peer libraries (bitsandbytes from PyPI) into build/peers
	@scripts/peers.sh

.PHONY: bench run-bench
bench: bootstrap ## build, check and time everything, tables and plots (PROFILE=quick or full, BACKENDS= MODELS= FILTER= OUT= NO_PEERS=1)
	@$(MAKE) --no-print-directory $(PARALLEL) run-bench

run-bench: $(BUILD)/bin/fourbit-bench $(BUILD)/bin/fourbit-peer $(BUILD)/bin/fourbit $(BUILD)/bin/fourbit-rows
	@BENCH=$(BUILD)/bin PROFILE='$(PROFILE)' BACKENDS='$(BACKENDS)' FILTER='$(FILTER)' MODELS='$(MODELS)' OUT='$(BENCH_OUT)' NO_PEERS='$(NO_PEERS)' \
	    bench/run.sh

-include bench/gpu.mk bench/compare/build.mk bench/goals/build.mk
