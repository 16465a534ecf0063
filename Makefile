# Everything a developer or a newcomer runs. `make` alone lists the targets.
GO          ?= go
# Pinned here and run by version, so that a linter's own needs never stand
# among the module's.
STATICCHECK ?= $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Later versions need modules that not every proxy hands out.
NFPM        ?= $(GO) run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.1
FUZZTIME    ?= 30s
DIST        ?= dist

.DEFAULT_GOAL := help
.PHONY: help setup build test sweep demo bench lint fuzz dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building with PC/SC and testing need (Debian, as root)
	@./scripts/setup.sh

# A C compiler and libpcsclite make the build with PC/SC possible; without
# them the program has everything but physical cards.
build: ## build bin/freearea, with PC/SC where libpcsclite is installed
	@set -e; \
	if command -v "$$($(GO) env CC)" >/dev/null 2>&1 && pkg-config --exists libpcsclite 2>/dev/null; then \
		CGO_ENABLED=1 $(GO) build -o bin/freearea ./cmd/freearea; \
		echo 'built bin/freearea with PC/SC'; \
	else \
		CGO_ENABLED=0 $(GO) build -o bin/freearea ./cmd/freearea; \
		echo 'built bin/freearea WITHOUT PC/SC: libpcsclite or a C compiler is missing ("make setup" installs both)'; \
	fi

# Windows has PC/SC without cgo; Linux without cgo is what `make demo` builds.
# FREEAREA_REQUIRE_PCSC=1 makes the tests of the PC/SC stack fail, where they
# would otherwise be skipped, when the stack is not there,
# FREEAREA_REQUIRE_SOFTHSM=1 those of the keystore in a token,
# FREEAREA_REQUIRE_TRACING=1 those that kill the program at a system call,
# FREEAREA_REQUIRE_MOUNTING=1 those of disks that are full or read-only,
# FREEAREA_REQUIRE_CHROMIUM=1 those of pages in a browser,
# FREEAREA_REQUIRE_MOSQUITTO=1 those with an MQTT broker, and
# FREEAREA_REQUIRE_PACKAGES=1 those of the release's archives and the Debian
# package; the release is made before, so that its tests find everything compiled, and
# Windows is built in the same way. The tests come last: their closing lines are
# the outcome.
test: setup ## install what is missing, then lint, build for every system, run all tests
	@$(MAKE) --no-print-directory lint
	CGO_ENABLED=1 $(GO) build ./...
	CGO_ENABLED=0 GOOS=linux $(GO) build ./...
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) build -trimpath -buildvcs=false ./...
	@$(MAKE) --no-print-directory dist
	CGO_ENABLED=1 FREEAREA_REQUIRE_PCSC=1 FREEAREA_REQUIRE_SOFTHSM=1 FREEAREA_REQUIRE_CHROMIUM=1 FREEAREA_REQUIRE_MOSQUITTO=1 FREEAREA_REQUIRE_PACKAGES=1 FREEAREA_REQUIRE_TRACING=1 FREEAREA_REQUIRE_MOUNTING=1 $(GO) test ./... </dev/null

# The sweeps that are a part of `make test` take some of the places only. What
# is printed is one line of JSON; the exit status is 1 when anything was lost.
sweep: ## cut cards and stop the program at every place of every flow, and go on
	@CGO_ENABLED=1 $(GO) run ./internal/sweep/run

# Built without cgo so that Go and make are all that a newcomer needs.
demo: ## build, then issue three applications to an embedded card and read them back
	CGO_ENABLED=0 $(GO) build -o bin/freearea ./cmd/freearea
	@echo 'built bin/freearea without PC/SC, which the demo does not need ("make build" adds it)'
	bin/freearea demo

bench: ## run the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem -timeout 60m ./...

lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l .) && [ -z "$$out" ] || { echo "not formatted by gofmt:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

# go test fuzzes one target of one package at a time.
fuzz: ## run every fuzz test for FUZZTIME (default 30s) each
	@set -e; for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

# The archives are the same bytes for the same sources, Go and C compiler.
dist: ## archives for Linux (amd64, arm64) and Windows, Debian packages and their sums, in dist/
	@NFPM='$(NFPM)' ./scripts/dist.sh $(DIST) $(TARGETS)

clean: ## remove what was built
	rm -rf bin dist
