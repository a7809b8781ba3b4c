# Frontdesk. `make help` lists what there is; each target says in a line what it does.
SHELL := /bin/bash
.DEFAULT_GOAL := help


.PHONY: help docs storybook pictures build demo test lint bench conformance attacks servers crash model fuzz container images tools budgets kms keycloak helm

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

build: ## build ./bin/frontdesk
	@CGO_ENABLED=0 go build -trimpath -o bin/frontdesk ./cmd/frontdesk

demo: ## play the whole story in a browser; AUTO=1 plays it without a person and checks every step
	@CGO_ENABLED=0 go build -trimpath -o bin/demo ./test/demo && ./bin/demo $(if $(AUTO),-auto)

tools: ## install what the tests need, as far as this machine lets us (Debian as root; Node from npm)
	@test/tools/install.sh

test: tools ## run all tests with the race detector; in CI a skipped test fails
	@test/tools/test.sh ./...

lint: ## gofmt, vet, staticcheck, errcheck, the floors and budgets; govulncheck where its database is reachable
	@test/tools/lint.sh

bench: ## what a call costs beside a bare proxy (20 minutes at most; LONG=1 for more)
	@CGO_ENABLED=0 go build -trimpath -o bin/bench ./bench && ./bin/bench $(if $(LONG),-long)

conformance: tools ## the MCP conformance suites, direct and through Frontdesk
	@test/tools/test.sh -tags conformance -timeout 40m -v ./test/conformance/...

attacks: ## the attack catalogue, by id; ends with 'N passed, N failed'
	@test/tools/attacks.sh

servers: tools ## MCP servers of npm, unmodified and hosted, for two users at once; writes docs/servers.md
	@cd test/servers && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@SERVERS_DOC=$(CURDIR)/docs/servers.md go test -tags servers -count=1 -timeout 20m -v ./test/servers

crash: ## kill -9 at random moments under load (KILLS=100), in transfers, calls and rotations of keys; fill the disk (as root); stop and go on (FREEZES=6); cut off from the database (CUTS=15); promote its standby (PROMOTIONS=5)
	@go test -count=1 -tags crash -timeout 90m -v ./test/crash/... -args -kills $(or $(KILLS),100) -freezes $(or $(FREEZES),6) -cuts $(or $(CUTS),15) -promotions $(or $(PROMOTIONS),5)

model: ## random sequences of deaths and faults against the refresh machine (SEQUENCES=500 for each kind of vendor, SEED=1)
	@go test -count=1 -timeout 120m -v -run TestModel ./internal/exchange/refresh -args -sequences $(or $(SEQUENCES),500) -seed $(or $(SEED),1)

kms: ## wrap keys with AWS KMS as moto plays it (fetched from PyPI)
	@test/tools/kms.sh

keycloak: ## sign in, exchange and hear at Keycloak, which is not ours (fetched from Maven Central; Java 21)
	@test/tools/keycloak.sh

container: ## build and run deploy/Containerfile with podman; GO_IMAGE=self where no registry can be reached
	@test/tools/container.sh

images: ## run a server in an image that buildah built, in each form that it writes (Debian: apt-get install buildah)
	@go test -count=1 -tags buildah -run TestBuiltByOthers -v ./internal/hosted

helm: ## lint and render the chart with helm itself (fetched as a Go module)
	@for domains in false true; do \
		go run helm.sh/helm/v3/cmd/helm@v3.19.0 lint --strict deploy/helm --set domains.enabled=$$domains && \
		go run helm.sh/helm/v3/cmd/helm@v3.19.0 template desk deploy/helm --set domains.enabled=$$domains >/dev/null || exit 1; done

fuzz: ## every fuzz target for FUZZTIME (default 30s each)
	@test/tools/fuzz.sh $(or $(FUZZTIME),30s)

budgets: ## sizes of packages and functions against what docs/architecture.md allows
	@go test -count=1 -v -run 'Test(Floors|OneDoor|TheWaist|Budgets)' ./internal

docs: ## write docs/config.md anew from the types that read the config
	@go test -count=1 ./cmd/frontdesk -run 'TestConfigManual' -update

storybook: ## serve every page of the portal in every state, for whoever works on them
	@go run ./test/storybook/cmd/storybook

pictures: tools ## take the pictures in docs/images anew, of the storybook
	@FRONTDESK_PICTURES=1 go test -count=1 ./test/browser -run 'TestEveryPageInEveryState'
