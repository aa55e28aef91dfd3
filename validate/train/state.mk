# What a training run keeps: pager, optimizer, checkpoints, Hugging Face folders, adapters, text; and their tests. The
# objects are among TRAIN_OBJS (build.mk) as well; here they are linked without the model.
TRAIN_STATE_OBJS := $(addprefix $(BUILD)/validate/train/,pager.o pager_host.o pager_gpu.o optimizer.o sha256.o text.o tokenizer.o tokenizer_split.o \
                      train_checkpoint.o hf_config.o hf_load.o hf_save.o peft.o spike.o spike_host.o) $(CHECKPOINT_OBJS)
$(BUILD)/validate/train/optimizer.o: EXTRA_FLAGS = $(OPENMP) -O3
$(BUILD)/validate/train/text.o $(BUILD)/validate/train/sha256.o: EXTRA_FLAGS = -O3
$(BUILD)/validate/train/test_tokenizer.o: EXTRA_FLAGS = -DTOKENIZER_GOLDEN='"validate/train/golden/tokenizer.golden.json"'

TRAIN_STATE_TESTS := $(addprefix $(BUILD)/validate/train/,test_state.o test_text.o test_tokenizer.o test_pager.o test_optimizer.o \
                       test_train_checkpoint.o test_hf.o test_peft.o test_gpu_runtime.o test_pager_gpu.o \
                       test_spike.o spike_host.o)
$(BUILD)/validate/test_train_state: $(TRAIN_STATE_TESTS) $(BUILD)/validate/checkpoint/test_files.o $(TRAIN_STATE_OBJS) \
                                    $(addprefix $(BUILD)/bench/,device_host.o timing.o) $(LIB)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -lcunit -ljansson $(LIB_LIBS) -o $@
TESTS += $(BUILD)/validate/test_train_state

# The spike test with its times: on the host, and where there is nvcc on a GPU.
SPIKE_OBJS := $(BUILD)/validate/train/spike_main.o $(TRAIN_STATE_OBJS)
ifneq (,$(CUDA_OBJS))
SPIKE_OBJS += $(BUILD)/bench/device_cuda.cu.o $(BUILD)/validate/train/gpu_runtime_cuda.cu.o
$(BUILD)/validate/train/gpu_runtime_cuda.cu.o: validate/train/gpu_runtime_cuda.cu validate/train/gpu_runtime.h
	@mkdir -p $(@D)
	$(call say,NVCC $<)
	$(Q)$(NVCC) -ccbin $(CXX) $(CPPFLAGS) $(filter-out --resource-usage -MMD -MP,$(NVCC_FLAGS)) $(CUDA_GENCODE) -c $< -o $@
endif
$(BUILD)/bin/fourbit-spike: $(SPIKE_OBJS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD $@)
	$(Q)$(CC) $(LDFLAGS) $^ -ljansson -lstdc++ $(LIB_LIBS) -o $@
TOOLS += $(BUILD)/bin/fourbit-spike
