# make test   everything, with the race detector, against real parts
# make test-large   bodies of 10 GB both ways, in constant memory
# make lint   formatting, vet, linters
# make vuln   known vulnerabilities that the program reaches
# make build  bin/gatehouse, static        make demo   the whole story in one process
# make test-image   the container image, built and run by podman (needs root)
# make man    manual pages in dist/man     make sbom   dist/gatehouse.cdx.json, what is in the program (CycloneDX)
# make bench  Gatehouse beside nginx and HAProxy (docs/benchmarks.md); BENCH=-quick to see that it works, BENCH=-grow for how its cost grows, BENCH=-emulate to count instructions without counters
# make soak   Gatehouse alone, under everything at once, and what it holds afterwards; SOAK="-for 1m" for a short one

# The tools are pinned here and built by go run, so that they add nothing to go.mod.
GOLANGCI    = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK = go run golang.org/x/vuln/cmd/govulncheck@v1.8.0
VULNDB      = https://vuln.go.dev

PROVIDER = test/oidc-provider
BUILD    = CGO_ENABLED=0 go build -trimpath -ldflags="-s -w"

.PHONY: test test-large lint vuln build demo clean redis peers

# How many stories are told at a time: most of them wait most of the time.
STORIES = 4

# -count=1: go test keeps results, and cannot see that test/ builds the program.
# Under the race detector a sync.Pool drops at random, so one test is without it.
test: redis peers $(PROVIDER)/node_modules/.package-lock.json
	go test -race -count=1 -timeout 20m -parallel $(STORIES) ./...
	$(OVER_NET_HTTP) -run '^Test($(OVER_BOTH))' ./gateway/internal/upstream ./test
	go test -count=1 -run '^TestNothingIsAllocated$$' ./gateway/policy
	go test -C test/examples -count=1 ./...

# make test-net-http   over net/http's way to targets, what make test runs over the short one, and of which it runs a part over both
OVER_BOTH     = Backend|Connections|Download|Early|HeadAndRanges|Trailers|BothSides|BodiesKeep|IdleBody|CallerWhoLeaves|Retries|NothingIsLost|UnixSockets
OVER_NET_HTTP = GATEHOUSE_TEST_TRANSPORT=net_http go test -race -count=1 -timeout 20m -parallel $(STORIES)

.PHONY: test-net-http
test-net-http: redis peers $(PROVIDER)/node_modules/.package-lock.json
	$(OVER_NET_HTTP) ./gateway/internal/upstream ./test

test-large:
	GATEHOUSE_TEST_LARGE=1 go test -v -count=1 -timeout 1h -run TestLargeBodies ./test

# What the black-box tests need, installed only where it is missing.
redis:
	@command -v redis-server >/dev/null && command -v redis-cli >/dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server; }

peers:
	@PATH="$$PATH:/usr/sbin"; \
	command -v nginx >/dev/null && command -v node >/dev/null && command -v curl >/dev/null && command -v dnsmasq >/dev/null && command -v prometheus >/dev/null && command -v promtool >/dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light nodejs curl dnsmasq-base prometheus; }

$(PROVIDER)/node_modules/.package-lock.json: $(PROVIDER)/package.json $(PROVIDER)/package-lock.json
	npm ci --prefix $(PROVIDER) --no-audit --no-fund
	@touch $@

# make test-reloads   a thousand reloads under load, where make test makes 60
.PHONY: test-reloads
test-reloads: redis
	RELOADS=1000 go test -race -count=1 -timeout 30m -run TestReloadsUnderLoad -v ./test/

# make test-proxies   the decision endpoint behind Caddy, Traefik and Envoy, as make test has it behind nginx (needs Python's pip, which fetches them)
PROXIES = test/proxies/.cache

.PHONY: test-proxies
test-proxies: redis peers $(PROXIES)/.installed
	PROXIES=$(CURDIR)/$(PROXIES) go test -race -count=1 -timeout 10m -run TestProxiesAsk -v ./test/

$(PROXIES)/.installed: test/proxies/requirements.txt
	@python3 -m pip --version >/dev/null 2>&1 || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip; }
	@rm -rf $(PROXIES)
	python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $(PROXIES) --requirement $< || \
	{ echo "*** pip could not fetch the proxies, so NOTHING was tested behind them ***"; exit 1; }
	@touch $@

# make test-retries   100,000 requests while targets die, where make test sends 5,000
.PHONY: test-retries
test-retries:
	REQUESTS=100000 go test -race -count=1 -timeout 30m -run TestNothingIsLostWhenATargetDies -v ./test/

# make test-page   the admin page in Chromium; its pictures are in test/page/shots
PAGE = test/page

.PHONY: test-page
test-page: redis $(PAGE)/node_modules/.package-lock.json
	@command -v chromium >/dev/null && command -v node >/dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core nodejs npm; }
	GATEHOUSE_TEST_PAGE=1 go test -race -count=1 -timeout 5m -run '^TestPage' ./test/

$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package.json $(PAGE)/package-lock.json
	npm ci --prefix $(PAGE) --no-audit --no-fund
	@touch $@

# make test-keycloak   against a real Keycloak (needs Java 17 or newer, and Maven, which fetches it)
KEYCLOAK_VERSION = 26.7.3
KEYCLOAK_CACHE   = test/keycloak/.cache
KEYCLOAK_HOME    = $(KEYCLOAK_CACHE)/keycloak-$(KEYCLOAK_VERSION)

.PHONY: test-keycloak
test-keycloak: redis $(KEYCLOAK_CACHE)/$(KEYCLOAK_VERSION)
	KEYCLOAK_HOME=$(CURDIR)/$(KEYCLOAK_HOME) go test -race -count=1 -timeout 15m -tags keycloak ./test/keycloak/

$(KEYCLOAK_CACHE)/$(KEYCLOAK_VERSION):
	@command -v java >/dev/null && command -v mvn >/dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless maven; }
	@rm -rf $(KEYCLOAK_CACHE) && mkdir -p $(KEYCLOAK_CACHE)
	@cd $(KEYCLOAK_CACHE) && mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack \
		-Dartifact=org.keycloak:keycloak-quarkus-dist:$(KEYCLOAK_VERSION):zip -DoutputDirectory=. || \
	{ echo "*** Maven could not fetch Keycloak $(KEYCLOAK_VERSION), so NOTHING was tested against it ***"; exit 1; }
	@touch $@

# podman builds the Dockerfile with stand-ins for its base images, so that no registry
# is needed; go mod download, since the build has no network. Where no container can
# run, this fails.
.PHONY: test-image image-tools
test-image: image-tools
	go mod download
	go test -count=1 -timeout 45m -v -tags image ./test/image

image-tools:
	@missing=; \
	have() { PATH="$$PATH:/usr/sbin" command -v $$1 >/dev/null || missing="$$missing $$2"; }; \
	have podman podman; have runc runc; have busybox busybox-static; have curl curl; have nsenter util-linux; \
	test -d /usr/share/ca-certificates/mozilla || missing="$$missing ca-certificates"; \
	if [ -n "$$missing" ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

# make test-eureka   against a real Eureka server (needs Java 17 or newer, and Maven, which fetches it)
EUREKA     = test/eureka/server
EUREKA_JAR = $(EUREKA)/target/eureka-server.jar

.PHONY: test-eureka
test-eureka: $(EUREKA_JAR)
	EUREKA_SERVER=$(CURDIR)/$(EUREKA_JAR) go test -race -count=1 -timeout 15m -run TestRealEureka -v ./test/

$(EUREKA_JAR): $(EUREKA)/pom.xml $(EUREKA)/src/main/java/eureka/EurekaServer.java
	@command -v javac >/dev/null && command -v mvn >/dev/null || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openjdk-17-jdk-headless maven; }
	@cd $(EUREKA) && mvn -q -B package || \
	{ echo "*** Maven could not build the Eureka server, so NOTHING was tested against it ***"; exit 1; }
	@touch $@

lint:
	@unformatted=$$(gofmt -l cmd gateway test); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags nodemo,man ./cmd/...
	go vet -tags image ./test/image/...
	go vet -C test/examples ./...
	go vet -C cmd/sbom .
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

.PHONY: man sbom
man:
	go run -tags man ./cmd/gatehouse man dist/man

# Of the program as the image has it.
sbom:
	@mkdir -p dist
	$(BUILD) -tags nodemo -o dist/gatehouse ./cmd/gatehouse
	go run -C cmd/sbom . $(CURDIR)/dist/gatehouse > dist/gatehouse.cdx.json

demo:
	go run ./cmd/gatehouse demo

# What make bench needs beside Redis, each installed only where it is missing.
.PHONY: bench bench-tools
bench: redis bench-tools
	go run ./test/bench $(BENCH)

SOAK = -for 10m

.PHONY: soak
soak: redis bench-tools
	SOAK=1 go test -count=1 -timeout 5m -run TestASoakLeavesNothing ./test/bench
	go run ./test/bench -soak $(SOAK)

# make pgo    writes cmd/gatehouse/default.pgo, by which go build then knows what runs most (docs/benchmarks.md says what that gives): the profile of a gateway with all on that a deployment has
.PHONY: pgo
pgo: redis
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	go test -run '^$$' -bench '^BenchmarkEverything$$' -benchtime 20s -cpuprofile "$$dir/cpu" -o "$$dir/gateway.test" ./gateway && \
	go tool pprof -proto -ignore '^testing\.|gateway\.startAnswering' -output "$$dir/default.pgo" "$$dir/gateway.test" "$$dir/cpu" && \
	test "$$(wc -c < "$$dir/default.pgo")" -lt 300000 && mv "$$dir/default.pgo" cmd/gatehouse/default.pgo

# make benchstat   the benchmarks of every rung, of REF beside the work tree; COUNT rounds, in turn
REF   = HEAD
COUNT = 6

.PHONY: benchstat
benchstat: redis
	test/rungs.sh $(REF) $(COUNT)

bench-tools:
	@missing=; \
	have() { PATH="$$PATH:/usr/sbin" command -v $$1 >/dev/null || missing="$$missing $$2"; }; \
	have nginx nginx-light; have haproxy haproxy; have wrk wrk; have h2load nghttp2-client; have perf linux-perf; \
	case "$(BENCH)" in *-emulate*) have qemu-system-x86_64 qemu-system-x86;; esac; \
	test -e /usr/lib/nginx/modules/ngx_http_lua_module.so || missing="$$missing libnginx-mod-http-lua"; \
	test -n "$$(find /usr/lib -path '*/lua/5.1/cjson.so' -print -quit)" || missing="$$missing lua-cjson"; \
	if [ -n "$$missing" ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

clean:
	rm -rf bin dist $(EUREKA)/target test/bench/results $(PROXIES) $(PROVIDER)/node_modules $(PAGE)/node_modules $(PAGE)/shots
