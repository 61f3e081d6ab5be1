# Each target sets up what it needs. `soak` (without SCHEDULER), `bench` and `traces` need Python 3.10
# or newer and nothing else; nor do `run` and `bench`, but for their pages.
#
#   PYTHON=python3.12   which Python makes the .venv and runs the benchmarks
#   ARGS='...'          more words for the command: make test ARGS='-k map -x'
#   SEEDS=10000         how many runs make soak
#   REV=HEAD            what make bench-compare compares with
#   SCHEDULER=tcp://HOST:PORT   of a Dask cluster that makes them

PYTHON = python3
# What the tests need is there, and what the page of a run needs.
VENV = .venv/ready
PAGE = .venv/page
SEEDS = 1000
RUN = test -w lin-kv --bin raft.py --time-limit 10 --rate 10 --node-count 1 --concurrency 2n
REV = HEAD

# Nobody looks at the page of each of these runs.
mutants directed crashes agreement same-bytes: export MAELSTROM_REPORT = no

.PHONY: help run report test check soak mutants traces bench bench-compare directed crashes
.PHONY: failover agreement same-bytes maelstrom clean

help:  ## list the targets (this)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

run:  ## the tutorial's first command: one node, ten seconds
	@$(MAKE) --no-print-directory $(PAGE) || echo "make: the run does without its page; make report writes it later"
	@echo ./maelstrom $(RUN) $(ARGS)
	@./maelstrom $(RUN) $(ARGS); status=$$?; page=store/latest/report.html; \
	  test ! -e $$page || echo "file://$$PWD/$$page"; exit $$status

report: $(PAGE)  ## report.html of the latest run, or of others: make report ARGS='store/lin-kv/...'
	./maelstrom report $(ARGS)

test: $(VENV)  ## run the tests
	.venv/bin/python -m pytest -n auto $(ARGS)

check: $(VENV)  ## ruff and mypy --strict
	.venv/bin/ruff check
	.venv/bin/mypy --strict

soak: $(if $(SCHEDULER),$(VENV))  ## many simulated runs, on all cores: make soak SEEDS=10000
	@PYTHONPATH=.:tests $(if $(SCHEDULER),.venv/bin/python,$(PYTHON)) -m workbench.soak --seeds $(SEEDS) \
	  $(if $(SCHEDULER),--scheduler $(SCHEDULER)) $(ARGS)

bench:  ## what an operation costs, and how that grows: three minutes, tables and a page
	$(PYTHON) tests/bench/bench.py $(ARGS)

bench-compare:  ## the same costs now and at another commit: make bench-compare REV=HEAD~5
	$(PYTHON) tests/bench/compare.py $(ARGS) -- '$(REV)'

directed:  ## faults at chosen moments, and what clients see: make directed ARGS=failover
	$(PYTHON) tests/bench/directed.py $(ARGS)

crashes:  ## kills, pauses, many writes, many keys: make crashes ARGS='rounds --rounds 10'
	$(PYTHON) tests/bench/crashes.py $(ARGS)

failover:  ## the leader is cut off 600 times, simulated: how long until the others serve
	$(PYTHON) tests/bench/failover.py $(ARGS)

agreement:  ## do real and simulated runs give the same figures? five minutes on an idle machine
	$(PYTHON) tests/bench/agreement.py $(ARGS)

same-bytes:  ## the same seeds in several Pythons (3.10 to 3.13 on the PATH), byte for byte
	$(PYTHON) tests/bench/same_bytes.py $(ARGS)

mutants: $(VENV)  ## take one rule at a time out of raft.py, and see it noticed: make mutants ARGS=lease
	nice .venv/bin/python tests/mutants.py $(ARGS)

traces:  ## after a wanted change of behaviour: play the scenes anew, and see git diff
	PYTHONPATH=.:tests $(PYTHON) tests/traces.py

maelstrom:  ## install the real Maelstrom under .maelstrom/ (it needs java)
	@$(PYTHON) tests/workbench/install.py

clean:  ## remove .venv and caches; store/ (your results) and .maelstrom/ stay
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV): tests/requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .venv
	$(PIP) --quiet -r $<
	@touch $(PAGE) $@

$(PAGE): tests/requirements.txt
	@$(CHECK_PYTHON)
	@echo "make: what the page of a run needs comes into .venv, once"
	@$(PYTHON) -m venv .venv
	@$(PIP) --retries 1 --timeout 10 $$(grep '^bokeh==' $<)
	@touch $@

PIP = .venv/bin/python -m pip install --disable-pip-version-check
define CHECK_PYTHON
$(PYTHON) -c 'import sys, ensurepip; assert sys.version_info >= (3, 10)' 2>/dev/null || { \
  echo "make: $(PYTHON) must be Python 3.10 or newer with its venv module:" \
    "apt-get install python3-venv, or make PYTHON=python3.12" >&2; exit 1; }; \
test ! -L .venv || { echo "make: .venv is a link, and what it leads to would be emptied" >&2; exit 1; }
endef
