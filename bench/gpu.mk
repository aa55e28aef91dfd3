# fourbit-gpu times the CUDA backend, fourbit-gpu-peer runs bitsandbytes' CUDA library for it, test_fourbit_gpu runs the
# suites on device memory (validate/device/mirror.c; -u, because a wrapped name pulls nothing out of an archive). Without
# nvcc fourbit-gpu says that it has no CUDA, and the other two are not built. The harness itself is tested on fake and
# host devices (test_gpu), in every build.

BENCH_GPU_OBJS := $(addprefix $(BUILD)/bench/,gbench.o timing.o work.o peer_client.o provenance.o results.o table.o device_host.o gpu_cases.o \
                    gpu_job.o gpu_check.o gpu_time.o gpu_peers.o gpu_ceilings.o gpu_run.o cublas.o nvml.o) $(BENCH_CASES)
GPU_PEER_OBJS  := $(addprefix $(BUILD)/bench/,gpu_peer_server.o timing.o work.o device_host.o gpu_cases.o gpu_job.o gpu_check.o gpu_time.o \
                    gpu_peers.o cublas.o nvml.o) $(BENCH_CASES)
BENCH_GPU_LIBS  = $(call PKG,benchmark) $(call PKG,jansson) -lstdc++ -ldl -pthread $(LIB_LIBS)
GPU_TEST_OBJS  := $(SUITE_OBJS) $(VALIDATE_OBJS) $(addprefix $(BUILD)/,validate/device/mirror.o bench/device_host.o bench/timing.o)
GPU_TEST_WRAP  := -Wl,--wrap=fb_cuda_ops,-u,fb_cuda_ops
GPU_LIBS        = $(call PKG,jansson) -ldl -pthread $(LIB_LIBS)

TOOLS += $(BUILD)/bin/fourbit-gpu
TESTS += $(BUILD)/bench/test_gpu scripts/test-gpu-report.sh $(BUILD)/validate/device/test_mirror

ifneq (,$(CUDA_OBJS))
DEVICE_CUDA := $(BUILD)/bench/device_cuda.cu.o
TOOLS += $(BUILD)/bin/fourbit-gpu-peer $(BUILD)/bin/test_fourbit_gpu

$(DEVICE_CUDA): bench/device_cuda.cu
	@mkdir -p $(@D)
	$(call say,NVCC $<)
	$(Q)$(NVCC) -ccbin $(CXX) $(CPPFLAGS) $(filter-out --resource-usage,$(NVCC_FLAGS)) $(NVCC_COMPRESS) $(CUDA_GENCODE) -c $< -o $@

$(BUILD)/bin/fourbit-gpu-peer: $(GPU_PEER_OBJS) $(DEVICE_CUDA) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lstdc++ $(GPU_LIBS) -o $@

$(BUILD)/bin/test_fourbit_gpu: $(GPU_TEST_OBJS) $(DEVICE_CUDA) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $(GPU_TEST_WRAP) $^ -lcunit -lstdc++ $(GPU_LIBS) -o $@

$(BUILD)/bin/capture-golden: validate/simt/golden/capture.cu $(wildcard validate/simt/golden/*.cuh kernels/cuda/*.cuh)
	@mkdir -p $(@D)
	$(call say,NVCC $<)
	$(Q)$(NVCC) -ccbin $(CXX) $(CPPFLAGS) -std=c++17 -gencode arch=compute_80,code=[sm_80$(comma)compute_80] \
	    -gencode arch=compute_90a,code=sm_90a $< -o $@

# ---- for a machine that has a GPU and little else -------------------------------------------------------------------
# CUnit and jansson are linked in; of Google Benchmark Debian has only the shared library, which travels in lib/ with
# those of the compiler. RPATH and not RUNPATH: it holds for what the libraries load, too.

BUNDLE       := $(BUILD)/gpu
BUNDLE_LINK   = $(CC) $(LDFLAGS) -s -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../lib'
BUNDLE_STATIC = -l:libjansson.a -lstdc++ -ldl -pthread $(LIB_LIBS)
BUNDLE_MIB   ?= 60

$(BUNDLE)/bin/fourbit-gpu: $(BUILD)/bench/gpu_main.o $(BENCH_GPU_OBJS) $(DEVICE_CUDA) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(BUNDLE_LINK) $^ -lbenchmark $(BUNDLE_STATIC) -o $@
$(BUNDLE)/bin/fourbit-gpu-peer: $(GPU_PEER_OBJS) $(DEVICE_CUDA) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(BUNDLE_LINK) $^ $(BUNDLE_STATIC) -o $@
$(BUNDLE)/bin/test_fourbit_gpu: $(GPU_TEST_OBJS) $(DEVICE_CUDA) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(BUNDLE_LINK) $(GPU_TEST_WRAP) $^ -l:libcunit.a $(BUNDLE_STATIC) -o $@
$(BUNDLE)/bin/fourbit-spike: $(SPIKE_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(BUNDLE_LINK) $^ $(BUNDLE_STATIC) -o $@
$(BUNDLE)/bin/fourbit-tune: $(BUILD)/bench/tune_main.o $(addprefix $(BUILD)/bench/,tune.o tune_select.o) $(BENCH_GPU_OBJS) $(DEVICE_CUDA) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(BUNDLE_LINK) $^ -lbenchmark $(BUNDLE_STATIC) -o $@
$(BUNDLE)/bin/fourbit-goals: $(addprefix $(BUILD)/bench/goals/,main.o table.o)
	@mkdir -p $(@D)
	$(Q)$(BUNDLE_LINK) $^ -l:libjansson.a -lm -o $@
$(BUNDLE)/bin/test_train_gpu: $(TRAIN_GPU_TEST_OBJS) $(BUILD)/validate/train/test_cuda_cblas.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(BUNDLE_LINK) $^ -l:libcunit.a $(BUNDLE_STATIC) -o $@
$(BUNDLE)/bin/capture-golden: $(BUILD)/bin/capture-golden
	@mkdir -p $(@D)
	$(Q)strip -s -o $@ $<

BUNDLE_PROGRAMS := $(addprefix $(BUNDLE)/bin/,fourbit-gpu fourbit-gpu-peer fourbit-goals fourbit-tune fourbit-spike test_train_gpu test_fourbit_gpu capture-golden)
gpu-bundle: $(BUNDLE_PROGRAMS) ## programs and script for a machine with a GPU, in build/gpu (copy the folder there)
	@CC='$(CC)' NVCC='$(NVCC)' scripts/gpu-bundle.sh $(BUNDLE) $(BUNDLE_MIB)

gpu-report: gpu-bundle ## everything on a machine with a GPU, in stages (ARGS='--stage 2': scripts/gpu-report.sh --help)
	@$(BUNDLE)/gpu-report.sh $(ARGS)
else
gpu-bundle:
	@echo "make gpu-bundle: no nvcc (or CUDA=0): there is nothing to run on a GPU" >&2; exit 1
gpu-report: $(addprefix $(BUILD)/bin/,fourbit-gpu fourbit-spike fourbit-goals fourbit-tune)
	@scripts/gpu-report.sh --bin $(BUILD)/bin $(ARGS)
endif
.PHONY: gpu-bundle gpu-report

$(BUILD)/bin/fourbit-gpu: $(BUILD)/bench/gpu_main.o $(BENCH_GPU_OBJS) $(DEVICE_CUDA) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(BENCH_GPU_LIBS) -o $@

# The suites once more over the executor, now through the mirror and on the host device (test_mirror has planted faults).
$(BUILD)/bench/test_fourbit_mirror: $(GPU_TEST_OBJS) $(CUDA_SIMT_OBJS) $(SIMT_LIB) $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) -Wl,--wrap=fb_simt_ops $^ -lcunit $(SIMT_LIB_LIBS) $(LIB_LIBS) -o $@
check-mirror: $(BUILD)/bench/test_fourbit_mirror ## the CUDA suites through the device-memory layer, in the executor (half a minute)
	@$<
.PHONY: check-mirror

# ---- which path of the product for which M ----------------------------------------------------------------------------
TOOLS += $(BUILD)/bin/fourbit-tune
TESTS += $(BUILD)/bench/test_tune
TUNE_OBJS := $(addprefix $(BUILD)/bench/,tune.o tune_select.o) $(BENCH_GPU_OBJS)

$(BUILD)/bin/fourbit-tune: $(BUILD)/bench/tune_main.o $(TUNE_OBJS) $(DEVICE_CUDA) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(BENCH_GPU_LIBS) -o $@
$(BUILD)/bench/test_tune: $(BUILD)/bench/test_tune.o $(TUNE_OBJS) $(DEVICE_CUDA) $(if $(SANITIZE),,$(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a) $(LIB)
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $^ -lcunit $(BENCH_GPU_LIBS) -o $@

.PHONY: tune
tune: $(BUILD)/bin/fourbit-tune ## on a machine with a GPU: measure the product's paths, rewrite kernels/cuda/dispatch_table.h (ARGS=--dry-run)
	@$< $(ARGS)

$(BUILD)/bench/test_nvml.so: bench/test_nvml_library.c
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -O2 -fPIC -shared $< -o $@

# A machine's worth of planted libraries: cuBLAS and bitsandbytes that compute on the host, and fourbit-gpu-peer on a
# device that is the host's.
GPU_PLANTED := $(BUILD)/bench/planted
PLANT    = $(CC) $(CPPFLAGS) $(CFLAGS) $(COMMON) $(LDFLAGS) -shared
$(GPU_PLANTED)/lib64/libcublas.so.13: bench/test_gpu_libraries.c
	@mkdir -p $(@D)
	$(call say,CC $@)
	$(Q)$(PLANT) -DPLANT_CUBLAS $< -o $@
	$(Q)cp $@ $(@D)/libcublasLt.so.13
$(GPU_PLANTED)/bitsandbytes/libbitsandbytes_cuda130.so: bench/test_gpu_libraries.c $(LIB)
	@mkdir -p $(@D)
	$(call say,CC $@)
	$(Q)$(PLANT) -DPLANT_BITSANDBYTES $< -Wl,--exclude-libs,ALL $(LIB) $(LIB_LIBS) -o $@
$(GPU_PLANTED)/fourbit-gpu-peer: $(GPU_PEER_OBJS) $(BUILD)/bench/test_gpu_libraries.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(GPU_LIBS) -o $@

# With the executor, so that the CUDA kernels go through the harness too; it does not run under sanitizers.
$(BUILD)/bench/test_gpu.o: EXTRA_FLAGS += -DTEST_NVML='"$(abspath $(BUILD))/bench/test_nvml.so"' -DTEST_PEER='"$(abspath $(BUILD))/bench/test_peer.so"' \
    -DPLANTED_PEERS='"$(abspath $(GPU_PLANTED))"' -DPLANTED_SERVER='"$(abspath $(GPU_PLANTED))/fourbit-gpu-peer"'
$(BUILD)/bench/test_gpu: $(BUILD)/bench/test_gpu.o $(BENCH_GPU_OBJS) $(DEVICE_CUDA) $(if $(SANITIZE),,$(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a) $(LIB) \
                         | $(BUILD)/bench/test_nvml.so $(BUILD)/bench/test_peer.so $(GPU_PLANTED)/lib64/libcublas.so.13 \
                           $(GPU_PLANTED)/bitsandbytes/libbitsandbytes_cuda130.so $(GPU_PLANTED)/fourbit-gpu-peer
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) $(filter %.o %.a,$^) -lcunit $(BENCH_GPU_LIBS) -o $@

# The executor's table is the test's own here.
$(BUILD)/validate/device/test_mirror: $(addprefix $(BUILD)/,validate/device/test_mirror.o validate/device/mirror.o bench/device_host.o bench/timing.o) $(LIB)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) -Wl,--wrap=fb_simt_ops $^ -lcunit -pthread $(LIB_LIBS) -o $@
