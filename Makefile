# lalia: `make demo` to hear it, `make test` to check it. Both make their own environment.

SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := $(or $(LALIA_VENV),.venv)
BIN := $(VENV)/bin
CLIP := examples/question.flac

# pip shows errors and no chatter.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore
INSTALL := $(BIN)/python -m pip install -qq
# torch goes in first and alone, so that no other package chooses its build.
TORCH ?= $(shell grep '^torch==' constraints.txt)

.PHONY: help demo test check bench clean

help:
	@echo "make demo    install lalia into $(VENV), then ask its bundled model a spoken question"
	@echo "make test    check format, lint and types, then run the tests"
	@echo "make check   the fast half of that: format, lint, types"
	@echo "make bench   speed and memory beside named peers; NAMES=--quick for a first impression"
	@echo "make clean   remove what make made"

demo: export TIMEFORMAT = (%1R s, start-up included)
demo: $(VENV)/.installed
	@for weights in whisper-tiny.en smollm2-135m-instruct smart-turn; do $(BIN)/lalia fetch $$weights >/dev/null || exit; done
	time $(BIN)/lalia chat $(CLIP) -o reply.wav
	@echo
	@echo "Listen to    $(CLIP)    the question,"
	@echo "             reply.wav                 the answer."
	@echo "Your own:    $(BIN)/lalia chat RECORDING -o reply.wav"
	@echo "Live:        $(BIN)/lalia serve    and a page at http://127.0.0.1:8998/"
	@echo "Typed:       $(BIN)/lalia chat --text \"Tell me a story.\""
	@echo "No words:    $(BIN)/lalia continue examples/prompt.flac -o continuation.wav"
	@echo "All else:    $(BIN)/lalia --help"

# Processes that share the tests between them; each takes a core and up to 2 GB.
JOBS ?= 2

# The tests use no network; the weights that they compare with are brought before they start.
test: check
	@for weights in whisper-tiny.en whisper-base smollm2-135m-instruct dnsmos smart-turn resemblyzer distillmos; do $(BIN)/lalia fetch $$weights >/dev/null || exit; done
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

check: $(VENV)/.installed-dev
	@$(BIN)/python tools/check_environment.py
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy --no-error-summary

# Some twenty minutes; NAMES="tokenize generate" takes two groups, --quick less of each.
bench: $(VENV)/.installed-dev
	@$(INSTALL) -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(NAMES)

clean:
	@if [ -e $(VENV)/.made ]; then rm -rf $(VENV); else rm -f $(VENV)/.installed $(VENV)/.installed-dev; fi
	@rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache reply.wav
	@find . -name __pycache__ -type d -not -path '*/.venv*' -prune -exec rm -rf {} +

$(BIN)/pip:
	@bash tools/make_venv.sh $(PYTHON) $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing lalia into $(VENV) (the first time takes some minutes) ..."
	@$(INSTALL) --upgrade pip
	@$(INSTALL) "$(TORCH)"
	@$(INSTALL) -c constraints.txt -e '.[server]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the development tools ..."
	@$(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@
