package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxRegistry   = 32 << 20         // bytes of an answer, decompressed
	maxFetch      = 20 * time.Second // for one answer
	deltaWindow   = 2 * time.Minute  // servers tell of the changes of the last three
	wholeEvery    = 10 * time.Minute // since equal hash codes do not prove equal registries
	missingAfter  = 5 * time.Minute  // an application that is no longer there has no targets
	eurekaAccepts = "application/json, application/xml;q=0.9"
)

// EurekaOptions are what a [Eureka] is made from.
type EurekaOptions struct {
	URLs     []*url.URL    // of the servers, as http://eureka:8761/eureka, tried in turn; user and password are Basic authentication
	Interval time.Duration // between two answers
	TLS      *tls.Config   // of https; nil is net/http's own
}

// Eureka is a copy of a Eureka registry, which any number of upstreams follow:
// it asks for all applications once, then for what has changed. It asks only
// while a source of [Eureka.App] runs. It is safe for concurrent use.
type Eureka struct {
	o      EurekaOptions
	client *http.Client

	mu        sync.Mutex
	followers int
	stop      context.CancelFunc // ends the loop
	ended     chan struct{}      // is closed by the loop's end
	seen      sighting
	next      chan struct{} // is closed by the next sighting

	// The loop's own.
	server int       // of the last good answer
	good   time.Time // when it came
	whole  time.Time // when one came that was no delta
	known  registry  // as of good
}

// sighting is what came of asking: a registry, or an error; neither before the first.
type sighting struct {
	registry registry // not changed afterwards
	err      error
}

// NewEureka makes a copy that asks nobody before an upstream follows it.
func NewEureka(o EurekaOptions) *Eureka {
	return &Eureka{o: o, next: make(chan struct{}), client: &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSClientConfig:        o.TLS,
			TLSHandshakeTimeout:    connectTimeout,
			IdleConnTimeout:        idleConnTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
		},
		// Whoever can make a server redirect must not thereby choose the targets.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// follow has the registry asked until leave is called, once.
func (e *Eureka) follow() (leave func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.followers++; e.followers == 1 {
		ctx, stop := context.WithCancel(context.Background())
		before, ended := e.ended, make(chan struct{})
		e.stop, e.ended, e.seen = stop, ended, sighting{}
		go func() {
			defer close(ended)
			if before != nil {
				<-before
			}
			e.run(ctx)
		}()
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.followers--; e.followers == 0 {
			e.stop()
			e.client.CloseIdleConnections()
		}
	}
}

// look returns the last sighting, and what is closed by the next.
func (e *Eureka) look() (sighting, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen, e.next
}

func (e *Eureka) run(ctx context.Context) {
	retry := firstRetry
	for {
		registry, err := e.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		e.mu.Lock()
		e.seen = sighting{registry, err}
		close(e.next)
		e.next = make(chan struct{})
		e.mu.Unlock()
		wait := e.o.Interval
		if err == nil {
			retry = firstRetry
		} else {
			wait = min(wait, retry)
			retry = min(2*retry, e.o.Interval)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// ask tries the servers in turn, first the one that answered last.
func (e *Eureka) ask(ctx context.Context) (registry, error) {
	var errs []error
	for range e.o.URLs {
		u := e.o.URLs[e.server]
		registry, err := e.askServer(ctx, u)
		if err == nil {
			e.known, e.good = registry, time.Now()
			return registry, nil
		}
		errs = append(errs, fmt.Errorf("Eureka server %s: %w", u.Host, err))
		// Another server's changes are not those of this one.
		e.server, e.known = (e.server+1)%len(e.o.URLs), nil
	}
	return nil, errors.Join(errs...)
}

func (e *Eureka) askServer(ctx context.Context, u *url.URL) (registry, error) {
	if now := time.Now(); e.known != nil && now.Sub(e.good) < deltaWindow && now.Sub(e.whole) < wholeEvery {
		delta, err := e.get(ctx, u.JoinPath("apps", "delta"))
		if err == nil {
			if next, err := e.known.with(delta); err == nil && next.hash() == delta.HashCode {
				return next, nil
			}
		} else if refused := statusError(0); !errors.As(err, &refused) {
			return nil, err
		}
		// The hash codes differ, or the server tells no changes (eureka.server.disableDelta).
	}
	all, err := e.get(ctx, u.JoinPath("apps"))
	if err != nil {
		return nil, err
	}
	e.whole = time.Now()
	return registry{}.with(all)
}

// statusError is an answer that is not 200.
type statusError int

func (s statusError) Error() string { return "answers " + strconv.Itoa(int(s)) }

func (e *Eureka) get(ctx context.Context, u *url.URL) (*answeredApplications, error) {
	ctx, cancel := context.WithTimeout(ctx, maxFetch)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("its URL cannot be asked") // net/url would show the password
	}
	req.Header.Set("Accept", eurekaAccepts)
	resp, err := e.client.Do(req)
	if err != nil {
		if failed := (*url.Error)(nil); errors.As(err, &failed) {
			err = failed.Err // without the URL, which may hold a user
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRegistry+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxRegistry {
		return nil, fmt.Errorf("the answer is longer than %d MiB", maxRegistry>>20)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return parseApplications(body, strings.HasSuffix(kind, "xml"))
}

// EurekaAppOptions are what [Eureka.App] makes a source from.
type EurekaAppOptions struct {
	App      string       // its name in the registry; the case of letters does not count
	Scheme   string       // http and h2c go to an instance's port, https to its securePort
	PreferIP bool         // connect to an instance's ipAddr, not to its hostName
	Log      *slog.Logger // for changes of the targets and of whether the registry answers
}

// EurekaApp is a [Source]: the instances of an application that are UP.
type EurekaApp struct {
	standing
	o       EurekaAppOptions
	eureka  *Eureka
	missing time.Time // since when the registry does not know the application
}

// App makes a source of an application's instances.
func (e *Eureka) App(o EurekaAppOptions) *EurekaApp {
	return &EurekaApp{standing: standing{log: o.Log}, o: o, eureka: e}
}

// Run implements [Source]. It may run once. A registry that no longer knows
// the application was perhaps restarted and waits for its instances to come
// back, so the last ones stay for some minutes.
func (a *EurekaApp) Run(ctx context.Context, set func([]Target)) {
	defer a.eureka.follow()()
	for {
		seen, next := a.eureka.look()
		switch app := seen.registry[strings.ToUpper(a.o.App)]; {
		case seen.err != nil:
			a.missing = time.Time{}
			a.bad(seen.err)
		case seen.registry == nil:
		case len(app) > 0:
			a.missing = time.Time{}
			a.take(app, set)
		default:
			if a.missing.IsZero() {
				a.missing = time.Now()
			}
			if err := fmt.Errorf("Eureka knows no application %s", strings.ToUpper(a.o.App)); time.Since(a.missing) < missingAfter {
				a.bad(err)
			} else {
				a.good(nil, err, set)
			}
		}
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}

func (a *EurekaApp) take(app map[string]instance, set func([]Target)) {
	var targets []Target
	up := 0
	for _, i := range app {
		if !i.up {
			continue
		}
		up++
		if t, ok := a.target(i); ok {
			targets = append(targets, t)
		}
	}
	if up > 0 && targets == nil {
		a.bad(fmt.Errorf("none of the %d instances of %s that are UP has a host and an enabled port for %s", up, strings.ToUpper(a.o.App), a.o.Scheme))
		return
	}
	a.good(targets, nil, set)
}

// target is the way to an instance. Its name stays what is asked for and
// verified, even where its address is connected to.
func (a *EurekaApp) target(i instance) (Target, bool) {
	number := i.port
	if a.o.Scheme == "https" {
		number = i.securePort
	}
	port, dial, host := strconv.Itoa(int(number)), "", i.host
	if a.o.PreferIP {
		if !i.ip.IsValid() {
			return Target{}, false
		}
		dial = net.JoinHostPort(i.ip.String(), port)
		if host == "" {
			host = i.ip.String()
		}
	}
	if host == "" || number == 0 {
		return Target{}, false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	return Target{URL: &url.URL{Scheme: a.o.Scheme, Host: net.JoinHostPort(host, port)}, Dial: dial, Weight: i.weight}, true
}
