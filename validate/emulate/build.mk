# The suites on an emulated AVX-512 processor, from a build of their own (EMULATED: vec_avx512.h says what differs). The
# emulator is about fifty times slower than a processor, so each suite runs in small, and tests of threads are left
# to real processors.
EMULATE_BUILD   := build/emulate
EMULATE_SECONDS ?= 2400
EMULATE_TESTS   ?= quantize.every quantize.each quantize.zeros quantize.nonfinite dequantize.custom dequantize.negative double_quant. blockwise8.every \
                   gemm.every_case gemm.one_hot gemm_dx.every_case gemm_dx.one_hot golden.

$(BUILD)/test_fourbit_static: $(SUITE_OBJS) $(VALIDATE_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) -static $^ -lcunit -pthread $(LIB_LIBS) -o $@

.PHONY: test-avx512
test-avx512: bootstrap ## the AVX-512 path's tests on an emulated processor (Bochs; ten to twenty minutes)
	@$(MAKE) --no-print-directory $(PARALLEL) BUILD=$(EMULATE_BUILD) CUDA=0 EMULATED=1 $(EMULATE_BUILD)/test_fourbit_static
	@validate/emulate/run.sh $(EMULATE_BUILD)/machine $(EMULATE_SECONDS) \
	    'status=0; for t in $(EMULATE_TESTS); do FOURBIT_GOLDEN=/golden FOURBIT_TEST_SCALE=0.02 FOURBIT_CPU=avx512 /test_fourbit_static --backend cpu --filter $$t || status=1; done; exit $$status' \
	    $(EMULATE_BUILD)/test_fourbit_static validate/golden
