# Every target sets up what it needs in .venv; `make` alone prints this help.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# uv installs the same packages several times faster; where it cannot be had, pip does it
install = { $(PIP) install uv && $(BIN)/uv pip install --quiet --python $(BIN)/python $(1); } || $(PIP) install $(1)
# importing TensorFlow takes three times as long where Python may not keep what it compiled
unexport PYTHONDONTWRITEBYTECODE
# networks allocate and free large arrays all the time: in large pages that takes a fifth less of the whole time
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# three workers on two cores, as some tests wait for a network or a disk; each gets whole files, whose tests share
# networks; the ten slowest tests are listed
PYTEST := -q -n 3 --dist loadfile --no-loadscope-reorder --durations=10
# networks as small as those of the tests gain nothing from threads that wait for each other
ONE_THREAD := TF_NUM_INTRAOP_THREADS=1 OMP_NUM_THREADS=1
.DELETE_ON_ERROR:
.PHONY: help run results links bench scaling demo test test-all lint style types clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/ready  ## notebooks 01 to 06 on a small part of the scans (or on synthetic images), in minutes, into build/run/
	@$(BIN)/python tools/run_notebooks.py --preset $(or $(PRESET),$(BRAINTUMOR_PRESET),sample) --into build/run --notebooks '0[1-6]_*'

results: .venv/ready  ## the six main notebooks on all scans, into notebooks/ and results/, in hours (PRESET=cpu-scratch, cpu or full)
	@$(BIN)/python tools/run_notebooks.py $(if $(PRESET),--preset $(PRESET)) --into notebooks
	@$(BIN)/python tools/draw_readme_figures.py
	@$(BIN)/python tools/update_docs.py

bench: .venv/ready-bench .venv/ready-demo  ## speed beside other ways to do the same, in 20 minutes; needs the scans, installs 5 GB
	@$(BIN)/python benchmarks/bench.py
	@$(BIN)/python benchmarks/transfer_stages.py
	@$(BIN)/python benchmarks/waiting.py
	@$(BIN)/python tools/update_docs.py

scaling: .venv/ready-dev  ## costs of a scan, and what more scans and machines would take, in 15 minutes
	@$(BIN)/python benchmarks/scaling.py
	@$(BIN)/python tools/update_docs.py

demo: .venv/ready-demo  ## a page to try a classifier on a scan, on this machine only (MODEL=file)
	@$(BIN)/python tools/demo.py $(if $(MODEL),--model "$(MODEL)")

links: .venv/ready  ## write REPO=owner/name, where this repository is published, into all badges and clone lines
	@$(BIN)/python tools/set_repository.py $(or $(REPO),$(error name it: make links REPO=owner/name))
	@$(BIN)/python tools/update_docs.py

test: .venv/ready-dev style  ## style, unit and property tests, the main notebooks on synthetic images: 4 to 8 minutes
	@$(ONE_THREAD) $(BIN)/python -m pytest $(PYTEST) -m 'not slow'

test-all: .venv/ready-dev .venv/ready-demo lint  ## the same with coverage, and what takes minutes: other notebooks, killed processes
	@$(ONE_THREAD) $(BIN)/python -m pytest $(PYTEST) --cov

lint: style types build/audit.txt  ## style, docstrings and types; known weaknesses of the dependencies are listed
types: .venv/ready-dev
	@$(BIN)/mypy
style: .venv/ready-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

# anew when the dependencies change; what it finds is shown and stops nobody, nor does a missing network
build/audit.txt: .venv/ready-dev
	@mkdir -p build
	@$(BIN)/pip-audit --local --skip-editable --progress-spinner off --timeout 5 >$@ 2>&1 \
	  || grep -E '^Found [0-9]+ known|(GHSA|PYSEC|CVE)-' $@ || echo "dependencies not audited: PyPI does not answer"

clean:  ## remove everything that runs made (never data/ or results/)
	rm -rf build data/.download-* .pytest_cache .ruff_cache .hypothesis .coverage

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv \
	  || { echo "Python's venv module is needed: sudo apt install python3-venv"; exit 1; }
	@echo "installing the requirements into .venv (once, up to 3 minutes) ..."
	@$(call install,-r requirements.txt -e .)
	@touch $@

.venv/ready-bench: .venv/ready
	@$(call install,-e '.[bench]')
	@touch $@

.venv/ready-demo: .venv/ready
	@$(call install,-e '.[demo]')
	@touch $@

.venv/ready-dev: .venv/ready
	@$(call install,-e '.[dev]')
	@touch $@
