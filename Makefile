# The two doors are `make run` and `make test`: each does all the set-up that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The locks are complete, so pip has nothing to resolve.
INSTALL := requirements/install.sh $(BIN)/python
SITE := config/site.toml
# Only the drivers of the kinds that the configuration names: a house of plugs needs no compiler for SPI.
DRIVERS = $(wildcard $(addprefix requirements/,$(addsuffix .txt,$(shell sed -n 's/^[[:space:]]*kind[[:space:]]*=[[:space:]]*"\([a-z0-9_]*\)".*/\1/p' $(SITE) config/conf.d/*.toml 2>/dev/null | sort -u))))
TESTS ?= -m "not long"
# Only /etc belongs to root.
AS_ROOT = $(if $(or $(DESTDIR),$(filter 0,$(shell id -u))),,sudo)
SERVICE ?=

.DEFAULT_GOAL := help
.PHONY: help run install install-service uninstall-service setup-influxdb verify delete-buckets test test-long test-hardware faults soak check format types example dashboards peers lock bench clean

help: ## this list
	@echo "wattherd: herds every electricity meter of a home or a workshop"; echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20 | sed 's/^/  make /'

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "wattherd needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "try: sudo apt install python3-venv" >&2; rm -rf $(VENV); exit 2; }

$(VENV)/.base: requirements/base.txt requirements/page.txt | $(BIN)/pip
	@echo "installing the packages that every house needs (locked, with hashes)"
	@$(INSTALL) requirements/base.txt requirements/page.txt
	@touch $@

$(VENV)/.driver-%: requirements/%.txt | $(VENV)/.base
	@echo "installing the packages for $*"
	@$(INSTALL) $<
	@touch $@

$(VENV)/.dev: requirements.txt $(wildcard requirements/*.txt) | $(BIN)/pip
	@echo "installing all packages and the developers' tools (locked, with hashes)"
	@$(INSTALL) requirements.txt requirements/dev.txt
	@touch $(VENV)/.base $@

run: $(VENV)/.base $(patsubst requirements/%.txt,$(VENV)/.driver-%,$(DRIVERS)) ## start the house: config/site.toml, or the demo house where there is none
	@exec $(BIN)/python orchestrator.py run

install: $(VENV)/.base $(patsubst requirements/%.txt,$(VENV)/.driver-%,$(DRIVERS)) ## set up the virtual environment and the drivers that the configuration names

install-service: install ## start the house with the machine, by systemd (asks nothing; DESTDIR=… only writes)
	@$(AS_ROOT) $(BIN)/python orchestrator.py service install $(if $(DESTDIR),--destdir "$(DESTDIR)") $(SERVICE)

uninstall-service: ## stop it and take its units away; data and configuration stay
	@$(AS_ROOT) $(BIN)/python orchestrator.py service uninstall $(if $(DESTDIR),--destdir "$(DESTDIR)")

setup-influxdb: $(VENV)/.base $(VENV)/.driver-influx ## make buckets, tasks and tokens in the InfluxDB that .env or the configuration names
	@$(BIN)/python orchestrator.py influx setup

verify: $(VENV)/.base $(VENV)/.driver-influx ## look at everything, outputs there and back; without a config/site.toml at the InfluxDB of .env
	@$(BIN)/python orchestrator.py $(if $(wildcard $(SITE)),verify,influx verify)

delete-buckets: $(VENV)/.base $(VENV)/.driver-influx ## delete the buckets with all that is in them; asks first
	@$(BIN)/python orchestrator.py influx delete-buckets

# They start some thousand processes, each of which would compile everything anew if none kept what it compiled.
test: $(VENV)/.dev ## every test that needs no hardware and no patience (REQUIRE_PEERS=1: a missing server is a failure)
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 4 --dist worksteal $(TESTS)

test-long: $(VENV)/.dev ## proofs that take longer: the README's way in an empty folder, every alert broken, a backup put back
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 3 --dist worksteal -m long

check: $(VENV)/.dev ## format, lint, types, architecture
	@$(BIN)/ruff format --check --quiet . || { echo "try: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(VENV)/.dev ## format the code and mend what lint can mend
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

faults: $(VENV)/.dev ## the fault lab: kills, outages, full and damaged disks, power cuts … (EXPERIMENTS="kills stops" for some)
	@$(BIN)/python -m tests.faults.lab $(EXPERIMENTS)

soak: $(VENV)/.dev ## ten times the load for twenty minutes (MINUTES=1440 for a day): does anything go on growing?
	@$(BIN)/python -m tests.faults.lab soak --minutes $(or $(MINUTES),20)

# Status 77: this machine lacks what it takes, and says what. With REQUIRE_PEERS=1 that is a failure.
test-hardware: $(VENV)/.dev ## GPIO, SPI, I2C and serial through real kernel drivers, in a virtual machine
	@$(BIN)/python -m tests.virtual_hardware $(TESTS_HARDWARE) || { status=$$?; [ $$status -eq 77 ] && [ "$(REQUIRE_PEERS)" != 1 ]; }

bench: $(VENV)/.dev ## what it costs, against peers and budgets (BENCHES="pipeline drain" for some, QUICK=1 only tries them)
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(BENCHES)

example: $(VENV)/.dev ## write config/example.toml anew from the docstrings
	@$(BIN)/python orchestrator.py example > config/.example.toml && mv config/.example.toml config/example.toml

dashboards: $(VENV)/.dev ## write the dashboards of deploy/grafana anew (CURRENCY=EUR)
	@$(BIN)/python deploy/grafana/generate.py --currency $(or $(CURRENCY),GBP)

peers: ## install the servers that the tests talk to (Debian; sudo unless root)
	@tests/peers/install.sh

lock: ## lock the packages anew (needs uv)
	@requirements/lock.sh

clean: ## remove the virtual environment and the caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
