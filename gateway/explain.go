package gateway

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"gatehouse/gateway/config"
	"gatehouse/gateway/internal/issuer"
	"gatehouse/gateway/token"
)

// Request is a request to be explained.
type Request struct {
	Method  string   `json:"method"` // empty: GET
	URL     string   `json:"url"`    // /path?query, host/path or http://host/path; the host is localhost where nothing names one
	Headers []string `json:"headers,omitempty"`
	Client  string   `json:"client,omitempty"` // the peer's address; empty: not known
	// At most one of Token and Claims is set. The token stands where the route
	// looks first. Claims are a JSON object, and are taken for those of a token
	// that Issuer (its name in the configuration) signed just now: what every
	// token of that issuer has and they leave out (iss, aud, exp, iat) is put in,
	// and what they say themselves is checked.
	Token  string          `json:"token,omitempty"`
	Claims json.RawMessage `json:"claims,omitempty"`
	Issuer string          `json:"issuer,omitempty"` // empty: the one of the claim iss, or the route's only one
	Time   time.Time       `json:"time,omitzero"`    // goes with Claims; zero: now
}

// Explain sends a request up the ladder that serves requests, as far as the
// upstream, and tells what each rung found. Nothing is forwarded and no limit is
// charged. With claims nobody is asked: there is no network. With a token, keys
// are fetched and Redis is asked as a gateway that was just started would; ctx
// bounds it. The error says that the configuration or the request cannot be
// used; a refusal is none.
func Explain(ctx context.Context, cfg *config.Config, r Request) (*Explanation, error) {
	b := &builder{cfg: cfg, log: slog.New(slog.DiscardHandler), transient: true, offline: r.Claims != nil}
	s, err := b.build()
	if err != nil {
		return nil, err
	}
	defer s.close()
	g := &Gateway{now: time.Now, log: b.log}
	return g.explain(ctx, s, r, func() error {
		g.startVerifying(ctx, s)
		return nil
	})
}

// explain explains r. begin is called before a token is verified: whoever
// brings none need not wait for keys.
func (g *Gateway) explain(ctx context.Context, s *snapshot, q Request, begin func() error) (*Explanation, error) {
	r, err := q.read(ctx)
	if err != nil {
		return nil, err
	}
	own := &Gateway{now: g.now, log: g.log} // an explanation moves no metric
	d := &rehearsal{Request: q, begin: begin}
	if q.Claims != nil {
		if d.claims, err = token.ParseClaims(q.Claims); err != nil {
			return nil, fmt.Errorf("the claims: %w", err)
		}
		if !q.Time.IsZero() {
			own.now = func() time.Time { return q.Time }
		}
	}
	if _, known := s.config.Issuers[q.Issuer]; !known && q.Issuer != "" {
		_, err := issuerByName(s.config, q.Issuer)
		return nil, err
	}
	x := own.exchange(s, &answer{header: http.Header{}}, r)
	x.dry, x.explain = d, &explainer{}
	x.explain.began(x)
	err = x.serve()
	if d.unusable != nil {
		return nil, d.unusable
	}
	if err != nil {
		x.refuse(err)
	}
	return x.explain.explanation(x), nil
}

// read makes the request that net/http would hand over.
func (q Request) read(ctx context.Context) (*http.Request, error) {
	if q.Claims != nil && q.Token != "" {
		return nil, errors.New("claims and a token: one of the two says who is calling")
	}
	if q.Claims == nil && !q.Time.IsZero() {
		return nil, errors.New("a time goes with claims; a token is checked now")
	}
	host, target := "", q.URL
	if _, rest, absolute := strings.Cut(target, "://"); absolute && !strings.HasPrefix(target, "/") {
		target = rest
	}
	if i := strings.IndexAny(target, "/?"); i != 0 {
		if i < 0 {
			i = len(target)
		}
		host, target = target[:i], target[i:]
	}
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	lines := slices.Clone(q.Headers)
	names := map[string]bool{}
	for _, line := range lines {
		name, _, ok := strings.Cut(line, ":")
		if !ok {
			return nil, errors.New("a header is written as Name: value") // what was written may be a token
		}
		names[strings.ToLower(name)] = true
	}
	if !names["host"] {
		lines = append(lines, "Host: "+cmp.Or(host, "localhost"))
	} else if host != "" {
		return nil, errors.New("both the URL and a Host header name the host")
	}
	for _, line := range append(lines, q.Method, target) {
		if strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return nil, errors.New("the request has control characters")
		}
	}
	text := cmp.Or(q.Method, http.MethodGet) + " " + target + " HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	valid := err == nil && httpguts.ValidHostHeader(r.Host) // as a server looks at it
	if valid {
		for name, values := range r.Header {
			valid = valid && httpguts.ValidHeaderFieldName(name) && !slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) })
		}
	}
	if !valid {
		return nil, errors.New("net/http itself would refuse such a request, with 400")
	}
	if q.Client != "" {
		ip, err := netip.ParseAddr(q.Client)
		if err != nil {
			return nil, fmt.Errorf("%q is no client's address", q.Client)
		}
		r.RemoteAddr = netip.AddrPortFrom(ip, 0).String()
	}
	return r.WithContext(ctx), nil
}

// rehearsal makes an exchange stop where it would touch the world: it charges
// no limit, counts no failure and forwards nothing.
type rehearsal struct {
	Request
	claims   token.Claims
	begin    func() error // starts what fetches keys
	unusable error        // why nothing can be said of the request
}

// standIn stands where the token of assumed claims would.
const standIn = "assumed-claims"

// bring puts the token, or what stands in for it, where the route looks first
// for those of its issuer.
func (d *rehearsal) bring(x *exchange) error {
	claims, raw := d.claims, standIn
	switch {
	case d.Claims == nil && d.Token == "":
		return nil
	case d.Claims == nil:
		raw = d.Token
		_, claims, _ = unverified(raw) // an opaque one has none
	}
	name, err := d.issuerOf(x, claims)
	if err != nil {
		return err
	}
	p := x.route.places[0]
	for _, other := range slices.Backward(x.route.places) {
		if slices.ContainsFunc(other.issuers, func(i *issuer.Issuer) bool { return i.Name() == name }) {
			p = other
		}
	}
	if c := x.snapshot.config.Issuers[name]; c != nil && d.Claims != nil {
		if d.claims, err = signed(d.Request.Claims, claims, c, x.gateway.now()); err != nil {
			return err
		}
	}
	return put(p.source, x.r, raw)
}

// issuerOf returns the name of the issuer whose claims these are, or "".
func (d *rehearsal) issuerOf(x *exchange, claims token.Claims) (string, error) {
	iss := claims.Get("iss")
	switch names := x.route.privilegesFrom; {
	case d.Issuer != "":
		return d.Issuer, nil
	case d.Claims == nil || iss.Kind() != token.Missing:
		for name, c := range x.snapshot.config.Issuers {
			if iss.Kind() != token.Missing && c.Issuer == iss.Text() || iss.Kind() == token.Missing && c.Issuer == "" {
				return name, nil
			}
		}
		return "", nil
	case len(names) > 1:
		return "", fmt.Errorf("the route %s has several issuers, and the claims have no iss; name the issuer: %s", x.route.name, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
	default:
		for name := range names {
			return name, nil
		}
		return "", nil
	}
}

// rehearsed is how long assumed claims are taken to live.
const rehearsed = 5 * time.Minute

// signed adds to claims what every token of the issuer has.
func signed(text []byte, claims token.Claims, c *config.Issuer, now time.Time) (token.Claims, error) {
	more := map[string]any{}
	add := func(name string, value any) {
		if claims.Get(name).Kind() == token.Missing {
			more[name] = value
		}
	}
	if c.Issuer != "" {
		add("iss", c.Issuer)
	}
	if len(c.Audiences) > 0 {
		add("aud", c.Audiences[0])
	}
	add("exp", now.Add(rehearsed).Unix())
	if c.MaxLifetime > 0 || c.Profile == issuer.RFC9068 {
		add("iat", now.Unix())
	}
	if len(more) == 0 {
		return claims, nil
	}
	added, err := json.Marshal(more)
	if err != nil { // not reached: strings and numbers
		return token.Claims{}, err
	}
	body := bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(text), []byte("}")))
	if !bytes.Equal(body, []byte("{")) {
		added[0] = ','
		return token.ParseClaims(append(bytes.Clone(body), added...))
	}
	return token.ParseClaims(added)
}

// put writes a token into r as a caller would.
func put(source token.Source, r *http.Request, raw string) error {
	switch s := source.(type) {
	case token.Header:
		r.Header.Add(s.Name, strings.TrimLeft(s.Prefix+" "+raw, " "))
	case token.Cookie:
		r.Header.Add("Cookie", s.Name+"="+raw)
	case token.Query:
		r.URL.RawQuery = strings.TrimLeft(r.URL.RawQuery+"&"+url.Values{s.Name: {raw}}.Encode(), "&")
	case token.WebSocketProtocol:
		r.Header.Add("Sec-Websocket-Protocol", s.Marker+", "+raw)
	default:
		return fmt.Errorf("explain does not know how a token is sent in the %s", source)
	}
	return nil
}

// findToken looks for the request's one token.
func (x *exchange) findToken() error {
	x.enter(tokenRung)
	if x.dry != nil {
		if x.dry.unusable = x.dry.bring(x); x.dry.unusable != nil {
			return x.dry.unusable
		}
	}
	var err error
	if x.token, err = x.route.findToken(x.r); err != nil {
		return err
	}
	if x.token.source != nil {
		x.found = &x.token
	}
	x.explain.found(x)
	if x.dry != nil && x.dry.Claims == nil && x.found != nil {
		x.dry.unusable = x.dry.begin()
		return x.dry.unusable
	}
	return nil
}

// assumes says whether claims stand in for a token.
func (x *exchange) assumes() bool { return x.dry != nil && x.dry.Claims != nil }

// vouched is what the token's issuer vouches for.
func (x *exchange) vouched() (*token.Verified, error) {
	if x.assumes() {
		return x.found.issuers.Assume(x.dry.claims, x.gateway.now(), x.explain.record())
	}
	ctx := x.r.Context()
	if x.dry == nil {
		ctx = x.during(x.asking(), tokenRung) // where an issuer is asked, the caller pays
	}
	v, err := x.found.issuers.Explain(ctx, x.found.raw, x.explain.record())
	if err != nil && x.dry == nil {
		x.snapshot.countFailure(x.client, err)
	}
	return v, err
}

// answer is an http.ResponseWriter that keeps the headers.
type answer struct{ header http.Header }

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(int)             {}
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }
