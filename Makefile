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
	  echo "$(WORLD) is finished already. Continue it with: $(PHOTOWALK) extend $(WORLD) --path \"left 40deg, back to start\""; \
	  echo "To start over: make clean-world. To make another: make world WORLD=out/other PHOTO=..."; \
	else \
	  $(PHOTOWALK) generate "$(PHOTO)" -o "$(WORLD)" --seed "$(SEED)" \
	    $(if $(WALK),--path "$(WALK)") $(if $(PROMPT),--prompt "$(PROMPT)") && \
	  $(PHOTOWALK) reconstruct "$(WORLD)" && \
	  echo "Done: $(WORLD)/walk.mp4, $(WORLD)/preview.png, $(WORLD)/scene/splats.ply"; \
	fi

test: lint
	$(RUN) pytest

lint: .venv/installed-dev
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) ty check

format: .venv/installed-dev
	$(RUN) ruff check --fix
	$(RUN) ruff format

clean-world:
	rm -rf "$(WORLD)"

clean:
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt scripts/setup_venv.py
	$(PYTHON) scripts/setup_venv.py --torch-index "$(TORCH_INDEX)"

.venv/installed-dev: .venv/installed
	$(PYTHON) scripts/setup_venv.py --torch-index "$(TORCH_INDEX)" --extra dev
