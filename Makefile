# Each target makes .venv if it is missing and installs what it needs from constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The reference implementation, for parity tests. Its own requirements are older than ours.
REFERENCE := sc2bench==0.1.1 torchdistill==1.1.5
# The version that the published CR+BQ models belong to; two cannot share an environment.
OLD_REFERENCE := sc2bench==0.0.3 torchdistill==0.3.3

RESULTS := benchmarks/results/flowers
FAMILY := $(notdir $(wildcard zoo/weights/*))
DATA ?= flowers
RUNS ?= runs

.PHONY: demo demo-link test test-all servers check docs gallery bench cards matrix family family-cards lock clean

demo: .venv/.base
	rm -rf demo-out
	$(BIN)/splitzoo demo -o demo-out

# A server and a device as two processes, over a link of 37.5 kbit/s, beside JPEG.
demo-link: .venv/.serve
	rm -rf demo-out/link
	$(BIN)/splitzoo demo-link -o demo-out/link

# Two processes of one thread each: the small networks of the tests gain nothing from more threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: .venv/.dev
	$(PYTEST) -m "not slow"

test-all: .venv/.dev
	$(PYTEST)

# Servers that tests of `make test-all` run, each in an environment of its own: Triton Inference Server, of a
# wheel of NVIDIA's that needs numpy < 2, and Ray, which is half a gigabyte.
servers: build/servers/triton build/servers/ray

build/servers/triton:
	$(PYTHON) -m venv $@
	$@/bin/pip install -q nvidia-pytriton==0.7.0 'numpy<2' onnxruntime pillow constriction || (rm -rf $@; false)

build/servers/ray:
	$(PYTHON) -m venv $@
	$@/bin/pip install -q './splitrun[onnxruntime,fast,ray]' || (rm -rf $@; false)

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layout.py tests/test_generated.py
	$(MAKE) docs

# The documentation site, in site/: a broken link or an undocumented name fails.
docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --clean

# The static site of the carried models' cards, in build/gallery/index.html.
gallery: .venv/.gallery
	$(BIN)/splitzoo cards gallery cards/generated -o build/gallery --force

# PHOTOS is a folder of images to measure with. FLOWERS holds train/ and val/, to see what int8
# costs trained models.
bench: .venv/.dev
	$(BIN)/python benchmarks/speed.py $(if $(PHOTOS),--photos $(PHOTOS))
	$(if $(FLOWERS),$(BIN)/python benchmarks/int8_accuracy.py --flowers $(FLOWERS))

# The cards of the packaged models, from the results in benchmarks/, what lists show, and the table
# of the zoo; then what the cards say is computed again, accuracy and bytes where DATA is there.
# `python -m benchmarks.matrix cards` writes the cards again without measuring.
cards: family-cards
	$(BIN)/python -m benchmarks.matrix zoo '*' -o cards/generated/zoo.md
	$(BIN)/splitzoo cards verify cards/generated/*/
	$(if $(wildcard $(DATA)/val),$(BIN)/splitzoo cards verify --no-bundle --data $(DATA)/val \
	  $(wildcard cards/generated/$(notdir $(DATA))-*/))

family-cards: .venv/.dev
	rm -rf build/cards && mkdir -p build/cards
	for model in $(FAMILY); do \
	  mkdir -p build/cards/$$model cards/generated/$$model && \
	  $(BIN)/splitzoo export split $$model -o build/cards/$$model/bundle && \
	  (cd build/cards/$$model && ../../../$(BIN)/splitzoo profile encoder bundle -o profile.json) && \
	  cp build/cards/$$model/bundle/manifest.json build/cards/$$model/profile.json \
	    cards/generated/$$model || exit 1; \
	done
	$(BIN)/python -m benchmarks.matrix results
	$(BIN)/python -m benchmarks.matrix cards

# What can be exported to which target, and what may be mixed. PHOTOS: a folder of images.
matrix: .venv/.dev
	$(BIN)/python -m benchmarks.matrix targets $(if $(PHOTOS),--images $(PHOTOS)) -o cards/generated/targets.md
	$(BIN)/python -m benchmarks.matrix runtimes $(if $(PHOTOS),--images $(PHOTOS)) -o cards/generated/runtimes.md

# DATA holds train/ and val/; RUNS what `splitzoo zoo train NAME -o RUNS/NAME` wrote.
family: .venv/.dev
	$(BIN)/python -m benchmarks.flowers_family --data $(DATA) --runs $(RUNS)
	rm -rf $(RESULTS)/figure
	$(BIN)/splitzoo profile tradeoff $(RESULTS) -o $(RESULTS)/figure --against "JPEG input"
	$(BIN)/python benchmarks/flowers_findings.py

lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --upgrade pip
	build/lock/bin/python -m pip install -e '.[dev,tensorrt-rtx]'
	build/lock/bin/python -m pip install --no-deps $(REFERENCE)
	build/lock/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -rf build/lock

clean:
	rm -rf .venv build dist site *.egg-info demo-out .pytest_cache .ruff_cache .hypothesis

.venv/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q -c constraints.txt -e .
	touch $@

.venv/.serve: .venv/.base
	$(PIP) install -q -c constraints.txt -e '.[serve]'
	touch $@

.venv/.gallery: .venv/.base
	$(PIP) install -q -c constraints.txt -e '.[gallery]'
	touch $@

.venv/.dev: .venv/.base
	$(PIP) install -q -c constraints.txt -e '.[dev,tensorrt-rtx]'
	$(PIP) install -q -c constraints.txt --no-deps $(REFERENCE)
	$(PIP) install -q --no-deps --upgrade --target .venv/sc2bench-0.0.3 $(OLD_REFERENCE)
	touch $@
