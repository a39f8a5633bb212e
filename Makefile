# Two commands do everything: `make demo` and `make test`. ARGS are handed on, e.g. ARGS=--once.
.PHONY: setup demo test check bench protos contracts card pictures lock clean
PY := .venv/bin/python

setup: .venv/ready

.venv/ready: requirements.lock requirements-models.lock pyproject.toml scripts/setup.sh
	sh scripts/setup.sh
	touch $@

demo: setup
	@sh scripts/setup.sh --demo
	@$(PY) -m openpool demo $(ARGS)

test: setup
	sh scripts/setup.sh --test
	$(PY) -m pytest $(ARGS)

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup
	$(PY) -m benchmarks $(ARGS)

protos: setup
	$(PY) -m grpc_tools.protoc -Iopenpool/wire --python_out=openpool/wire --pyi_out=openpool/wire livepeer.proto

contracts: setup
	sh scripts/setup.sh --test
	node scripts/contracts.js

card:
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1200,630 --screenshot=openpool/web/static/card.png docs/images/card.svg

pictures: setup
	sh scripts/setup.sh --test
	$(PY) tests/pictures.py

lock:
	.venv/bin/python -m pip install -q uv
	.venv/bin/uv pip compile -q pyproject.toml --extra gpu --extra ai --extra kokoro --group dev --universal --generate-hashes --no-emit-index-url --no-header -o requirements.lock

clean:
	rm -rf .venv data demo-data
