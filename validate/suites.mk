# The CUnit suites: one program, build/validate/test_fourbit (--help tells). The libraries beneath them
# (comparison, cases, inputs, closed forms) are VALIDATE_OBJS, for benchmarks and tools to link as well.
VALIDATE_OBJS := $(addprefix $(BUILD)/validate/,check.o check_lora.o guard.o cases.o inputs.o theory.o)

SUITE_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out validate/check.c validate/check_lora.c validate/guard.c validate/cases.c \
                validate/inputs.c validate/theory.c,$(wildcard validate/*.c)))

$(BUILD)/validate/test_fourbit: $(SUITE_OBJS) $(VALIDATE_OBJS) $(LIB)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit -pthread $(LIB_LIBS) -o $@

# The same suites over the CUDA kernels, in the executor. Not under sanitizers, which do not know its stack switches.
$(BUILD)/validate/test_fourbit_simt: $(SUITE_OBJS) $(VALIDATE_OBJS) $(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $^ -lcunit $(LIB_LIBS) -lpthread -ldl -o $@

# The executor's counters held against what each kernel declares.
$(BUILD)/validate/simt/test_budgets.o: validate/simt/test_budgets.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_CORE_FLAGS) -MMD -MP -c $< -o $@
$(BUILD)/validate/test_simt_budgets: $(BUILD)/validate/simt/test_budgets.o $(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $^ -lcunit $(LIB_LIBS) -lpthread -ldl -o $@

# The products, path by path and (Hopper) plan by plan: kernels that the suites above meet only as the dispatch chooses.
$(addprefix $(BUILD)/validate/simt/,test_gemm_sm90.o test_gemm_stream.o test_gemm_paths.o test_lora_paths.o): $(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) -Ivalidate -Ikernels/cuda -DFB_SIMT=1 $(SIMT_CORE_FLAGS) -Wno-unknown-pragmas -MMD -MP -c $< -o $@
$(addprefix $(BUILD)/validate/simt/planted_,gemm_sm90.o gemm_dx_sm90.o gemm_stream_sm90.o): validate/simt/test_gemm_sm90_planted.cpp
	@mkdir -p $(@D)
	$(call say,CXX $< for $(@F))
	$(Q)$(CXX) $(CPPFLAGS) -Ikernels/cuda -DFB_SIMT=1 $(if $(findstring dx,$(@F)),-DPLANTED_DX) \
	    $(if $(findstring stream,$(@F)),-DPLANTED_STREAM) $(SIMT_KERNEL_FLAGS) -MMD -MP -c $< -o $@
$(BUILD)/validate/test_simt_sm90: $(addprefix $(BUILD)/validate/simt/,test_gemm_sm90.o planted_gemm_sm90.o planted_gemm_dx_sm90.o) \
                                  $(VALIDATE_OBJS) $(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $^ -lcunit $(LIB_LIBS) -lpthread -ldl -o $@
$(BUILD)/validate/simt/test_lora_planted.o: validate/simt/test_lora_planted.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) -Ikernels/cuda -DFB_SIMT=1 $(SIMT_KERNEL_FLAGS) -MMD -MP -c $< -o $@
$(BUILD)/validate/test_simt_lora_paths: $(addprefix $(BUILD)/validate/simt/,test_lora_paths.o test_lora_planted.o) $(VALIDATE_OBJS) \
                                        $(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $^ -lcunit $(LIB_LIBS) -lpthread -ldl -o $@
$(BUILD)/validate/test_simt_stream: $(addprefix $(BUILD)/validate/simt/,test_gemm_stream.o planted_gemm_stream_sm90.o) \
                                    $(VALIDATE_OBJS) $(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $^ -lcunit $(LIB_LIBS) -lpthread -ldl -o $@
$(BUILD)/validate/test_simt_gemm_paths: $(BUILD)/validate/simt/test_gemm_paths.o $(VALIDATE_OBJS) $(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $^ -lcunit $(LIB_LIBS) -lpthread -ldl -o $@

# fourbit.h seen by a C++ compiler, and linked from C++.
$(BUILD)/validate/test_cplusplus: $(BUILD)/validate/test_cplusplus.o $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $^ $(LIB_LIBS) -o $@

# AMX's kernels on a model of its tiles in plain C, in the place of the library's.
MODEL_OBJS := $(addprefix $(BUILD)/validate/tiles/,gemm_amx.o gemm_dx_amx.o)
$(MODEL_OBJS): $(BUILD)/validate/tiles/%.o: kernels/cpu/%.c $(CONFIG)
	@mkdir -p $(@D)
	$(call say,CC $< on the model of tiles)
	$(Q)$(CC) $(CPPFLAGS) $(COMMON) $(CFLAGS) -O3 $(OPENMP) -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 \
	    -DFOURBIT_TILES_MODEL -MMD -MP -c $< -o $@
$(BUILD)/validate/test_tiles: $(BUILD)/validate/tiles/test_tiles.o $(MODEL_OBJS) $(filter-out %/test_main.o,$(SUITE_OBJS)) $(VALIDATE_OBJS) $(LIB)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit -pthread $(LIB_LIBS) -o $@

TESTS += $(BUILD)/validate/test_fourbit $(BUILD)/validate/test_tiles $(BUILD)/validate/test_cplusplus
TESTS += $(if $(SANITIZE),,$(BUILD)/validate/test_fourbit_simt $(BUILD)/validate/test_simt_budgets $(BUILD)/validate/test_simt_sm90 \
              $(BUILD)/validate/test_simt_stream $(BUILD)/validate/test_simt_gemm_paths $(BUILD)/validate/test_simt_lora_paths)
