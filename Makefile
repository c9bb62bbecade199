# The same commands under the names that make users expect.
.PHONY: demo test lint
demo:
	./run-demo
test:
	./run-tests
lint:
	scripts/set-up search,hub,dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
