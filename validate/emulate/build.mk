# The suites on an emulated AVX-512 processor; one thread, so the tests of concurrency are left to real ones.
$(BUILD)/emulate/test_fourbit: $(SUITE_OBJS) $(VALIDATE_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(CC) -static $^ -lcunit -pthread $(LIB_LIBS) -o $@

EMULATE_SECONDS ?= 900
EMULATE_SUITES ?= quantize. dequantize. double_quant. blockwise8. gemm. gemm_dx. golden.
.PHONY: test-avx512
test-avx512: $(BUILD)/emulate/test_fourbit ## the AVX-512 path's tests on an emulated processor (Bochs; a few minutes)
	@validate/emulate/run.sh $(BUILD)/emulate $(EMULATE_SECONDS) \
	    'status=0; for s in $(EMULATE_SUITES); do FOURBIT_GOLDEN=/golden FOURBIT_TEST_SCALE=0.02 FOURBIT_CPU=avx512 /test_fourbit --backend cpu --filter $$s || status=1; done; exit $$status' \
	    $(BUILD)/emulate/test_fourbit validate/golden
