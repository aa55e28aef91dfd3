# The CUDA backend, compiled twice from the same sources.
#   nvcc            into libfourbit, when nvcc is found (CUDA=0: leave it out); one binary for all of CUDA_ARCHS
#   host compiler   into CUDA_SIMT_OBJS, always; a program that links these and SIMT_LIB has the backend FOURBIT_CUDA=simt
# An architecture suffix in a file's name (gemm_sm90.cu) restricts what nvcc compiles it for: CUDA_GENCODE_sm90.

NVCC       ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
CUDA_ARCHS ?= 80 86 89 90a 100 120
CUDA_SOURCES   := $(wildcard kernels/cuda/*.cu)
CUDA_SIMT_OBJS := $(CUDA_SOURCES:%.cu=$(BUILD)/simt/%.o)

$(CUDA_SIMT_OBJS): $(BUILD)/simt/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_KERNEL_FLAGS) -DFB_SIMT=1 -x c++ -MMD -MP -c $< -o $@

CUDA ?= 1
ifneq (,$(and $(filter-out 0,$(CUDA)),$(NVCC)))
CUDA_LIB_DIR  := $(firstword $(wildcard $(dir $(NVCC))../lib64 $(dir $(NVCC))../targets/x86_64-linux/lib))
CUDA_GENCODE  := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a))
CUDA_GENCODE_sm90 := -gencode arch=compute_90a,code=sm_90a
CUDA_OBJS     := $(CUDA_SOURCES:%.cu=$(BUILD)/%.cu.o)
NVCC_FLAGS    := -std=c++17 -O3 -lineinfo -Xcompiler=-fPIC,-Wall,-fno-exceptions,-ffp-contract=off -Xcudafe=--display_error_number \
                 --threads 2 -MMD -MP

$(CUDA_OBJS): $(BUILD)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC $<)
	$(Q)$(NVCC) -ccbin $(CXX) $(CPPFLAGS) $(NVCC_FLAGS) \
	    $(or $(CUDA_GENCODE_$(lastword $(subst _, ,$(basename $(notdir $<))))),$(CUDA_GENCODE)) -c $< -o $@

LIB_OBJS += $(CUDA_OBJS)
LIB_LIBS += -L$(CUDA_LIB_DIR) -lcudart_static -lstdc++ -lrt -lpthread -ldl
$(BUILD)/kernels/fourbit.o: EXTRA_FLAGS += -DFB_WITH_CUDA
endif
