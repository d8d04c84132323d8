# A page in front of CMake. `make help` lists the targets.
BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
NAME    ?= smollm2
SECONDS_PER_TARGET ?= 600
ROUNDS  ?= 3
JOBS    ?= $(shell nproc)
FLAGS   ?=
CONFIGURE = cmake -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(FLAGS)
DEMO_QUESTION = Explain in two sentences why the sky is blue.

all: ## build/onetrip, the library and the tests (Release)
	$(CONFIGURE) -S . -B $(BUILD)
	cmake --build $(BUILD) -j $(JOBS)

deps: ## install the Debian packages that are missing
	sh tools/deps.sh

model: deps ## fetch a model into the cache: NAME=smollm2 or gemma3
	sh tools/fetch_model.sh $(NAME)

synthetic: ## make a model of random weights: NAME=llama-1b-q4_0 (tools/synthetic.sh lists them)
	sh tools/deps.sh python3-venv
	sh tools/synthetic.sh $(NAME)

demo: deps ## build, fetch SmolLM2 and ask it a question
	@mkdir -p $(BUILD)
	@echo "building takes a minute or two; its output goes to $(BUILD)/demo.log"
	@$(MAKE) --no-print-directory all >$(BUILD)/demo.log 2>&1 || { cat $(BUILD)/demo.log; exit 1; }
	@sh tools/fetch_model.sh smollm2 >/dev/null
	$(BUILD)/onetrip run smollm2 --temp 0 -n 128 -p "$(DEMO_QUESTION)"

test: deps ## the whole suite
	$(MAKE) all
	sh tools/fetch_model.sh smollm2
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

asan: deps ## the whole suite under ASan and UBSan
	$(CONFIGURE) -DOT_SANITIZE=ON -S . -B $(BUILD)-asan
	cmake --build $(BUILD)-asan -j $(JOBS)
	sh tools/fetch_model.sh smollm2
	ctest --test-dir $(BUILD)-asan --output-on-failure -j $(JOBS)

fuzz: ## every libFuzzer target for SECONDS_PER_TARGET=600
	sh tools/deps.sh $$(sh tools/fuzz.sh --packages)
	sh tools/fuzz.sh $(BUILD)-fuzz $(SECONDS_PER_TARGET)

aarch64: ## the kernels' tests for aarch64, cross-compiled and run under qemu
	sh tools/deps.sh gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
	sh tests/kernel_aarch64.sh . $(BUILD)-aarch64

cgroup2: all ## the budget in control groups of version 2, in an emulated machine (minutes)
	sh tools/deps.sh qemu-system-x86 busybox-static cpio e2fsprogs
	sh tests/cgroup2/prove.sh $(BUILD) "$$(sh tools/fetch_model.sh smollm2)"

bench: all ## speed on the models in the cache
	@found=0; for model in smollm2 gemma3; do \
		if $(BUILD)/onetrip inspect $$model >/dev/null 2>&1; then found=1; $(BUILD)/onetrip bench $$model || exit; fi; \
	done; [ $$found = 1 ] || { echo "no model in the cache: make model fetches one"; exit 1; }

bench-peers: all ## onetrip and its peers (which it builds) on the models in the cache; also see synthetic; ROUNDS=3
	ROUNDS=$(ROUNDS) sh bench/compare/all.sh

install: all ## PREFIX=/usr/local, DESTDIR
	DESTDIR=$(abspath $(DESTDIR)) cmake --install $(BUILD)

uninstall: ## remove what the last make install wrote, DESTDIR as it was then
	DESTDIR=$(abspath $(DESTDIR)) cmake --build $(BUILD) --target uninstall

clean: ## remove what was built
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-fuzz $(BUILD)-aarch64

help:
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## /\1            |/p' Makefile | sed 's/^\(.\{12\}\)[^|]*|/  make \1 /'

.PHONY: all deps model synthetic demo test asan fuzz aarch64 cgroup2 bench bench-peers install uninstall clean help
