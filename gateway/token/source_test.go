package token

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

const jwt = "eyJh.eyJz.c2ln-_"

// TestSources is one table for every place where a token may stand: what is
// found there, and what is left when it is taken out.
func TestSources(t *testing.T) {
	const bad = "bad request"
	apiKey := Header{Name: "X-Api-Token"}
	scheme := Header{Name: "Authorization", Prefix: "Token"}
	cookie, query := Cookie{Name: "session"}, Query{Name: "access_token"}
	for _, c := range []struct {
		source Source
		header []string // the lines of the source's header, or the query
		found  string   // the token, "" if there is none, or bad
		left   []string // the lines after Remove
	}{
		{Bearer, nil, "", nil},
		{Bearer, []string{"Bearer " + jwt}, jwt, nil},
		{Bearer, []string{"bearer " + jwt}, jwt, nil},
		{Bearer, []string{"BEARER   " + jwt}, jwt, nil},
		{Bearer, []string{"Bearer opaque+/~=="}, "opaque+/~==", nil},
		{Bearer, []string{"Basic dTpw"}, "", []string{"Basic dTpw"}},
		{Bearer, []string{"Bearerx " + jwt}, "", []string{"Bearerx " + jwt}},
		{Bearer, []string{jwt}, "", []string{jwt}}, // without a scheme it is no bearer token
		{Bearer, []string{""}, "", []string{""}},
		{Bearer, []string{"Bearer"}, bad, nil},
		{Bearer, []string{"Bearer "}, bad, nil},
		{Bearer, []string{"Bearer ="}, bad, nil},
		{Bearer, []string{"Bearer\t" + jwt}, bad, nil},
		{Bearer, []string{"Bearer \t" + jwt}, bad, nil},
		{Bearer, []string{"Bearer " + jwt + " x"}, bad, nil},
		{Bearer, []string{"Bearer " + jwt + ", Bearer " + jwt}, bad, nil},
		{Bearer, []string{"Bearer a=b"}, bad, nil},
		{Bearer, []string{"Bearer \"" + jwt + "\""}, bad, nil},
		{Bearer, []string{"Bearer é"}, bad, nil},
		{Bearer, []string{"Bearer " + jwt, "Bearer " + jwt}, bad, nil},
		{Bearer, []string{"Bearer " + jwt, "Basic dTpw"}, bad, []string{"Basic dTpw"}},
		{Bearer, []string{"Basic dTpw", "Bearer " + jwt}, bad, []string{"Basic dTpw"}},
		{scheme, []string{"Token " + jwt}, jwt, nil},
		{scheme, []string{"Bearer " + jwt}, "", []string{"Bearer " + jwt}},
		{apiKey, []string{jwt}, jwt, nil},
		{apiKey, []string{"Bearer " + jwt}, bad, nil},
		{apiKey, []string{""}, bad, nil},
		{apiKey, []string{jwt, jwt}, bad, nil},

		{cookie, nil, "", nil},
		{cookie, []string{"session=" + jwt}, jwt, nil},
		{cookie, []string{`session="` + jwt + `"`}, jwt, nil},
		{cookie, []string{"a=1; session=" + jwt + "; b=2"}, jwt, []string{"a=1; b=2"}},
		{cookie, []string{"session=" + jwt + "; a=1"}, jwt, []string{"a=1"}},
		{cookie, []string{"a=1; session=" + jwt}, jwt, []string{"a=1"}},
		{cookie, []string{"a=1;session=" + jwt + ";b=2"}, jwt, []string{"a=1;b=2"}},
		{cookie, []string{"a=\"x y\"; session = " + jwt}, jwt, []string{"a=\"x y\""}},
		{cookie, []string{"a=1", "session=" + jwt, "b=2"}, jwt, []string{"a=1", "b=2"}},
		{cookie, []string{" a=1 ;; b "}, "", []string{" a=1 ;; b "}},
		{cookie, []string{""}, "", []string{""}},
		{cookie, []string{"Session=" + jwt}, "", []string{"Session=" + jwt}},
		{cookie, []string{"xsession=" + jwt}, "", []string{"xsession=" + jwt}},
		{cookie, []string{"a=session=" + jwt}, "", []string{"a=session=" + jwt}},
		{cookie, []string{"session=" + jwt + "; session=" + jwt}, bad, nil},
		{cookie, []string{"session=" + jwt, "session=x"}, bad, nil},
		{cookie, []string{"session="}, bad, nil},
		{cookie, []string{"session"}, bad, nil},
		{cookie, []string{"session=a b"}, bad, nil},
		{cookie, []string{"session=\""}, bad, nil},

		{query, []string{""}, "", []string{""}},
		{query, []string{"access_token=" + jwt}, jwt, []string{""}},
		{query, []string{"a=1&access_token=" + jwt + "&b=%2F"}, jwt, []string{"a=1&b=%2F"}},
		{query, []string{"a+b=%e9&&access%5Ftoken=" + jwt + "&c"}, jwt, []string{"a+b=%e9&&c"}},
		{query, []string{"access_token=e%79J"}, "eyJ", []string{""}},
		{query, []string{"Access_token=" + jwt}, "", []string{"Access_token=" + jwt}},
		{query, []string{"x=access_token=" + jwt}, "", []string{"x=access_token=" + jwt}},
		{query, []string{"access_token=" + jwt + "&access_token=" + jwt}, bad, []string{""}},
		{query, []string{"access_token=a&access%5ftoken=b"}, bad, []string{""}},
		{query, []string{"access_token="}, bad, []string{""}},
		{query, []string{"access_token"}, bad, []string{""}},
		{query, []string{"access_token=a%20b"}, bad, []string{""}},
		{query, []string{"a=1;access_token=" + jwt}, bad, []string{"a=1;access_token=" + jwt}},
		{query, []string{"a=%zz"}, bad, []string{"a=%zz"}},
	} {
		r := &http.Request{URL: &url.URL{Path: "/x"}, Header: http.Header{"X-Other": {"1", "2"}}}
		lines := func() []string {
			switch s := c.source.(type) {
			case Header:
				return r.Header[s.Name]
			case Cookie:
				return r.Header["Cookie"]
			}
			return []string{r.URL.RawQuery}
		}
		switch s := c.source.(type) {
		case Header:
			if c.header != nil {
				r.Header[s.Name] = slices.Clone(c.header)
			}
		case Cookie:
			if c.header != nil {
				r.Header["Cookie"] = slices.Clone(c.header)
			}
		case Query:
			r.URL.RawQuery = c.header[0]
		}
		raw, found, err := c.source.Find(r)
		got := raw.Reveal()
		if e := (*Error)(nil); err != nil {
			if !errors.As(err, &e) || e.Reason != BadRequest || found || got != "" {
				t.Errorf("%s %q: %q, %v, %v", c.source, c.header, got, found, err)
			}
			if strings.Contains(err.Error(), jwt) {
				t.Errorf("the error shows the token: %v", err)
			}
			got = bad
		} else if found != (got != "") {
			t.Errorf("%s %q: %q, found %v", c.source, c.header, got, found)
		}
		if got != c.found {
			t.Errorf("%s %q: found %q, want %q (%v)", c.source, c.header, got, c.found, err)
		}
		c.source.Remove(r)
		if left := lines(); !slices.Equal(left, c.left) {
			t.Errorf("%s %q: left %q, want %q", c.source, c.header, left, c.left)
		}
		if !slices.Equal(r.Header["X-Other"], []string{"1", "2"}) || r.URL.Path != "/x" {
			t.Errorf("%s %q: something else changed", c.source, c.header)
		}
		if _, found, _ := c.source.Find(r); found {
			t.Errorf("%s %q: a token is still there", c.source, c.header)
		}
	}
}

func TestSourceNames(t *testing.T) {
	for want, s := range map[string]Source{
		"header Authorization": Bearer, "cookie c": Cookie{"c"}, "query parameter q": Query{"q"},
	} {
		if s.String() != want {
			t.Errorf("%q, want %q", s, want)
		}
		if same := s; same != s {
			t.Errorf("%s cannot be compared", s)
		}
	}
}

// FuzzCookieFind: net/http's own reader of cookies is the judge, as far as it
// is not laxer, and after Remove it sees the same other cookies.
func FuzzCookieFind(f *testing.F) {
	for _, seed := range []string{"session=a.b.c", "a=1; session=x; b=2", `session="x"; session=y`, ";;session = x ;", "a=1,session=x", "session"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\r\n\x00") { // net/http lets none in
			return
		}
		r := &http.Request{Header: http.Header{"Cookie": {line}}}
		all := r.Cookies()
		s := Cookie{"session"}
		raw, found, err := s.Find(r)
		if found && (err != nil || !isToken68(raw.Reveal())) || err != nil && found {
			t.Fatalf("%q %v %v", raw.Reveal(), found, err)
		}
		ours := r.CookiesNamed("session")
		if len(ours) > 0 && !found && err == nil {
			t.Fatalf("net/http sees %q, and Find sees nothing", ours[0].Value)
		}
		if found && len(ours) == 1 && strings.Trim(ours[0].Value, " \t\"") != raw.Reveal() {
			t.Fatalf("net/http sees %q, and Find %q", ours[0].Value, raw.Reveal())
		}
		s.Remove(r)
		if _, found, err := s.Find(r); found || err != nil {
			t.Fatalf("after Remove: %v %v", found, err)
		}
		if len(r.CookiesNamed("session")) > 0 {
			t.Fatal("after Remove net/http still sees it")
		}
		all = slices.DeleteFunc(all, func(c *http.Cookie) bool { return c.Name == "session" })
		if !slices.EqualFunc(all, r.Cookies(), func(a, b *http.Cookie) bool { return a.Name == b.Name && a.Value == b.Value }) {
			t.Fatalf("other cookies changed: %v, were %v", r.Cookies(), all)
		}
	})
}

// FuzzQuery: net/url is the judge.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"t=a.b.c", "a=1&t=x&b=2", "t=x&t=y", "%74=x", "a;t=x", "t", "&&t=+", "%zz&t=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{URL: &url.URL{RawQuery: query}}
		want, parseErr := url.ParseQuery(query)
		s := Query{"t"}
		raw, found, err := s.Find(r)
		switch {
		case parseErr != nil && query != "":
			if err == nil {
				t.Fatal("what cannot be parsed was accepted")
			}
		case found && (len(want["t"]) != 1 || want["t"][0] != raw.Reveal()):
			t.Fatalf("found %q in %q", raw.Reveal(), want["t"])
		case !found && err == nil && len(want["t"]) > 0:
			t.Fatalf("did not find %q", want["t"])
		}
		s.Remove(r)
		got, err := url.ParseQuery(r.URL.RawQuery)
		if (err == nil) != (parseErr == nil) && parseErr == nil {
			t.Fatalf("Remove broke the query: %q", r.URL.RawQuery)
		}
		delete(want, "t")
		if parseErr == nil && !maps.EqualFunc(got, want, slices.Equal[[]string]) {
			t.Fatalf("left %v, want %v", got, want)
		}
		if _, found, _ := s.Find(r); found {
			t.Fatal("after Remove it is still there")
		}
	})
}

// RFC 6750 §2.1: bytes are looked up eight at a time, and each counts wherever
// it stands.
func TestToken68(t *testing.T) {
	const in = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
	for place := range 20 {
		for c := range 256 {
			text := []byte("twenty.good_letters~")
			text[place] = byte(c)
			want := strings.IndexByte(in, byte(c)) >= 0 || c == '=' && place == len(text)-1
			if got := isToken68(string(text)); got != want {
				t.Errorf("%q: %t", text, got)
			}
		}
	}
	for s, want := range map[string]bool{"": false, "=": false, "========": false, "a": true, "a==": true, "a=b": false, "abcdefgh=======": true} {
		if got := isToken68(s); got != want {
			t.Errorf("%q: %t", s, got)
		}
	}
}
