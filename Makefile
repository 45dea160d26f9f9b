# `make world` and `make test` need python3 (>= 3.11) and make; the first call makes .venv and installs into it.
#
#   make world                        walk into the example photo; the result lies in out/world
#   make world PHOTO=my.jpg           walk into your own
#   make world WALK="left 30deg, back to start"        choose the walk
#   make test                         lint, types, tests
#   make clean-world                  delete out/world
#
# More variables: WORLD (the folder to make), PROMPT, SEED, PYTHON (the interpreter that .venv is made from),
# TORCH_INDEX (the address of a package index to take torch from, for instance PyTorch's own index of CPU builds).

PYTHON ?= python3
PHOTO ?= examples/photo/hall.jpg
WORLD ?= out/world
WALK ?=
PROMPT ?=
SEED ?= 0
TORCH_INDEX ?=

RUN := .venv/bin/python -m
PHOTOWALK := .venv/bin/photowalk

.PHONY: world test lint format clean-world clean

world: .venv/installed
	@if [ -e "$(WORLD)/scene/splats.ply" ]; then \
	  echo "$(WORLD) is finished. Walk on: $(PHOTOWALK) extend $(WORLD) --path \"left 40deg, back to start\""; \
	  echo "Start over: make clean-world world. Make another: make world PHOTO=my.jpg WORLD=out/mine"; \
	  exit; \
	fi; \
	if [ ! -e "$(WORLD)/world.json" ]; then \
	  $(PHOTOWALK) generate "$(PHOTO)" -o "$(WORLD)" --seed "$(SEED)" \
	    $(if $(WALK),--path "$(WALK)") $(if $(PROMPT),--prompt "$(PROMPT)"); \
	elif [ ! -e "$(WORLD)/walk.mp4" ]; then \
	  echo "$(WORLD) was interrupted; continuing" && $(PHOTOWALK) extend "$(WORLD)"; \
	fi && $(PHOTOWALK) reconstruct "$(WORLD)"

test: lint
	$(RUN) pytest -n 2 --dist loadfile

lint: .venv/installed-dev
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) ty check

format: .venv/installed-dev
	$(RUN) ruff check --fix
	$(RUN) ruff format

clean-world:
	@if [ -e "$(WORLD)/world.json" ]; then rm -rf "$(WORLD)"; else echo "$(WORLD) is no world; nothing was deleted"; fi

clean:
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt scripts/setup_venv.py
	$(PYTHON) scripts/setup_venv.py --torch-index "$(TORCH_INDEX)"

.venv/installed-dev: .venv/installed
	$(PYTHON) scripts/setup_venv.py --torch-index "$(TORCH_INDEX)" --extra dev
