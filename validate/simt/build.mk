# The SIMT executor: libsimt.a (not instrumented) and test_simt (kernels instrumented). README.md has the why.
#
# SIMT_LIB           what a program that launches kernels links
# SIMT_KERNEL_FLAGS  how a translation unit with kernels is compiled: every load and store announced to hooks.cpp.
#                    Vectorisation off, so that an access in the source is an access in the counters (clang's unrolling
#                    too, which #pragma unroll then asks for in vain: -Wno-pass-failed). No strict aliasing:
#                    kernels read floats as uint4 all the time, and nvcc's device code may.
# Neither part is built with SANITIZE's flags: address sanitizer does not know our stack switches, and thread sanitizer's
# hooks are what we replace.

SIMT_LIB      := $(BUILD)/libsimt.a
SIMT_LIB_LIBS := -lpthread -ldl
SIMT_COMMON   := -std=c++20 -g -Wall -Wextra $(WERROR) -ffp-contract=off -fno-math-errno -fPIC -Ivalidate/simt
SIMT_CORE_FLAGS := $(SIMT_COMMON) -O2 -ftree-vectorize
SIMT_KERNEL_OPT ?= -O2
ifneq (,$(findstring clang,$(CXX)))
SIMT_KERNEL_FLAGS := $(SIMT_COMMON) $(SIMT_KERNEL_OPT) -fno-strict-aliasing -fsanitize=thread -mllvm -tsan-instrument-func-entry-exit=0 -fno-vectorize \
                     -fno-slp-vectorize -fno-unroll-loops -mllvm -disable-vector-combine -Wno-unknown-pragmas -Wno-pass-failed
else
SIMT_KERNEL_FLAGS := $(SIMT_COMMON) $(SIMT_KERNEL_OPT) -fno-strict-aliasing -fsanitize=thread --param tsan-instrument-func-entry-exit=0 -fno-tree-vectorize \
                     -fno-tree-slp-vectorize -Wno-unknown-pragmas -Wno-psabi
endif

SIMT_TEST_SOURCES := $(wildcard validate/simt/test_simt*.cpp)
SIMT_CORE_SOURCES := $(filter-out validate/simt/test_%.cpp,$(wildcard validate/simt/*.cpp))
SIMT_CORE_OBJS    := $(SIMT_CORE_SOURCES:%.cpp=$(BUILD)/%.o)
SIMT_TEST_OBJS    := $(SIMT_TEST_SOURCES:%.cpp=$(BUILD)/%.o)

$(SIMT_CORE_OBJS): $(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_CORE_FLAGS) -MMD -MP -c $< -o $@

$(SIMT_TEST_OBJS): $(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_KERNEL_FLAGS) -MMD -MP -c $< -o $@

# One object whose templates are its own. The linker merges equal template instances of all units and keeps the first one it
# meets: an instrumented std::vector from a kernel's unit would end up inside the executor and be checked like a kernel.
$(SIMT_LIB): $(SIMT_CORE_OBJS)
	@rm -f $@
	$(Q)ld -r --force-group-allocation -o $(@:.a=.o) $^
	$(Q)nm $(@:.a=.o) | awk '$$2 ~ /^[WVu]$$/ { print $$3 }' > $(@:.a=.local)
	$(Q)objcopy --localize-symbols=$(@:.a=.local) $(@:.a=.o)
	$(Q)ar rcs $@ $(@:.a=.o)

$(BUILD)/validate/test_simt: $(SIMT_TEST_OBJS) $(SIMT_LIB)
	@mkdir -p $(@D)
	$(Q)$(CXX) $^ -lcunit $(SIMT_LIB_LIBS) -o $@

# The library's kernels (CUDA_SIMT_OBJS: kernels/cuda/build.mk) through its API: a program of its own, it needs libfourbit.
$(BUILD)/validate/simt/test_kernels.o: validate/simt/test_kernels.cpp
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(SIMT_CORE_FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/validate/test_simt_kernels: $(BUILD)/validate/simt/test_kernels.o $(CUDA_SIMT_OBJS) $(SIMT_LIB) $(LIB)
	$(Q)$(CXX) $^ -lcunit $(LIB_LIBS) $(SIMT_LIB_LIBS) $(LDFLAGS) -o $@

TESTS += $(BUILD)/validate/test_simt $(BUILD)/validate/test_simt_kernels

-include validate/simt/ptx.mk
