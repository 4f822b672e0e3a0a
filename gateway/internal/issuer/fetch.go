package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gatehouse/gateway/token"
)

const (
	maxBody      = 1 << 20 // bytes of a discovery document or a key set, decompressed
	maxRedirects = 3
)

// fetcher asks an issuer where its keys are and for the keys, bounded in time,
// size and redirects. Only one goroutine may use it.
type fetcher struct {
	o       *Options
	client  *http.Client
	timeout time.Duration // maxFetch

	brought

	asker *asker // is told of the introspection endpoint; may be nil
}

// brought is what good fetches brought that the next one builds on.
type brought struct {
	uri        string    // of the key set, as discovered
	discovered time.Time // when

	text          []byte // the last good key set, never written to
	etag, etagURI string // its own
}

// answer is what came back for a key set.
type answer struct {
	body      []byte
	etag      string
	unchanged bool          // 304: body is empty
	maxAge    time.Duration // how long it may be believed; very long if it does not say
}

func newFetcher(o *Options) (fetcher, error) {
	if o.JWKSURI != "" {
		if err := checkURL(o.JWKSURI, o.Insecure); err != nil {
			return fetcher{}, fmt.Errorf("the key set's address: %w", err)
		}
	} else if err := checkURL(o.Issuer, o.Insecure); err != nil {
		return fetcher{}, fmt.Errorf("issuer: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: maxFetch / 2}).DialContext,
		TLSHandshakeTimeout:    maxFetch / 2,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
	}}
	if o.Client != nil {
		c := *o.Client
		client = &c
	}
	client.CheckRedirect = sameHost
	return fetcher{o: o, client: client, timeout: maxFetch}, nil
}

// sameHost keeps redirects on the host that was asked: whoever can make a
// provider redirect must not thereby choose the keys.
func sameHost(next *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case !strings.EqualFold(next.URL.Host, via[0].URL.Host):
		return fmt.Errorf("a redirect to another host, %s, is not followed", quote(next.URL.Host))
	case from.Scheme == "https" && next.URL.Scheme != "https":
		return errors.New("a redirect from https to http is not followed")
	}
	return nil
}

// checkURL says what is wrong with an address that keys, or the way to them,
// come from.
func checkURL(raw string, insecure bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not a URL", quote(raw))
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%s is not an https URL", quote(raw))
	case u.User != nil:
		return errors.New("a URL with a user or a password in it")
	case u.Scheme == "http" && !insecure && !loopback(u.Hostname()):
		return fmt.Errorf("%s is http: whoever is on the way could put their own keys there; use https, or say insecure", quote(raw))
	}
	return nil
}

func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") // RFC 6761 §6.3
}

// keySetURI returns where the keys are. fresh asks the issuer again, as its
// answer's age does; if that fails, what it said before holds, but not for
// longer than keys would.
func (f *fetcher) keySetURI(ctx context.Context, fresh bool, now time.Time) (string, error) {
	if f.o.JWKSURI != "" {
		return f.o.JWKSURI, nil
	}
	if now.Sub(f.discovered) > f.o.MaxStale {
		f.uri = ""
	}
	if f.uri != "" && !fresh && now.Sub(f.discovered) < f.o.Refresh {
		return f.uri, nil
	}
	uri, err := f.discover(ctx)
	f.o.OnFetch("discovery", err)
	switch {
	case err == nil:
		f.uri, f.discovered = uri, now
	case f.uri == "":
		return "", err
	case ctx.Err() == nil:
		f.o.Log.Warn("discovery failed; the address it gave before is used", "error", err)
	}
	return f.uri, nil
}

// discover reads the issuer's metadata: OpenID Connect Discovery §4, or
// RFC 8414 §3 where that is not there.
func (f *fetcher) discover(ctx context.Context) (string, error) {
	u, err := url.Parse(f.o.Issuer)
	if err != nil {
		return "", err
	}
	at := strings.TrimSuffix(f.o.Issuer, "/") + "/.well-known/openid-configuration"
	body, err := f.metadata(ctx, at)
	if e := (*statusError)(nil); errors.As(err, &e) && e.status == http.StatusNotFound {
		inserted := *u
		inserted.Path = "/.well-known/oauth-authorization-server" + strings.TrimSuffix(u.Path, "/")
		inserted.RawPath = ""
		at = inserted.String()
		body, err = f.metadata(ctx, at)
	}
	if err != nil {
		return "", fmt.Errorf("discovery %s: %w", at, err)
	}
	doc, err := token.ParseClaims(body)
	if err != nil {
		return "", fmt.Errorf("discovery %s: not a metadata document: %w", at, err)
	}
	// OpenID Connect Discovery §4.3, RFC 8414 §3.3: else one issuer of a
	// provider could speak for another.
	if iss := doc.Get("issuer"); iss.Kind() != token.String || iss.Text() != f.o.Issuer {
		return "", fmt.Errorf("discovery %s: the document is that of issuer %s, not of %s", at, show(iss), quote(f.o.Issuer))
	}
	if f.asker != nil {
		f.asker.discover(doc)
	}
	uri := doc.Get("jwks_uri")
	if uri.Kind() != token.String {
		return "", fmt.Errorf("discovery %s: jwks_uri is %s", at, show(uri))
	}
	if err := checkURL(uri.Text(), f.o.Insecure); err != nil {
		return "", fmt.Errorf("discovery %s: jwks_uri: %w", at, err)
	}
	return uri.Text(), nil
}

func (f *fetcher) metadata(ctx context.Context, at string) ([]byte, error) {
	a, err := f.get(ctx, at, "")
	return a.body, err
}

// keySet asks for the keys, and only if they changed where that can be told
// (RFC 9110 §13.1.2).
func (f *fetcher) keySet(ctx context.Context, uri string) (answer, error) {
	etag := ""
	if uri == f.etagURI {
		etag = f.etag
	}
	return f.get(ctx, uri, etag)
}

// accept remembers a set that is in use now, with its ETag; that of a bad one
// would make the provider say that nothing changed.
func (f *fetcher) accept(uri string, a answer) { f.text, f.etag, f.etagURI = a.body, a.etag, uri }

// statusError is an answer other than 200.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("the answer is %d %s", e.status, http.StatusText(e.status))
}

func (f *fetcher) get(ctx context.Context, at, etag string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	req.Header.Set("User-Agent", "gatehouse")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // the address stands in the message already
		}
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{etag: resp.Header.Get("ETag"), maxAge: maxAge(resp.Header)}
	if resp.StatusCode == http.StatusNotModified && etag != "" {
		a.unchanged = true
		return a, nil
	}
	if resp.StatusCode != http.StatusOK {
		return answer{}, &statusError{resp.StatusCode}
	}
	// The bound counts what comes out of decompression, and a longer answer is
	// refused, never cut: half a key set would retire the other half.
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return answer{}, fmt.Errorf("the answer broke off: %w", err)
	}
	if len(a.body) > maxBody {
		return answer{}, fmt.Errorf("the answer has more than %d bytes", maxBody)
	}
	return a, nil
}

// maxAge reads Cache-Control (RFC 9111 §5.2.2).
func maxAge(h http.Header) time.Duration {
	age := time.Duration(math.MaxInt64)
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			if s, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				age = min(age, time.Duration(s)*time.Second)
			}
		}
	}
	return age
}
