# The QLoRA training loop (README.md): fourbit-train, its experiment, its tests.
#
# TRAIN_OBJS: everything but the programs' main files and the tests. A new .c here joins it by being here.
TRAIN_MAINS  := $(wildcard validate/train/*_main.c)
TRAIN_OBJS   := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(TRAIN_MAINS) $(wildcard validate/train/test_*.c),$(wildcard validate/train/*.c))) \
                $(addprefix $(BUILD)/bench/,device_host.o timing.o cublas.o) $(BUILD)/validate/theory.o $(CHECKPOINT_OBJS)
TRAIN_LIBS    = $(call PKG,openblas) $(call PKG,jansson) -pthread $(LIB_LIBS)

$(BUILD)/validate/train/%.o: EXTRA_FLAGS = $(OPENMP)
$(BUILD)/validate/train/ops_cpu.o: EXTRA_FLAGS = -O3 $(OPENMP) $(shell pkg-config --cflags openblas 2>/dev/null)
# No trapping math: comparisons may then become selects, and loops with exp vectors; no value changes.
$(BUILD)/validate/train/ops_cpu_portable.o: EXTRA_FLAGS = -O3 $(OPENMP) -fno-trapping-math
$(BUILD)/validate/train/ops_cpu_avx2.o: EXTRA_FLAGS = -O3 $(OPENMP) -fno-trapping-math -mavx2

# The decoder's operations on CUDA, compiled twice as the library's kernels are (kernels/cuda/build.mk).
TRAIN_CUDA_SOURCES := $(wildcard validate/train/ops_cuda*.cu)
TRAIN_SIMT_OBJS    := $(TRAIN_CUDA_SOURCES:%.cu=$(BUILD)/simt/%.o)
$(TRAIN_SIMT_OBJS): $(BUILD)/simt/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_KERNEL_FLAGS) -DFB_SIMT=1 -x c++ -MMD -MP -c $< -o $@

ifneq (,$(CUDA_OBJS))
TRAIN_CUDA_OBJS := $(TRAIN_CUDA_SOURCES:%.cu=$(BUILD)/%.cu.o)
TRAIN_GPU_OBJS  := $(TRAIN_CUDA_OBJS) $(BUILD)/bench/device_cuda.cu.o $(BUILD)/validate/train/gpu_runtime_cuda.cu.o
$(TRAIN_CUDA_OBJS): $(BUILD)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC $<)
	$(Q)$(NVCC) -ccbin $(CXX) $(CPPFLAGS) $(filter-out --resource-usage,$(NVCC_FLAGS)) $(NVCC_COMPRESS) $(CUDA_GENCODE) -c $< -o $@
endif

# The gradient check: model and reference once more, in double.
TRAIN_DOUBLE := $(addprefix $(BUILD)/validate/train/double/,model.o memory.o weights.o quantize_base.o linear.o model_run.o ops_reference.o \
                  test_gradient.o)
$(TRAIN_DOUBLE): $(BUILD)/validate/train/double/%.o: validate/train/%.c $(CONFIG)
	@mkdir -p $(@D)
	$(call say,CC $< (double))
	$(Q)$(CC) $(CPPFLAGS) $(COMMON) $(CFLAGS) -DLM_DOUBLE -MMD -MP -c $< -o $@
$(BUILD)/validate/test_train_gradient: $(TRAIN_DOUBLE) $(addprefix $(BUILD)/bench/,device_host.o timing.o) $(BUILD)/validate/checkpoint/error.o $(LIB)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit -pthread $(LIB_LIBS) -o $@
TESTS += $(BUILD)/validate/test_train_gradient

$(BUILD)/bin/fourbit-train: $(BUILD)/validate/train/train_main.o $(TRAIN_OBJS) $(TRAIN_GPU_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ $(TRAIN_LIBS) -o $@
TOOLS += $(BUILD)/bin/fourbit-train

$(BUILD)/validate/train/test_train.o: EXTRA_FLAGS = -DTRAIN_PROGRAM='"$(BUILD)/bin/fourbit-train"' -DTOKENIZER_GOLDEN='"validate/train/golden/tokenizer.golden.json"'
$(BUILD)/validate/train/test_lockstep.o: EXTRA_FLAGS = -O3
$(BUILD)/validate/test_train: $(addprefix $(BUILD)/validate/train/,test_train.o test_lockstep.o) $(TRAIN_OBJS) $(LIB) | $(BUILD)/bin/fourbit-train
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o %.a,$^) -lcunit $(TRAIN_LIBS) -o $@
TESTS += $(BUILD)/validate/test_train

# The CUDA operations, and training steps on them, in the executor. Not under sanitizers, which do not know its stack switches.
$(BUILD)/validate/train/test_cuda_device.o: validate/train/test_cuda_device.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_CORE_FLAGS) -MMD -MP -c $< -o $@
$(BUILD)/validate/train/test_cuda_planted.o: validate/train/test_cuda_planted.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) -DFB_SIMT=1 $(SIMT_KERNEL_FLAGS) -MMD -MP -c $< -o $@
# A cuBLAS that computes on the host, with whatever the machine has out of the way (bench/gpu.mk).
$(BUILD)/validate/train/test_cuda.o: EXTRA_FLAGS = $(OPENMP) -DPLANTED_CUDA_HOME='"$(abspath $(BUILD))/bench/planted"'
$(BUILD)/validate/test_train_cuda: $(addprefix $(BUILD)/validate/train/,test_cuda.o test_cuda_steps.o test_cuda_mirror.o test_cuda_device.o test_cuda_planted.o test_lockstep.o) \
                                   $(TRAIN_OBJS) $(TRAIN_SIMT_OBJS) $(CUDA_SIMT_OBJS) $(BUILD)/libsimt.a $(LIB) \
                                   | $(BUILD)/bench/planted/lib64/libcublas.so.13
	$(call say,LD $@)
	$(Q)$(CXX) $(LDFLAGS) -Wl,--wrap=_ZN4simt7executeERKNS_10InvocationE $^ -lcunit $(TRAIN_LIBS) -ldl -o $@
TESTS += $(if $(SANITIZE),,$(BUILD)/validate/test_train_cuda)

# The same on a GPU; `make gpu-bundle` takes it along (bench/gpu.mk).
TRAIN_GPU_TEST_OBJS := $(addprefix $(BUILD)/validate/train/,test_cuda.o test_cuda_steps.o test_cuda_mirror.o test_cuda_gpu.o test_lockstep.o) \
                       $(TRAIN_OBJS) $(TRAIN_GPU_OBJS)
$(BUILD)/validate/train/test_cuda_cblas.o: EXTRA_FLAGS = $(shell pkg-config --cflags openblas 2>/dev/null)
ifneq (,$(CUDA_OBJS))
$(BUILD)/bin/test_train_gpu: $(TRAIN_GPU_TEST_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit $(TRAIN_LIBS) -o $@
TOOLS += $(BUILD)/bin/test_train_gpu
endif

# Threads that wait sleep: on a machine that does other work as well, spinning at the end of each loop made a step five times
# as long. OMP_WAIT_POLICY=active brings the spinning back.
TRAIN_ENV = OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-passive}

# More of its options: make train ARGS='--format int4 --steps 400'
.PHONY: train
train: bootstrap ## QLoRA end to end: a small base, quantized, adapters fine-tuned, text before and after (ARGS= OUT=)
	@$(MAKE) --no-print-directory $(PARALLEL) $(BUILD)/bin/fourbit-train
	$(TRAIN_ENV) $(BUILD)/bin/fourbit-train --out "$(or $(OUT),build/results/train)" $(ARGS)

$(BUILD)/bin/fourbit-train-experiment: $(BUILD)/validate/train/experiment_main.o $(TRAIN_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o %.a,$^) $(TRAIN_LIBS) -o $@
TOOLS += $(BUILD)/bin/fourbit-train-experiment

$(BUILD)/validate/test_train_experiment: $(BUILD)/validate/train/test_experiment.o $(TRAIN_OBJS) $(LIB)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit $(TRAIN_LIBS) -o $@
TESTS += $(BUILD)/validate/test_train_experiment

X_OUT = $(or $(OUT),build/results/train-experiment)
.PHONY: train-experiment
train-experiment: bootstrap ## formats compared by fine-tuning: tables, curves, verdicts (PROFILE=quick|full OUT=)
	@$(MAKE) --no-print-directory $(PARALLEL) $(BUILD)/bin/fourbit-train-experiment
	@mkdir -p '$(X_OUT)'
	@status=0; $(TRAIN_ENV) $(BUILD)/bin/fourbit-train-experiment $(or $(PROFILE),quick) '$(X_OUT)' || status=$$?; \
	 plots/plot.sh train '$(X_OUT)' '$(X_OUT)/plots' || status=$$(($$status ? $$status : 1)); exit $$status
