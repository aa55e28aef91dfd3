# Each room below adds its programs to TESTS and TOOLS.
-include validate/suites.mk validate/checkpoint/build.mk validate/fuzz/build.mk validate/simt/build.mk validate/train/build.mk validate/train/state.mk validate/emulate/build.mk validate/plugin_example/build.mk validate/gates/build.mk
