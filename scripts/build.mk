.PHONY: bootstrap
bootstrap: ## install what is missing (apt); NO_INSTALL=1 only lists it
	@scripts/bootstrap.sh
