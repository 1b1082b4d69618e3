# Verbs for people and for CI alike. Only make and Python >= 3.11 are needed: uv is fetched from PyPI when missing.
.PHONY: up down docs test faults check
.DEFAULT_GOAL := up

UV := $(shell command -v uv 2>/dev/null || echo $(CURDIR)/.stripe-platform/tools/uv)
RUN := $(UV) run --locked --all-extras

up: .env
	@$(RUN) stripe-platform up

down: .env
	@$(RUN) stripe-platform down

docs: .env
	@$(RUN) stripe-platform docs

test: $(UV)
	@$(RUN) pytest --numprocesses 2 --dist loadfile --durations 15

# Twenty seeds of what `make test` tries with two; docs/faults.md has the result.
faults: $(UV)
	@FAULT_SEEDS=20 $(RUN) pytest stripe_platform_tests/integration/test_documents_killed.py --verbose

check: $(UV)
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) sqlfluff lint stripe_platform/oltp/migrations
	@cd dbt && $(RUN) sqlfluff lint models macros tests

.env: | $(UV)
	@sed 's|@ROOT@|$(CURDIR)|' .env.example > .env

$(UV):
	@python3 stripe_platform/local/fetch_uv.py $(UV)
