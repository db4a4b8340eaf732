# `make demo` and `make test` install everything they need. `make help` lists all targets.
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin/python
ARGS   ?=
BPF_CC ?= clang -O2 -g0 -target bpf -mcpu=v3 -Wall -Werror

INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r
OR_EXPLAIN  := || { echo "The packages could not be installed: see the reason above. Check that the package index is reachable, and try again."; exit 1; }

.DELETE_ON_ERROR: # an incomplete environment is useless
.PHONY: help demo stop up test style types tests bench-api bench-revoke bench-matchmaking bench-placement bench-probing bench-packets bench-flood bench-one-address bench-direct bench-find-match bench-failover bench-relay-failure nat-lab attack fuzz fuzz-paths xdp lock release-check settings-page docs clean

help:            ## list all targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 18

demo: $(VENV)/.run    ## start everything on this machine, match four players and let them play (ARGS=--once: then stop)
	@$(RUN) tools/demo.py $(ARGS)

stop:            ## stop what `make demo` started
	@if [ -e $(VENV)/.run ]; then $(RUN) tools/demo.py --stop; else echo "Nothing is running."; fi

up: $(VENV)/.run      ## run manager, worker, beat, matchmaker and three nodes in the foreground
	@$(RUN) manage.py up $(ARGS)

test: $(VENV)/.dev    ## everything CI checks: style, types, and the tests on SQLite and on PostgreSQL + Redis
	@VENV=$(VENV) .ci/check

style: $(VENV)/.dev   ## ruff
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

types: $(VENV)/.dev   ## mypy
	@$(VENV)/bin/mypy

tests: $(VENV)/.dev   ## the tests, on SQLite only (ARGS: for pytest)
	@$(RUN) -m pytest $(ARGS)

bench-matchmaking: $(VENV)/.dev ## generated players against matchmaking profiles, and how long a pass takes (ARGS=--speed)
	@$(RUN) -m bench.matchmaking $(ARGS)

bench-revoke: $(VENV)/.dev ## how soon a revoked player is cut off, over 100 rounds
	@$(RUN) -m bench.revoke $(ARGS)

bench-api: $(VENV)/.dev       ## the load that the manager sustains with 10,000 live sessions, on PostgreSQL + Redis (ARGS="--sessions N --rate N")
	@$(RUN) -m bench.api $(ARGS)

bench-placement: $(VENV)/.dev  ## regret of placement against other rules (ARGS="--data FOLDER": your own latencies)
	@OPENBLAS_NUM_THREADS=1 $(RUN) -m bench.placement $(ARGS)

bench-probing: $(VENV)/.dev    ## what the telemetry of 500 nodes costs the worker (ARGS="--nodes N --legs N --rounds N --sqlite")
	@OPENBLAS_NUM_THREADS=1 $(RUN) -m bench.probing $(ARGS)

bench-packets: $(VENV)/.dev   ## what a packet costs on each path (root, gcc, clang; ARGS="--with-coturn --quick")
	@$(RUN) -m bench.packets $(ARGS)

bench-flood: $(VENV)/.dev     ## a million spoofed packets beside a game (root, gcc, clang)
	@$(RUN) -m bench.flood $(ARGS)

bench-failover: $(VENV)/.dev  ## what players notice when a worker of their node is killed (ARGS="--players N --rounds N")
	@$(RUN) -m bench.failover $(ARGS)

bench-relay-failure: $(VENV)/.dev    ## how fast players leave a relay that died, and how often for no reason (ARGS="--rounds N --hours N")
	@$(RUN) -m bench.relay_failure $(ARGS)

bench-one-address: $(VENV)/.dev ## 2,000 players behind one address: connecting, coming back, probing (ARGS="--players N")
	@$(RUN) -m bench.one_address $(ARGS)

bench-direct: $(VENV)/.dev    ## direct paths in figures: upgrade, failures, moves, CPU (ARGS="--runs N")
	@$(RUN) -m bench.direct_paths $(ARGS)

bench-find-match: $(VENV)/.dev ## what 500 searches for a match at once cost one web process (ARGS="--players N --default-limits")
	@$(RUN) -m bench.find_match $(ARGS)

nat-lab: $(VENV)/.dev         ## which NATs direct paths get through, and how fast (root, nftables; ARGS="--runs N --scenarios NAME ..."; docs/nat-lab.md)
	@if command -v npm >/dev/null && [ ! -e natlab/players/webrtc/node_modules ]; then \
		npm ci --silent --no-audit --no-fund --prefix natlab/players/webrtc; fi
	@$(RUN) -m natlab $(ARGS)

attack: $(VENV)/.dev          ## attacks on a real stack beside a tenant that must not notice (ARGS="--seconds N --rounds N NAME ...")
	@$(RUN) -m tests.attacks $(ARGS)

fuzz: $(VENV)/.dev            ## mutate the corpus of tests/fuzz, and keep what is new (ARGS="--seconds 600 --target native")
	@$(RUN) -m tests.fuzz.driver $(ARGS)

fuzz-paths: $(VENV)/.dev      ## ten million random packets through both packet paths (root; ARGS="--packets N --seed N")
	@$(RUN) -m tests.relaynode.datapath.xdp.test_differential $(ARGS)

xdp:             ## compile the XDP program (clang)
	@$(BPF_CC) -c relaynode/datapath/xdp/relay.bpf.c -o relaynode/datapath/xdp/relay.bpf.o

lock: $(VENV)/.dev    ## compile the pinned requirements from pyproject.toml
	@$(VENV)/bin/uv pip compile -q --python-version 3.11 --generate-hashes pyproject.toml -o requirements.txt
	@$(VENV)/bin/uv pip compile -q --python-version 3.11 --generate-hashes --group dev -c requirements.txt \
		-o tests/requirements.txt

release-check:         ## check that every image is pinned to its digest, as a release requires
	@python3 deploy/pin_images.py --check --release

settings-page: $(VENV)/.run   ## write docs/settings.md from the code
	@$(RUN) tools/settings_page.py > docs/settings.md.new && mv docs/settings.md.new docs/settings.md

console-screenshot: $(VENV)/.dev ## take docs/assets/console.png of a fleet on this machine (Chromium)
	@$(RUN) -m tools.console_screenshot $(ARGS)

docs: $(VENV)/.dev    ## build the documentation into var/site
	@$(VENV)/bin/mkdocs build --quiet

clean:           ## remove the virtual environment and the embedded state
	rm -rf $(VENV) var

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Causeway needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo missing)."; \
		echo "Choose another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "This Python has no venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Creating a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# All parts use the client package. pip's hash mode refuses a folder, which has no hash, so it is installed separately.
$(VENV)/.run: requirements.txt transports/python/pyproject.toml | $(VENV)/bin/python
	@echo "Installing what Causeway runs on (about half a minute)"
	@$(INSTALL) requirements.txt $(OR_EXPLAIN)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e transports/python
	@touch $@

$(VENV)/.dev: tests/requirements.txt $(VENV)/.run
	@echo "Installing what the tests need (about half a minute)"
	@$(INSTALL) tests/requirements.txt $(OR_EXPLAIN)
	@touch $@
