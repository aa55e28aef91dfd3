# fourbit: `make help` lists the targets. Each room has a build.mk that says what is built there.
#
#   kernels/   libfourbit: formats, public API, CPU and CUDA backends
#   reference/ the plain C backend that says what the others must compute
#   validate/  tests, checkpoint tools, fuzz targets, SIMT executor, training loop
#   bench/     benchmarks and peers
#   plots/     pictures from results
#   scripts/   set-up
#
# Variables a fragment may use: BUILD, CC, CXX, CFLAGS, CXXFLAGS, CPPFLAGS, LDFLAGS, OPENMP, LIB (libfourbit.a),
# LIB_LIBS (what it needs), PKG (pkg-config --libs of …); it adds to LIB_OBJS, TESTS (programs that `make test`
# runs; exit status is the verdict), TOOLS, and HEADERS is automatic (-MMD).

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# ---- configuration ---------------------------------------------------------------------------------------------

CC       := $(if $(filter default,$(origin CC)),gcc,$(CC))
CXX      := $(if $(filter default,$(origin CXX)),g++,$(CXX))
SANITIZE ?=
BUILD    ?= build$(if $(SANITIZE),/sanitize)$(if $(findstring clang,$(CC)),/clang)
PREFIX   ?= /usr/local
WERROR   ?= -Werror
VERSION  := $(shell sed -n 's/.*FB_VERSION "\(.*\)"/\1/p' kernels/fourbit.h)
PKG       = $(shell pkg-config --libs $(1) 2>/dev/null)

OPENMP   := -fopenmp
comma    := ,
CPPFLAGS := -Ikernels -I. -D_GNU_SOURCE
# One rounding where one is written: no contraction to fma, no fast-math.
COMMON   := -O2 -g -Wall -Wextra $(WERROR) -ffp-contract=off -fno-math-errno -fPIC \
            $(if $(SANITIZE),-fsanitize=address$(comma)undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
CFLAGS   := -std=c11 -Wmissing-prototypes -Wstrict-prototypes
CXXFLAGS := -std=c++17
LDFLAGS  := $(if $(SANITIZE),-fsanitize=address$(comma)undefined)
LIB      := $(BUILD)/libfourbit.a
LIB_LIBS := $(OPENMP) -lm -ldl

LIB_OBJS :=
TESTS    :=
TOOLS    :=

include reference/build.mk kernels/build.mk validate/build.mk bench/build.mk plots/build.mk scripts/build.mk

# What a target builds, it builds on all cores, unless make was given a -j of its own.
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

# V=1 prints whole command lines.
Q   := $(if $(V),,@)
say  = $(if $(V),,@echo '  $(1)')

# ---- how things are built -----------------------------------------------------------------------------------------

# Objects are made anew when the way they are made changes (another compiler in the same folder, CUDA=0 …).
CONFIG := $(BUILD)/config
WAY    := $(shell $(CC) --version 2>/dev/null | head -n 1) | $(CPPFLAGS) $(COMMON) $(CFLAGS) $(CXXFLAGS) | $(LIB_LIBS)
$(shell mkdir -p $(BUILD); printf '%s\n' '$(WAY)' | cmp -s - $(CONFIG) || printf '%s\n' '$(WAY)' > $(CONFIG))

$(BUILD)/%.o: %.c $(CONFIG)
	@mkdir -p $(@D)
	$(call say,CC $<)
	$(Q)$(CC) $(CPPFLAGS) $(COMMON) $(CFLAGS) $(EXTRA_FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/%.o: %.cc $(CONFIG)
	@mkdir -p $(@D)
	$(call say,CXX $<)
	$(Q)$(CXX) $(CPPFLAGS) $(COMMON) $(CXXFLAGS) $(EXTRA_FLAGS) -MMD -MP -c $< -o $@

$(LIB): $(LIB_OBJS)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/libfourbit.so: $(LIB_OBJS) kernels/fourbit.map
	$(Q)$(CC) -shared -Wl,-soname,libfourbit.so.0 -Wl,--version-script=kernels/fourbit.map $(LDFLAGS) $(LIB_OBJS) $(LIB_LIBS) -o $@

-include $(shell find $(BUILD) -name '*.d' -not -path '$(BUILD)/sanitize/*' -not -path '$(BUILD)/clang/*' 2>/dev/null)

# ---- front door ------------------------------------------------------------------------------------------------------

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | sort -t'	' -k1,1 | awk -F'\t' '{printf "  make %-20s %s\n", $$1, $$2}'

all: lib $(TESTS) $(TOOLS) ## build everything, run nothing
lib: $(LIB) $(BUILD)/libfourbit.so ## the static and the shared library

test: bootstrap ## install what is missing, build, run every test suite
	@$(MAKE) --no-print-directory $(PARALLEL) run-tests

sanitize: bootstrap ## the test suites under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory $(PARALLEL) SANITIZE=1 run-tests

DEST := $(DESTDIR)$(PREFIX)
install: lib ## the library, its headers and fourbit.pc, under PREFIX (/usr/local)
	install -d $(DEST)/include/fourbit $(DEST)/lib/pkgconfig
	install -m 644 kernels/fourbit.h kernels/fourbit_plugin.h kernels/formats.h kernels/dropout.h $(DEST)/include/fourbit/
	install -m 644 $(LIB) $(DEST)/lib/
	install -m 755 $(BUILD)/libfourbit.so $(DEST)/lib/libfourbit.so.$(VERSION)
	ln -sf libfourbit.so.$(VERSION) $(DEST)/lib/libfourbit.so.0
	ln -sf libfourbit.so.0 $(DEST)/lib/libfourbit.so
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|; s|@PRIVATE@|$(LIB_LIBS)|' kernels/fourbit.pc.in \
	    > $(DEST)/lib/pkgconfig/fourbit.pc

lint: ## cppcheck and shellcheck (installs them)
	@scripts/bootstrap.sh --with lint
	@scripts/lint.sh

clean: ## remove what was built (results in bench/results stay)
	rm -rf build

.PHONY: help all lib test run-tests sanitize install lint clean
run-tests: $(TESTS)
	@scripts/run-tests.sh $(TESTS)
