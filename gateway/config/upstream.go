package config

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Upstream is a set of targets that serve the same thing. Routes with the same
// bare URL share one.
type Upstream struct {
	Name             string // its key in the file, or the bare URL
	Targets          []Target
	DNS              *DNS    // where targets come from in place of Targets; nil: not from there
	Eureka           *Eureka // the same
	TLS              UpstreamTLS
	Balance          string            // "round_robin", "least_requests" or "hash"
	HashBy           string            // claim:PATH, header:NAME or cookie:NAME, of "hash"
	SlowStart        time.Duration     // 0: none
	Health           *Health           // nil: targets are not asked
	OutlierDetection *OutlierDetection // nil: none are ejected
	NoHealthyTarget  string            // "fail" or "try_all"
	ConnectTimeout   time.Duration
	Timeout          time.Duration   // of routes that do not say; 0: that of Defaults
	IdleTimeout      time.Duration   // the same
	Transport        string          // "direct" or "net_http"; "": that of Defaults
	MaxRequests      int             // in flight; 0: any number
	Retries          *Retries        // nil: none
	CircuitBreaker   *CircuitBreaker // nil: none
}

// Retries says which requests that failed are sent again, to another target.
type Retries struct {
	NumRetries    int
	On            []string      // connect_failure, reset, 502, 503, 504
	PerTryTimeout time.Duration // 0: none
	BudgetPercent int           // of the requests
}

// CircuitBreaker says when an upstream is left alone, since too many requests fail.
type CircuitBreaker struct {
	FailurePercentage, RequestVolume int
	Interval, OpenTime               time.Duration
}

// Target is one server of an upstream.
type Target struct {
	URL    *url.URL // http, https or h2c, host, and a path that is put before each request's
	Unix   string   // the path of the Unix socket to connect to; "": the URL's host
	Weight int
}

// Health says how targets are asked whether they are well.
type Health struct {
	Path, Host         string // of the request; without a host the target's
	Interval, Timeout  time.Duration
	Healthy, Unhealthy int // checks in a row
	Expect             []StatusRange
}

// StatusRange is a range of HTTP statuses, both ends included.
type StatusRange struct{ From, To int }

// OutlierDetection says which targets are ejected for how they answer.
type OutlierDetection struct {
	ConsecutiveGatewayFailure, Consecutive5xx int // 0: not counted
	BaseEjectionTime, MaxEjectionTime         time.Duration
	MaxEjectionPercent                        int
}

type fileTarget struct {
	URL    targetURL `yaml:"url" need:"where requests go, such as http://127.0.0.1:9000" doc:"an http://, https:// or h2c:// URL"`
	Unix   string    `yaml:"unix" doc:"the path of a Unix socket to connect to in place of the URL's host"`
	Weight int       `yaml:"weight" doc:"its share of the requests, beside those of the others; default 1"`
	at     string    // the path of its URL
}

func (t *fileTarget) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileTarget
	t.at = path + ".url"
	if n.Kind == yaml.MappingNode {
		r.read(n, path, (*plain)(t))
		return
	}
	t.at = path
	if n.Kind == yaml.ScalarNode && strings.HasPrefix(n.Value, "unix:") {
		if s, ok := r.text(n, path); ok {
			var err error
			if t.URL.URL, t.Unix, err = parseUnix(s); err != nil {
				r.fault(path, "%s is %s: %v", path, r.quote(path, s), err)
			}
		}
		return
	}
	r.read(n, path, &t.URL)
}

// localhost is the host of a target that has none.
const localhost = "localhost"

// maxSocketPath is what fits into sun_path (unix(7)).
const maxSocketPath = 107

// parseUnix reads unix:///path, and unix:/path (as RFC 8089 has both of file).
func parseUnix(s string) (*url.URL, string, error) {
	path, _ := strings.CutPrefix(s, "unix:")
	path = strings.TrimPrefix(path, "//")
	if !strings.HasPrefix(path, "/") || strings.Trim(path, "/") == "" {
		return nil, "", errors.New("want unix:// and the absolute path of a socket, such as unix:///run/app.sock")
	}
	return &url.URL{Scheme: "http", Host: localhost}, path, nil
}

// targets checks the targets of an upstream.
func (r *reader) targets(path string, list []fileTarget) []Target {
	var targets []Target
	seen := map[string]bool{}
	for i, f := range list {
		if f.URL.URL == nil {
			continue
		}
		at, item := f.at, index(path, i)
		t := Target{f.URL.URL, f.Unix, or(f.Weight, 1)}
		key := f.URL.String()
		if t.Unix != "" {
			if t.Unix = r.fromDir(t.Unix); len(t.Unix) > maxSocketPath {
				r.fault(item, "%s: the path of a Unix socket has at most %d bytes; this one has %d", item, maxSocketPath, len(t.Unix))
			}
			key += " " + t.Unix
		}
		written := f.URL.String()
		if at == item && t.Unix != "" {
			written = "unix://" + f.Unix
		}
		if err := r.target(f.URL.URL); err != nil {
			r.fault(at, "%s is %s: %v", at, r.quote(at, written), err)
		} else if key = strings.TrimSuffix(key, "/"); seen[key] {
			r.fault(at, "%s is %s, which stands there twice", at, r.quote(at, written))
		}
		if t.Weight > maxWeight {
			r.fault(item+".weight", "%s.weight is %d; want at most %d", item, t.Weight, maxWeight)
		}
		seen[key] = true
		targets = append(targets, t)
	}
	return targets
}

// maxWeight is that of DNS (RFC 2782).
const maxWeight = 65535

func (r *reader) target(u *url.URL) error {
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("a target must have no query (?)")
	}
	return checkLiteralPath(u.EscapedPath())
}

// fileBalance is a word, or what is hashed.
type fileBalance struct {
	Hash hashKey `yaml:"hash" need:"what requests are told apart by: claim:PATH, header:NAME or cookie:NAME" doc:"requests with the same claim:PATH, header:NAME or cookie:NAME go to the same target, as long as it is there"`
	word string
}

var balances = []string{"round_robin", "least_requests"}

func (b *fileBalance) readNode(r *reader, n *yaml.Node, path string) {
	type plain fileBalance
	if n.Kind == yaml.MappingNode {
		r.read(n, path, (*plain)(b))
		return
	}
	b.word = r.enum(n, path, balances)
}

// hashKey is claim:PATH, header:NAME or cookie:NAME.
type hashKey string

func (k *hashKey) readText(s string) error {
	kind, name, _ := strings.Cut(s, ":")
	*k = hashKey(s)
	switch {
	case kind == "claim" && name != "":
		return claimPath(name)
	case kind == "header" && strings.EqualFold(name, "host"):
		return errors.New("Host is no header to a Go server")
	case (kind == "header" || kind == "cookie") && isHTTPToken(name):
		return nil
	}
	return errors.New("want claim:PATH, header:NAME or cookie:NAME, such as claim:sub")
}

type fileHealth struct {
	Path      string                 `yaml:"path" need:"what targets are asked for, such as /healthz" doc:"what targets are asked for by GET, such as /healthz"`
	Host      string                 `yaml:"host" doc:"the Host that is sent; default: that of the target's URL"`
	Interval  time.Duration          `yaml:"interval" doc:"how often each target is asked; default 10s"`
	Timeout   time.Duration          `yaml:"timeout" doc:"how long the whole answer may take; default 2s, or the interval if that is shorter"`
	Healthy   int                    `yaml:"healthy" doc:"how many good answers in a row make a target healthy again; default 2"`
	Unhealthy int                    `yaml:"unhealthy" doc:"how many bad ones in a row make it unhealthy; default 3"`
	Expect    oneOrMany[statusRange] `yaml:"expect" doc:"the statuses of good answers, such as 204 or 200-299; default 200-299"`
}

// statusRange is one status, or a range of them.
type statusRange StatusRange

func (s *statusRange) readNode(r *reader, n *yaml.Node, path string) {
	text, ok := r.scalar(n, path, "a status, or a range of them such as 200-299")
	if !ok {
		return
	}
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	low, errLow := strconv.Atoi(from)
	high, errHigh := strconv.Atoi(to)
	if errLow != nil || errHigh != nil || low < 200 || high > 599 || low > high {
		r.fault(path, "%s is %s; want a status from 200 to 599, or a range of them such as 200-299", path, r.quote(path, text))
		return
	}
	*s = statusRange{low, high}
}

type fileOutlierDetection struct {
	ConsecutiveGatewayFailure int           `yaml:"consecutive_gateway_failure" doc:"how many requests in a row that are refused, time out, break off, or are answered with 502, 503 or 504 eject a target; default 5"`
	Consecutive5xx            int           `yaml:"consecutive_5xx" doc:"the same, where every 5xx counts; default: it does not"`
	BaseEjectionTime          time.Duration `yaml:"base_ejection_time" doc:"how long the first ejection lasts; the second twice as long, and so on; default 30s"`
	MaxEjectionTime           time.Duration `yaml:"max_ejection_time" doc:"the longest that one lasts; default 5m"`
	MaxEjectionPercent        int           `yaml:"max_ejection_percent" doc:"how much of the targets may be ejected at one time, though always one of several; default 50"`
}

type fileRetries struct {
	NumRetries    int           `yaml:"num_retries" doc:"how often one request is sent again; default 1"`
	On            []retryOn     `yaml:"on" doc:"after what: connect_failure, reset, 502, 503, 504; default all of them"`
	PerTryTimeout time.Duration `yaml:"per_try_timeout" doc:"how long one target may take until the headers of its answer, before another is asked; default: the whole timeout, so that nobody else is asked"`
	BudgetPercent int           `yaml:"budget_percent" doc:"how many retries there may be for a hundred requests; default 20"`
}

// retryOn is what a request is sent again after.
type retryOn string

var retryOns = []string{"connect_failure", "reset", "502", "503", "504"}

func (o *retryOn) readNode(r *reader, n *yaml.Node, path string) {
	*o = retryOn(r.enum(n, path, retryOns))
}

type fileCircuitBreaker struct {
	FailurePercentage int           `yaml:"failure_percentage" doc:"how many of a hundred requests must fail for the circuit to open; default 50"`
	RequestVolume     int           `yaml:"request_volume" doc:"how many requests there must be to judge by; default 20"`
	Interval          time.Duration `yaml:"interval" doc:"the time whose requests are looked at; default 10s"`
	OpenTime          time.Duration `yaml:"open_time" doc:"how long requests are refused with 503 until a few are tried; default 10s"`
}

// namedUpstream reads an upstream that has a name.
func (r *reader) namedUpstream(name string, f *fileUpstream, h *Headers) *Upstream {
	path := "upstreams." + name
	if !isName(name) {
		r.fault(path, "upstream name %q: want letters, digits, - and _", name)
	}
	targets := r.targets(path+".targets", f.Targets)
	u := newUpstream(name, targets)
	u.TLS = r.upstreamTLS(path+".tls", &f.TLS, targets)
	r.discovery(path, f, u)
	u.Balance, u.HashBy = or(f.Balance.word, u.Balance), string(f.Balance.Hash)
	if u.HashBy != "" {
		u.Balance = "hash"
		r.fromCaller(path+".balance.hash", u.HashBy, h)
	}
	u.SlowStart = f.SlowStart
	if at := path + ".slow_start"; u.Balance == "hash" && r.ok(at) {
		r.fault(at, "%s means nothing where requests are hashed: each belongs to one target; leave out one of the two", at)
	}
	u.Health = r.health(path+".health", &f.Health)
	u.OutlierDetection = r.outliers(path+".outlier_detection", &f.OutlierDetection)
	u.NoHealthyTarget = or(f.NoHealthyTarget, u.NoHealthyTarget)
	if at := path + ".no_healthy_target"; r.ok(at) && u.Health == nil && u.OutlierDetection == nil {
		r.fault(at, "%s means nothing without health or outlier_detection: every target is taken to be healthy", at)
	}
	u.ConnectTimeout = or(f.ConnectTimeout, u.ConnectTimeout)
	u.Timeout, u.IdleTimeout, u.Transport, u.MaxRequests = f.Timeout, f.IdleTimeout, f.Transport, f.MaxRequests
	u.Retries = r.retries(path+".retries", &f.Retries)
	u.CircuitBreaker = r.circuitBreaker(path+".circuit_breaker", &f.CircuitBreaker)
	return u
}

// newUpstream is one with nothing but defaults.
func newUpstream(name string, targets []Target) *Upstream {
	return &Upstream{Name: name, Targets: targets, Balance: "round_robin", NoHealthyTarget: "fail", ConnectTimeout: 5 * time.Second}
}

func (r *reader) health(path string, f *fileHealth) *Health {
	if !r.has(path) {
		return nil
	}
	h := &Health{
		Path: f.Path, Host: f.Host, Interval: or(f.Interval, 10*time.Second),
		Healthy: or(f.Healthy, 2), Unhealthy: or(f.Unhealthy, 3),
	}
	h.Timeout = or(f.Timeout, min(2*time.Second, h.Interval))
	for _, s := range f.Expect {
		h.Expect = append(h.Expect, StatusRange(s))
	}
	if f.Expect == nil {
		h.Expect = []StatusRange{{200, 299}}
	}
	if at := path + ".path"; r.ok(at) {
		plain, query, _ := strings.Cut(f.Path, "?")
		err := checkLiteralPath(plain)
		if !strings.HasPrefix(plain, "/") {
			err = errors.New("want a path, such as /healthz")
		} else if _, badQuery := url.ParseQuery(query); err == nil && (badQuery != nil || strings.ContainsAny(query, " #")) {
			err = errors.New("its query cannot be read")
		}
		if err != nil {
			r.fault(at, "%s is %s: %v", at, r.quote(at, f.Path), err)
		}
	}
	if at := path + ".host"; r.ok(at) {
		if u, err := url.Parse("http://" + f.Host); err != nil || u.Host != f.Host || u.Hostname() == "" {
			r.fault(at, "%s is %s; want a host, perhaps with a port", at, r.quote(at, f.Host))
		}
	}
	if at := path + ".timeout"; r.ok(at) && !r.bad[path+".interval"] && h.Timeout > h.Interval {
		r.fault(at, "%s is %s, longer than the interval of %s", at, h.Timeout, h.Interval)
	}
	return h
}

func (r *reader) outliers(path string, f *fileOutlierDetection) *OutlierDetection {
	if !r.has(path) {
		return nil
	}
	o := &OutlierDetection{
		ConsecutiveGatewayFailure: or(f.ConsecutiveGatewayFailure, 5), Consecutive5xx: f.Consecutive5xx,
		BaseEjectionTime: or(f.BaseEjectionTime, 30*time.Second), MaxEjectionPercent: or(f.MaxEjectionPercent, 50),
	}
	o.MaxEjectionTime = or(f.MaxEjectionTime, max(5*time.Minute, o.BaseEjectionTime))
	if at := path + ".max_ejection_time"; r.ok(at) && o.MaxEjectionTime < o.BaseEjectionTime {
		r.fault(at, "%s is %s, shorter than the base_ejection_time of %s", at, o.MaxEjectionTime, o.BaseEjectionTime)
	}
	if at := path + ".max_ejection_percent"; o.MaxEjectionPercent > 100 {
		r.fault(at, "%s is %d; want at most 100", at, o.MaxEjectionPercent)
	}
	return o
}

func (r *reader) retries(path string, f *fileRetries) *Retries {
	if !r.has(path) {
		return nil
	}
	o := &Retries{NumRetries: or(f.NumRetries, 1), On: retryOns, PerTryTimeout: f.PerTryTimeout, BudgetPercent: or(f.BudgetPercent, 20)}
	if f.On != nil {
		o.On = make([]string, len(f.On))
		for i, on := range f.On {
			o.On[i] = string(on)
		}
		r.distinct(path+".on", o.On)
	}
	if at := path + ".num_retries"; o.NumRetries > maxRetries {
		r.fault(at, "%s is %d; want at most %d", at, o.NumRetries, maxRetries)
	}
	if at := path + ".budget_percent"; o.BudgetPercent > 100 {
		r.fault(at, "%s is %d; want at most 100", at, o.BudgetPercent)
	}
	return o
}

// maxRetries is more than anybody waits for.
const maxRetries = 10

func (r *reader) circuitBreaker(path string, f *fileCircuitBreaker) *CircuitBreaker {
	if !r.has(path) {
		return nil
	}
	b := &CircuitBreaker{or(f.FailurePercentage, 50), or(f.RequestVolume, 20), or(f.Interval, 10*time.Second), or(f.OpenTime, 10*time.Second)}
	if at := path + ".failure_percentage"; b.FailurePercentage > 100 {
		r.fault(at, "%s is %d; want at most 100", at, b.FailurePercentage)
	}
	if at := path + ".interval"; b.Interval < time.Second {
		r.fault(at, "%s is %s; want at least 1s", at, b.Interval)
	}
	return b
}
