# Each target installs its own requirements into .venv. `soak` (without SCHEDULER), `traces`, `run` and
# `bench` need only Python 3.10 or newer; the HTML pages of `run` and `bench` also need Bokeh.
#
#   PYTHON=python3.12   the Python that creates .venv and runs the benchmarks
#   ARGS='...'          more arguments for the command: make test ARGS='-k map -x'
#   SEEDS=10000         number of runs of make soak
#   REV=HEAD            the commit that make bench-compare compares with
#   SCHEDULER=tcp://HOST:PORT   scheduler of a Dask cluster, to run make soak there

PYTHON = python3
# Stamp files: .venv has the packages for the tests, or those for a run's HTML page.
VENV = .venv/ready
PAGE = .venv/page
SEEDS = 1000
RUN = test -w lin-kv --bin raft.py --time-limit 10 --rate 10 --node-count 1 --concurrency 2n
REV = HEAD

# These targets run many tests, so they write no HTML page for each.
mutants directed crashes agreement same-bytes: export MAELSTROM_REPORT = no

.PHONY: help run report test check soak mutants traces bench bench-compare directed crashes
.PHONY: failover agreement same-bytes maelstrom clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

run:  ## the tutorial's first command: one node, ten seconds
	@$(MAKE) --no-print-directory $(PAGE) || echo "make: this run will have no report.html; to write it later: make report"
	@echo ./maelstrom $(RUN) $(ARGS)
	@./maelstrom $(RUN) $(ARGS); status=$$?; page=store/latest/report.html; \
	  test ! -e $$page || echo "file://$$PWD/$$page"; exit $$status

report: $(PAGE)  ## write report.html of the latest run, or of others: make report ARGS='store/lin-kv/...'
	./maelstrom report $(ARGS)

test: $(VENV)  ## run the tests
	.venv/bin/python -m pytest -n auto $(ARGS)

check: $(VENV)  ## run ruff and mypy --strict
	.venv/bin/ruff check
	.venv/bin/mypy --strict

soak: $(if $(SCHEDULER),$(VENV))  ## run many simulated tests on all cores: make soak SEEDS=10000
	@PYTHONPATH=.:tests $(if $(SCHEDULER),.venv/bin/python,$(PYTHON)) -m workbench.soak --seeds $(SEEDS) \
	  $(if $(SCHEDULER),--scheduler $(SCHEDULER)) $(ARGS)

bench:  ## measure throughput, latency and CPU of raft.py: tables and a page, in three minutes
	$(PYTHON) tests/bench/bench.py $(ARGS)

bench-compare:  ## compare the CPU and latency of two commits: make bench-compare REV=HEAD~5
	$(PYTHON) tests/bench/compare.py $(ARGS) -- '$(REV)'

directed:  ## inject faults at chosen moments in real nodes: make directed ARGS=new-leader
	$(PYTHON) tests/bench/directed.py $(ARGS)

crashes:  ## kill, pause and load real nodes: make crashes ARGS='rounds --rounds 10'
	$(PYTHON) tests/bench/crashes.py $(ARGS)

failover:  ## measure the time to a new leader, in 600 simulated failovers
	$(PYTHON) tests/bench/failover.py $(ARGS)

agreement:  ## compare real with simulated runs: five minutes on an idle machine
	$(PYTHON) tests/bench/agreement.py $(ARGS)

same-bytes:  ## check that a seed gives the same bytes in each Python (3.10 to 3.13 on the PATH)
	$(PYTHON) tests/bench/same_bytes.py $(ARGS)

mutants: $(VENV)  ## remove one rule at a time from raft.py; each must be caught: make mutants ARGS=lease
	nice .venv/bin/python tests/mutants.py $(ARGS)

traces:  ## rewrite tests/traces after an intended change of behaviour; check with git diff
	PYTHONPATH=.:tests $(PYTHON) tests/traces.py

maelstrom:  ## install the real Maelstrom in .maelstrom/ (it needs java)
	@$(PYTHON) tests/workbench/install.py

clean:  ## remove .venv and caches; keep store/ (your results) and .maelstrom/
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV): tests/requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .venv
	$(PIP) --quiet -r $<
	@touch $(PAGE) $@

$(PAGE): tests/requirements.txt
	@$(CHECK_PYTHON)
	@echo "make: installing Bokeh into .venv, for report.html (only once)"
	@$(PYTHON) -m venv .venv
	@$(PIP) --retries 1 --timeout 10 $$(grep '^bokeh==' $<)
	@touch $@

PIP = .venv/bin/python -m pip install --disable-pip-version-check
define CHECK_PYTHON
$(PYTHON) -c 'import sys, ensurepip; assert sys.version_info >= (3, 10)' 2>/dev/null || { \
  echo "make: $(PYTHON) must be Python 3.10 or newer with its venv module:" \
    "apt-get install python3-venv, or make PYTHON=python3.12" >&2; exit 1; }; \
test ! -L .venv || { echo "make: .venv is a link, and make would empty its target: remove the link" >&2; exit 1; }
endef
