# make test   everything, with the race detector, against real parts
# make lint   formatting, vet, linters
# make vuln   known vulnerabilities that the program reaches
# make build  bin/gatehouse, static        make demo   the whole story in one process

# The tools are pinned here and built by go run, so that they add nothing to go.mod.
GOLANGCI    = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK = go run golang.org/x/vuln/cmd/govulncheck@v1.8.0
VULNDB      = https://vuln.go.dev

PROVIDER = test/oidc-provider
BUILD    = CGO_ENABLED=0 go build -trimpath -ldflags="-s -w"

.PHONY: test lint vuln build demo clean redis

# -count=1: go test keeps results, and cannot see that test/ builds the program.
test: redis $(PROVIDER)/node_modules/.package-lock.json
	go test -race -count=1 -timeout 12m ./...

# What the black-box tests need, installed only where it is missing.
redis:
	@command -v redis-server >/dev/null && command -v redis-cli >/dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server; }

$(PROVIDER)/node_modules/.package-lock.json: $(PROVIDER)/package.json $(PROVIDER)/package-lock.json
	npm ci --prefix $(PROVIDER) --no-audit --no-fund
	@touch $@

lint:
	@unformatted=$$(gofmt -l cmd gateway test); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags nodemo ./cmd/...
	$(GOLANGCI) run ./...

# Only an unreachable database is skipped; whatever else fails, fails.
vuln:
	@if curl -fsS --max-time 20 -o /dev/null $(VULNDB)/index/db.json; then \
		$(GOVULNCHECK) -db $(VULNDB) ./...; \
	else \
		echo "*** SKIPPED: the vulnerability database $(VULNDB) cannot be reached, so NOTHING was checked ***"; \
	fi

build:
	$(BUILD) -o bin/gatehouse ./cmd/gatehouse

demo:
	go run ./cmd/gatehouse demo

clean:
	rm -rf bin $(PROVIDER)/node_modules
