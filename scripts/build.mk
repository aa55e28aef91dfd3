.PHONY: bootstrap
bootstrap: ## install what is missing (apt); NO_INSTALL=1 only lists it
	@scripts/bootstrap.sh

.PHONY: ab ab-null
ab: ## is this tree slower than BASE=<revision>? builds both, times them in turn (NEW= FILTER= ROUNDS= THREADS= PROFILE= BACKENDS=)
	+@BASE='$(BASE)' NEW='$(or $(NEW),.)' FILTER='$(FILTER)' PROFILE='$(PROFILE)' BACKENDS='$(BACKENDS)' CUDA='$(CUDA)' OUT='$(or $(OUT),build/ab)' \
	    scripts/ab.sh
ab-null: ## does it cry wolf, does it see 5 %? a revision against itself 20 times, and against a slower copy (REVISION= RUNS= ...)
	+@CUDA='$(CUDA)' OUT='$(or $(OUT),build/ab-null)' scripts/ab-null.sh
