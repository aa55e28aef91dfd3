# The PTX layer's extras: every wrapper through ptxas, and the program that captures golden vectors on a GPU.

PTX_ARCHS := 80 90a 100a 120a
check-ptx: ## every instruction wrapper through nvcc for each architecture, and through the host compiler
	@mkdir -p $(BUILD)/validate/simt
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_KERNEL_FLAGS) -DFB_SIMT=1 -x c++ -c validate/simt/ptx_all.cu -o $(BUILD)/validate/simt/ptx_all.o
ifneq (,$(NVCC))
	for a in $(PTX_ARCHS); do \
	    $(NVCC) -std=c++17 $(CPPFLAGS) -include kernels/cuda/launch.cuh -arch=sm_$$a -cubin validate/simt/ptx_all.cu \
	        -o $(BUILD)/validate/simt/ptx_all.$$a.cubin && echo "ptx_all.cu: sm_$$a" || exit 1; done
	$(NVCC) -std=c++17 $(CPPFLAGS) -arch=sm_90a -cubin validate/simt/demo_gemm_sm90.cu -o $(BUILD)/validate/simt/demo_gemm_sm90.cubin
else
	@echo "no nvcc here: the PTX itself was not checked"
endif
.PHONY: check-ptx
