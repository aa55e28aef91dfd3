LIB_OBJS += $(patsubst %.c,$(BUILD)/%.o,$(wildcard reference/*.c))
