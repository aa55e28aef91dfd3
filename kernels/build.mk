# libfourbit. Files in cpu/ are compiled for the instruction set in their name; which of them run is decided at run time.
LIB_OBJS += $(BUILD)/kernels/fourbit.o $(BUILD)/kernels/plugin.o $(patsubst %.c,$(BUILD)/%.o,$(wildcard kernels/cpu/*.c))

$(BUILD)/kernels/cpu/%.o: EXTRA_FLAGS = -O3 $(OPENMP)
$(BUILD)/kernels/cpu/%_avx2.o: EXTRA_FLAGS = -O3 $(OPENMP) -mavx2 -mfma -mf16c
$(BUILD)/kernels/cpu/%_avx512.o: EXTRA_FLAGS = -O3 $(OPENMP) -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq \
    $(if $(EMULATED),-DFOURBIT_BOCHS)

$(BUILD)/kernels/cpu/%_avx512bf16.o: EXTRA_FLAGS = -O3 $(OPENMP) -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16
$(BUILD)/kernels/cpu/%_amx.o: EXTRA_FLAGS = -O3 $(OPENMP) -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 \
    -mamx-tile -mamx-bf16

-include kernels/cuda/build.mk
