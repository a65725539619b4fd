# Each target sets up .venv by itself. PYTHON=/path/to/python chooses the interpreter that makes it.
PYTHON ?=
RECORDINGS ?=
CANDIDATES = $(PYTHON) python3.11 python3.12 python3.13 python3
BIN = .venv/bin

requirement-demo = .[report]
requirement-test = .[test,lint]

.DEFAULT_GOAL := help
.PHONY: help demo demo-model quick test soak bench lint venv constraints

help:
	@echo "make demo   annotate the bundled corpus into demo/out/annotated, and demo/out/report.html"
	@echo "make quick  the tests that need no Ray cluster, but for the slow ones, in two processes"
	@echo "make test   every check and test: make lint, all that needs no Ray, then whole jobs on Ray"
	@echo "make soak   the slow tests and the jobs, with longer recordings, more kills and more damage"
	@echo "make lint   the checks alone: ruff, mypy"
	@echo "make bench  every measurement of speed and memory, in half an hour: tables in bench/out"
	@echo "make demo-model   train the demo's checkpoints anew (RECORDINGS=folder: on recorded digits too)"
	@echo "make venv   .venv with everything that development needs"
	@echo "make constraints   pin the versions that .venv has"

demo: .venv/.installed-demo
	$(BIN)/python jobs/annotate.py --input demo/corpus --output demo/out/annotated \
	    --transcribe demo/checkpoint --classify demo/classify --diarize demo/diarize --embed demo/embed \
	    --report demo/out/report.html

demo-model: venv
	$(BIN)/python demo/make_training.py demo/out/training $(if $(RECORDINGS),--recordings $(RECORDINGS))
	$(BIN)/python jobs/finetune.py --config demo/recipe/1-easy.yaml
	$(BIN)/python jobs/finetune.py --config demo/recipe/2-all.yaml
	$(BIN)/python jobs/finetune.py --config demo/recipe/3-voices.yaml
	$(BIN)/python demo/keep.py demo/out/model/2-all demo/out/model/3-voices

quick: venv
	$(BIN)/python -m pytest -m "not ray and not slow" -n 2 --dist worksteal

test: lint
	$(BIN)/python -m pytest -m "not ray" -n 2 --dist worksteal
	$(BIN)/python -m pytest -m ray -n 2 --dist loadfile --no-loadscope-reorder

soak: venv
	W2VBERT_SOAK=1 $(BIN)/python -m pytest -m "slow or ray"

# A bench that fails does not keep the others from running; short modes, where a bench has a longer one.
BENCH ?= bench/out
RECORD = --date $$(date -u +%F) --output $(BENCH)
bench: venv
	@mkdir -p $(BENCH)
	-$(BIN)/python -m bench.start --runs 3 $(RECORD)/start.md
	-$(BIN)/python -m bench.whole_job --sizes 300 2700 --long 60 $(RECORD)/whole-job.md
	-$(BIN)/python -m bench.stages $(RECORD)/stages.md
	-$(BIN)/python -m bench.encoder_layer --repeats 3 $(RECORD)/encoder-cpu.md
	-$(BIN)/python -m bench.dtype $(RECORD)/dtype.md
	-$(BIN)/python -m bench.attention_memory --frames 1000 2000 4000 $(RECORD)/attention-memory.md
	-$(BIN)/python -m bench.training --repeats 3 $(RECORD)/training.md
	-$(BIN)/python -m bench.one_pass --layers 4 --seconds 60 --repeats 2 $(RECORD)/one-pass.md
	-$(BIN)/python -m bench.memory_flat --clips 1000 4000 $(RECORD)/memory-flat.md
	-$(BIN)/python -m bench.scale --shards 2000 $(RECORD)/scale.md
	-$(BIN)/python -m bench.scale --shards 400 --jobs $(RECORD)/scale-jobs.md

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

venv: .venv/.installed-test

.venv/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what pyproject.toml names for '$*', in the versions of constraints.txt ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --editable '$(requirement-$*)'
	@touch $@

# After the tests passed with other versions than those that are pinned. Builds of PyTorch differ only behind a "+".
constraints: venv
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed -n 's/^\([^ ]*==[^+ ]*\).*/\1/p' > constraints.txt

# A half-made environment would look finished to the next run, so a failure takes it away.
$(BIN)/python:
	@for python in $(CANDIDATES); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Making .venv with $$($$python --version) ..."; \
	        $$python -m venv .venv && exit 0; \
	        rm -rf .venv; \
	        echo "$$python cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)." >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "No Python 3.11 or newer among: $(strip $(CANDIDATES))." >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1
