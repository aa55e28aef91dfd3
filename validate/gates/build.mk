# fourbit-gates prints figures that do not depend on the machine's load; scripts/gates.sh holds them against baselines/.
GATE_OBJS  := $(addprefix $(BUILD)/validate/gates/,work.o hashes.o instructions.o) $(BUILD)/validate/inputs.o
GATE_SIMT  := $(BUILD)/validate/gates/counters.o
TOOLS += $(BUILD)/bin/fourbit-gates
TESTS += $(BUILD)/bin/test-gates

$(GATE_SIMT): validate/gates/counters.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_CORE_FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/bin/fourbit-gates: $(BUILD)/validate/gates/main.o $(GATE_OBJS) $(GATE_SIMT) $(CUDA_SIMT_OBJS) $(SIMT_LIB) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CXX) $^ $(LIB_LIBS) $(SIMT_LIB_LIBS) $(LDFLAGS) -o $@

# The same with bugs that GATES_PLANT chooses (planted.c), and one that is compiled in: every barrier of a kernel twice.
GATE_PLANTED := $(BUILD)/validate/gates/planted
$(GATE_PLANTED)/quantize8.cu: kernels/cuda/quantize8.cu
	@mkdir -p $(@D)
	@sed 's/__syncthreads();/__syncthreads(); __syncthreads();/' $< > $@
	@! cmp -s $< $@ || { echo '$< has no __syncthreads(); to double: plant the barrier in another kernel' >&2; exit 1; }
$(GATE_PLANTED)/quantize8.o: $(GATE_PLANTED)/quantize8.cu
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) -Ikernels/cuda $(SIMT_KERNEL_FLAGS) -DFB_SIMT=1 -x c++ -MMD -MP -c $< -o $@
$(GATE_PLANTED)/main.o: validate/gates/main.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(COMMON) $(CFLAGS) -DPLANT -MMD -MP -c $< -o $@
$(GATE_PLANTED)/fourbit-gates: $(GATE_PLANTED)/main.o $(GATE_PLANTED)/quantize8.o $(BUILD)/validate/gates/planted.o $(GATE_OBJS) $(GATE_SIMT) \
                          $(filter-out %/quantize8.o,$(CUDA_SIMT_OBJS)) $(SIMT_LIB) $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $^ $(LIB_LIBS) $(SIMT_LIB_LIBS) $(LDFLAGS) -o $@

# `make test` runs programs without arguments: this one knows which programs it belongs to.
$(BUILD)/bin/test-gates: validate/gates/test_gates.sh $(BUILD)/bin/fourbit-gates $(GATE_PLANTED)/fourbit-gates
	@printf '#!/bin/sh\nGATES=%s PLANTED=%s exec %s "$$@"\n' '$(abspath $(BUILD)/bin/fourbit-gates)' '$(abspath $(GATE_PLANTED)/fourbit-gates)' \
	    '$(abspath $<)' > $@
	@chmod +x $@

.PHONY: gates gates-update
gates: $(BUILD)/bin/fourbit-gates ## figures that need no GPU and no quiet machine, against committed baselines (GATES=hashes,products,instructions,counters,ptxas)
	+@GATES_PROGRAM='$(BUILD)/bin/fourbit-gates' CUDA='$(CUDA)' scripts/gates.sh $(subst $(comma), ,$(GATES))
gates-update: $(BUILD)/bin/fourbit-gates ## rewrite those baselines; look at the diff before committing it
	+@GATES_PROGRAM='$(BUILD)/bin/fourbit-gates' CUDA='$(CUDA)' scripts/gates.sh --update $(subst $(comma), ,$(GATES))
