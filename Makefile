# Two commands set up everything: `make demo` and `make test`. The rest is for those who change the code.
.DEFAULT_GOAL := help
.PHONY: help demo test thorough explore check catalogues coverage docs e2e wheels wheels-cuda sbom e2e-container bench clean

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

help:  ## Say what can be made
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | column -t -s '|'

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (some minutes the first time)"
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@$(INSTALL) --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## Draw three phantom hospitals and run a private federated study on them
	$(BIN)/consilium experiment=demo

# Tests start hundreds of processes: Python keeps what it has compiled of the sources, whatever it does elsewhere.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.installed  ## Run the tests (minutes)
	$(BIN)/python -m pytest --numprocesses 4 --dist loadscope --no-loadscope-reorder -rs -m "not thorough"

thorough: $(VENV)/.installed  ## The costly cases that `make test` leaves out: every task, every network, kill after kill
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope -rs -m thorough

explore: $(VENV)/.installed  ## Run the property tests on new random cases; report what fails as an @example
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=explore

check: $(VENV)/.installed  ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

e2e: $(VENV)/.installed  ## Run the slow tests: a real PACS, real processes, a real browser (installs Debian packages)
	$(INSTALL) --editable '.[dev,e2e,sweep]'
	$(BIN)/python -m pytest tests/e2e

catalogues: $(VENV)/.installed  ## Extract what people read into tasks/machine/catalogues, for translation
	$(VENV)/bin/python -m tests.catalogues

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.installed  ## Build the documentation as a site: build/documentation/index.html
	$(BIN)/mkdocs build

coverage: $(VENV)/.installed  ## Simulate how often intervals hold the truth; rewrite the tables of server/STATISTICS.md (REPETITIONS=100)
	$(BIN)/python -m tests.simulations --repetitions "$(or $(REPETITIONS),100)"

bench: $(VENV)/.installed  ## Measure, print tables, write benchmarks/*.json
	$(INSTALL) --editable '.[dev,bench]'
	$(BIN)/python -m tests.benchmarks

wheels: $(VENV)/.installed  ## Make all wheels of a release for the images' Python (ENGINE=docker, TORCH_INDEX=...)
	@rm -rf wheels build
	@git rev-parse HEAD > tasks/commit.txt  # images have no Git
	TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m tests.container.wheels "$(or $(ENGINE),podman)"; \
	  status=$$?; rm -rf tasks/commit.txt tasks/phantoms/build; exit $$status

wheels-cuda: $(VENV)/.installed  ## The same for the hospital's image with CUDA, in wheels-cuda (TORCH_INDEX=...)
	@rm -rf wheels-cuda build
	@git rev-parse HEAD > tasks/commit.txt
	TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m tests.container.wheels "$(or $(ENGINE),podman)" cuda; \
	  status=$$?; rm -rf tasks/commit.txt tasks/phantoms/build; exit $$status

sbom: $(VENV)/.installed  ## List what is in the built images, with licences; fail on one that is not permitted (ENGINE=docker)
	$(INSTALL) --editable '.[dev,container]'
	$(BIN)/python -m tests.container.sbom "$(or $(ENGINE),podman)" outputs/sbom consilium-site consilium-server

e2e-container: wheels  ## Build both images, check their hardening, play a study between them (root; installs Debian packages)
	$(INSTALL) --editable '.[dev,container]'
	$(BIN)/python -m pytest tests/container

clean:  ## Remove the environment and all results
	rm -rf $(VENV) outputs benchmarks wheels wheels-cuda build *.egg-info
