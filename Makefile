# `make demo` and `make test` do all their set-up themselves; everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/installed
	$(BIN)/glideslope demo

# Where the processor has more than AVX2, models and drawing first as without it, which both libraries imitate when told to; then everything.
test: .venv/installed
	@if grep -qw avx512f /proc/cpuinfo 2>/dev/null; then \
	    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/pytest tests -m processors -n 2 --dist loadfile; \
	else echo "No wider instructions than AVX2 here: the whole suite runs on the older kind of processor."; fi
	$(BIN)/pytest tests -n 2 --dist loadfile --no-loadscope-reorder

# mypy follows folders, not the mapping of an editable install, so it is shown the package as it installs.
lint: .venv/installed
	$(BIN)/ruff check .
	rm -rf build/types && mkdir -p build/types/glideslope
	ln -s $(CURDIR)/glideslope/* $(foreach room,data_filter models model_cards release recipes,$(CURDIR)/$(room)) build/types/glideslope/
	MYPYPATH=build/types $(BIN)/mypy -p glideslope

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"glideslope needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info
