# The door. Everything runs in .venv, which `setup` makes and keeps up to date.
PYTHON := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench campaign teachers policies clean

help:
	@echo "make demo      set up, then train, evaluate, release, drive, update, report (demo/report.html)"
	@echo "make test      set up, then lint, types, import rules and the whole test suite"
	@echo "make bench     all benchmarks against their targets (QUICK=1: within 45 s each)"
	@echo "make campaign  the long ones: policies against all baselines over 1,000 trips, fidelity, adversaries, mutants, firmware, kills"
	@echo "make teachers  train the policies that teach them anew, five seeds (build/teachers; about an hour)"
	@echo "make policies  train the shipped policies anew, five seeds (build/policies; 25 minutes)"
	@echo "make lint      ruff, mypy, import rules"
	@echo "make clean     remove everything that was made"

setup:
	@python3 tools/setup.py

demo: setup
	$(PYTHON) -m outrider.cli demo --out demo

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

test: lint
	@python3 tools/setup.py --tests
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone"
	$(PYTHON) -m pytest -m alone

bench: setup
	$(PYTHON) -m benchmarks.run_all $(if $(QUICK),--quick)

campaign: setup
	$(PYTHON) -m outrider.cli evaluate trainer/policies --floors 84 --robots 3 --people 5 --trips 4 --physics wheeled \
		--out build/campaign/evaluation
	$(PYTHON) -m outrider.cli evaluate trainer/policies/seed-0.onnx --fidelity --out build/campaign/fidelity
	$(PYTHON) -m benchmarks.adversary
	$(PYTHON) -m outrider.cli firmware soak --fuzz-bytes 1e9 --differential 1e6 --frames 1e7 --cuts 1 --stops 250
	$(PYTHON) -m tools.fuzz_python --bytes 1e9
	$(PYTHON) -m benchmarks.watchdogs --realtime
	$(PYTHON) -m tools.coverage_cores
	OUTRIDER_KILLS=100 $(PYTHON) -m pytest -s tests/system/test_kill.py
	OUTRIDER_TALLY=build/campaign OUTRIDER_UPDATE_KILLS=1000 $(PYTHON) -m pytest -s tests/system/test_update_kills.py
	OUTRIDER_TALLY=build/campaign OUTRIDER_HONEST_UPDATES=10000 $(PYTHON) -m pytest -s tests/system/test_honest_updates.py
	OUTRIDER_BAD_LINES=40 $(PYTHON) -m pytest -s tests/system/test_bad_lines.py
	OUTRIDER_POWER_CUTS=2000 $(PYTHON) -m pytest -s --timeout 7200 tests/hub/test_power_cuts.py
	OUTRIDER_POWER_EVERY=1 $(PYTHON) -m pytest -s --timeout 3600 tests/agent/test_update_power.py
	OUTRIDER_UPLINK_KILLS=1000 $(PYTHON) -m pytest -s --timeout 14400 tests/recorder/test_uplink_kills.py
	$(PYTHON) -m tools.mutation
	$(PYTHON) -m tools.mutation --room serial
	$(PYTHON) -m tools.mutation_c
	$(PYTHON) -m tools.mutation_c --equivalent

teachers: setup
	$(PYTHON) -m outrider.cli train --config trainer/policies/teachers/config.yaml --seeds 5 --parallel 2 \
		--steps 22000000 --out build/teachers
	$(PYTHON) tools/ship_policies.py build/teachers trainer/policies/teachers

policies: setup
	$(PYTHON) -m outrider.cli train --config trainer/policies/config.yaml --seeds 5 --parallel 2 --steps 100000 \
		--out build/policies
	$(PYTHON) tools/ship_policies.py build/policies trainer/policies

clean:
	rm -rf .venv build ros_ws/build ros_ws/install ros_ws/log demo benchmarks/results *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
