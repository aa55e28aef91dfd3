# The CUDA backend, compiled twice from the same sources.
#   nvcc            into libfourbit, when nvcc is found (CUDA=0: leave it out); one binary for all of CUDA_ARCH
#   host compiler   into CUDA_SIMT_OBJS, always; a program that links these and SIMT_LIB has the backend FOURBIT_CUDA=simt
# An architecture suffix in a file's name (gemm_sm90.cu) restricts what nvcc compiles it for: CUDA_GENCODE_sm90.

NVCC       ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
CUDA_ARCHS ?= $(or $(CUDA_ARCH),80 86 89 90a 100 120)
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
                 --resource-usage -MMD -MP

# A seventh of the size; asked for where nvcc has it, as a program that carries six architectures is 35 MB otherwise.
NVCC_COMPRESS  = $(if $(shell $(NVCC) --help 2>/dev/null | grep -e --compress-mode),--compress-mode=size)

$(CUDA_OBJS): $(BUILD)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC $<)
	$(Q)$(NVCC) -ccbin $(CXX) $(CPPFLAGS) $(NVCC_FLAGS) $(NVCC_COMPRESS) \
	    $(or $(CUDA_GENCODE_$(lastword $(subst _, ,$(basename $(notdir $<))))),$(CUDA_GENCODE)) -c $< -o $@ 2> $@.ptxas; \
	    status=$$?; grep -v '^ptxas info\|^ *[0-9]* bytes stack frame' $@.ptxas >&2; exit $$status

LIB_OBJS += $(CUDA_OBJS)
LIB_LIBS += -L$(CUDA_LIB_DIR) -lcudart_static -lstdc++ -lrt -lpthread -ldl
$(BUILD)/kernels/fourbit.o: EXTRA_FLAGS += -DFB_WITH_CUDA

# What ptxas said about each object stands beside it (.ptxas): one architecture at a time, or the lines would mix.
cuda-objects: $(CUDA_OBJS)
cuda-resources: cuda-objects ## rewrite kernels/cuda/resources.txt: registers, shared memory, spills by architecture
	@NVCC=$(NVCC) scripts/cuda-resources.sh table $(CUDA_OBJS:=.ptxas) > $(BUILD)/resources.txt
	@mv $(BUILD)/resources.txt kernels/cuda/resources.txt
check-cuda-resources: cuda-objects ## fail if a CUDA kernel spills or has grown beyond kernels/cuda/resources.txt
	@NVCC=$(NVCC) scripts/cuda-resources.sh check kernels/cuda/resources.txt $(CUDA_OBJS:=.ptxas)
else
cuda-resources check-cuda-resources:
	@echo "$@: no nvcc: not checked"
endif
.PHONY: cuda-objects cuda-resources check-cuda-resources
