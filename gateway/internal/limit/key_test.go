package limit

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/time/rate"

	"gatehouse/gateway/token"
)

func keyOf(l *Limiter, s Subject) string {
	var k key
	k.write(l, &s, l.tier(&s))
	return string(k.bytes())
}

func bucketOf(l *Limiter, s Subject) *rate.Limiter { return &l.table.entries[keyOf(l, s)].bucket }

func TestKeysThatAreOneAndKeysThatDiffer(t *testing.T) {
	sub := func(issuer, json string) Subject { return claims(t, issuer, json) }
	on := func(s Subject, route, ip string) Subject {
		s.Route, s.IP = route, netip.MustParseAddr(ip)
		return s
	}
	header := func(ip, name string, values ...string) Subject {
		s := from(ip)
		s.Header = http.Header{name: values}
		return s
	}
	for _, test := range []struct {
		why  string
		keys string
		a, b Subject
		same bool
	}{
		{"one address", "ip", from("192.0.2.1"), from("192.0.2.1"), true},
		{"two addresses", "ip", from("192.0.2.1"), from("192.0.2.2"), false},
		{"mapped into IPv6", "ip", from("::ffff:192.0.2.1"), from("192.0.2.1"), true},
		{"mapped addresses are no /64", "ip", from("::ffff:192.0.2.1"), from("::ffff:192.0.2.2"), false},
		{"one /64", "ip", from("2001:db8:0:1::1"), from("2001:db8:0:1:ffff::2"), true},
		{"two /64s", "ip", from("2001:db8:0:1::1"), from("2001:db8:0:2::1"), false},
		{"a zone", "ip", from("fe80::1%eth0"), from("fe80::2%eth1"), true},
		{"no address is none", "ip", Subject{}, from("0.0.0.0"), false},
		{"ip takes no part of the route", "ip", on(Subject{}, "a", "192.0.2.1"), on(Subject{}, "b", "192.0.2.1"), true},
		{"one route, two addresses", "route", on(Subject{}, "a", "192.0.2.1"), on(Subject{}, "a", "192.0.2.2"), true},
		{"two routes", "route", Subject{Route: "a"}, Subject{Route: "b"}, false},
		{"route and address", "route ip", on(Subject{}, "a", "192.0.2.1"), on(Subject{}, "a", "192.0.2.2"), false},

		{"one sub, two addresses", "claim:sub", on(sub("main", `{"sub":"jane"}`), "r", "192.0.2.1"), on(sub("main", `{"sub":"jane"}`), "r", "192.0.2.2"), true},
		{"two subs", "claim:sub", sub("main", `{"sub":"jane"}`), sub("main", `{"sub":"joe"}`), false},
		{"one sub of two issuers", "claim:sub", sub("main", `{"sub":"jane"}`), sub("other", `{"sub":"jane"}`), false},
		{"a nested claim", "claim:org.id", sub("main", `{"org":{"id":1}}`), sub("main", `{"org":{"id":2}}`), false},
		{"a number and its digits", "claim:sub", sub("main", `{"sub":7}`), sub("main", `{"sub":"7"}`), true},
		{"a very long claim", "claim:sub", sub("main", `{"sub":"`+strings.Repeat("x", 5000)+`a"}`), sub("main", `{"sub":"`+strings.Repeat("x", 5000)+`b"}`), false},
		{"a missing claim goes by address", "claim:sub", on(sub("main", `{"a":1}`), "r", "192.0.2.1"), from("192.0.2.1"), true},
		{"and addresses differ", "claim:sub", on(sub("main", `{}`), "r", "192.0.2.1"), on(sub("main", `{}`), "r", "192.0.2.2"), false},
		{"null", "claim:sub", sub("main", `{"sub":null}`), from("192.0.2.1"), true},
		{"an empty string", "claim:sub", sub("main", `{"sub":""}`), from("192.0.2.1"), true},
		{"an object", "claim:sub", sub("main", `{"sub":{"a":1}}`), from("192.0.2.1"), true},
		{"an array", "claim:sub", sub("main", `{"sub":["jane"]}`), from("192.0.2.1"), true},

		{"one issuer", "issuer", sub("main", `{"sub":"jane"}`), sub("main", `{"sub":"joe"}`), true},
		{"two issuers", "issuer", sub("main", `{"sub":"jane"}`), sub("other", `{"sub":"jane"}`), false},
		{"no issuer goes by address", "issuer", from("192.0.2.1"), from("192.0.2.2"), false},

		{"one header", "header:x-api-key", header("192.0.2.1", "X-Api-Key", "a"), header("192.0.2.2", "X-Api-Key", "a"), true},
		{"two headers", "header:X-API-Key", header("192.0.2.1", "X-Api-Key", "a"), header("192.0.2.1", "X-Api-Key", "b"), false},
		{"another header", "header:X-API-Key", header("192.0.2.1", "X-Other", "a"), from("192.0.2.1"), true},
		{"an empty header goes by address", "header:X-API-Key", header("192.0.2.1", "X-Api-Key", ""), from("192.0.2.1"), true},
		{"no header goes by address", "header:X-API-Key", from("192.0.2.1"), from("192.0.2.2"), false},
		{"a header twice", "header:X-API-Key", header("192.0.2.1", "X-Api-Key", "a", "b"), header("192.0.2.1", "X-Api-Key", "b", "a"), false},
		{"a header twice and joined", "header:X-API-Key", header("192.0.2.1", "X-Api-Key", "a", "b"), header("192.0.2.1", "X-Api-Key", "a, b"), false},
		{"a very long header", "header:X-API-Key", header("192.0.2.1", "X-Api-Key", strings.Repeat("x", 5000)+"a"), header("192.0.2.1", "X-Api-Key", strings.Repeat("x", 5000)+"b"), false},
		{"forged: the address as a header", "header:X-API-Key", header("192.0.2.1", "X-Api-Key", "\x01\x04\xc0\x00\x02\x01"), from("192.0.2.1"), false},

		{"forged: the address as a claim", "claim:sub", sub("main", `{"sub":"192.0.2.1"}`), from("192.0.2.1"), false},
		{"forged: the address's bytes as a claim", "claim:sub", sub("main", `{"sub":"\u0001\u0004\u0041\u0041\u0041\u0041"}`), from("65.65.65.65"), false},
		{"forged: a boundary moved", "claim:sub claim:org", sub("main", `{"sub":"a","org":"bc"}`), sub("main", `{"sub":"ab","org":"c"}`), false},
		{"forged: the encoding inside a claim", "claim:sub claim:org", sub("m", `{"sub":"a","org":"b"}`), sub("m", `{"sub":"a\u0003\u0001m\u0001b"}`), false},
		{"forged: a boundary with the issuer", "claim:sub", sub("main-a", `{"sub":"b"}`), sub("main", `{"sub":"-ab"}`), false},
	} {
		l := limiter(t, Options{Keys: strings.Fields(test.keys), Rate: Rate{1, time.Second}})
		a, b := keyOf(l, test.a), keyOf(l, test.b)
		if (a == b) != test.same {
			t.Errorf("%s: %x and %x", test.why, a, b)
		}
		if len(a) > maxKey || len(b) > maxKey {
			t.Errorf("%s: keys of %d and %d bytes", test.why, len(a), len(b))
		}
	}
}

func TestIPv6Prefix(t *testing.T) {
	for _, test := range []struct {
		bits int
		a, b string
		same bool
	}{
		{0, "2001:db8:0:1::1", "2001:db8:0:1:ffff::1", true},
		{0, "2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{56, "2001:db8:0:1::1", "2001:db8:0:ff::1", true},
		{56, "2001:db8:0:1::1", "2001:db8:0:100::1", false},
		{61, "2001:db8:0:1::1", "2001:db8:0:7::1", true},
		{61, "2001:db8:0:1::1", "2001:db8:0:8::1", false},
		{128, "2001:db8::1", "2001:db8::2", false},
		{1, "4000::", "7fff::", true},
		{56, "192.0.2.1", "192.0.2.2", false},
		{56, "::ffff:192.0.2.1", "192.0.2.1", true},
	} {
		l := limiter(t, Options{Rate: Rate{1, time.Second}, IPv6Prefix: test.bits})
		if same := keyOf(l, from(test.a)) == keyOf(l, from(test.b)); same != test.same {
			t.Errorf("%s and %s by /%d: one caller is %t", test.a, test.b, test.bits, same)
		}
	}
}

// TestTiersHaveKeysOfTheirOwn, in this process and in Redis, where the slot is
// the same for all limits that count by the same.
func TestTiersHaveKeysOfTheirOwn(t *testing.T) {
	r := Rate{9, time.Second}
	plain := limiter(t, Options{Name: "plain", Keys: []string{"claim:sub"}, Rate: r})
	tiers := limiter(t, Options{Name: "tiers", Keys: []string{"claim:sub"}, Rate: r, TierBy: "claim:plan", Tiers: map[string]Tier{"gold": {Rate: r}, "iron": {Rate: r}}})
	gold, iron, none := claims(t, "m", `{"sub":"a","plan":"gold"}`), claims(t, "m", `{"sub":"a","plan":"iron"}`), claims(t, "m", `{"sub":"a"}`)
	if a, b, c := keyOf(tiers, gold), keyOf(tiers, iron), keyOf(tiers, none); a == b || b == c || a == c || c != keyOf(plain, gold) {
		t.Errorf("%x, %x and %x", a, b, c)
	}
	name := func(l *Limiter, s Subject) string {
		var k key
		tier := l.tier(&s)
		k.write(l, &s, tier)
		return k.redis(l.name, l.plans[tier].suffix)
	}
	tag := strings.TrimPrefix(name(plain, none), "limit:plain:")
	if len(tag) != 24 || name(tiers, gold) != "limit:tiers:"+tag+":gold" || name(tiers, none) != "limit:tiers:"+tag {
		t.Errorf("%s, %s", name(plain, none), name(tiers, gold))
	}
	if name(plain, claims(t, "n", `{"sub":"a"}`)) == name(plain, none) {
		t.Error("two callers have one bucket in Redis")
	}
}

// FuzzKey: two requests share a bucket only if they agree in everything that
// the limit counts by.
func FuzzKey(f *testing.F) {
	f.Add("main", "jane", "org", "route", "main", "jan", "eorg", "route")
	f.Add("m", "a", "b", "r", "m", "a\x03\x01m\x01b", "", "r")
	f.Add("", "", "", "", "", strings.Repeat("x", 100), "", "")
	l := limiter(f, Options{Keys: []string{"claim:sub", "route", "claim:org", "ip"}, Rate: Rate{1, time.Second}})
	subject := func(t *testing.T, issuer, sub, org, route string) Subject {
		a, errA := jsontext.AppendQuote(nil, sub)
		b, errB := jsontext.AppendQuote(nil, org)
		if errA != nil || errB != nil {
			t.Skip("no JSON string holds bad UTF-8")
		}
		c, err := token.ParseClaims(fmt.Appendf(nil, `{"sub":%s,"org":%s}`, a, b))
		if err != nil {
			t.Fatal(err)
		}
		return Subject{IP: netip.MustParseAddr("192.0.2.1"), Route: route, Verified: &token.Verified{Issuer: issuer, Claims: c}}
	}
	f.Fuzz(func(t *testing.T, issuer1, sub1, org1, route1, issuer2, sub2, org2, route2 string) {
		a := keyOf(l, subject(t, issuer1, sub1, org1, route1))
		b := keyOf(l, subject(t, issuer2, sub2, org2, route2))
		// Where neither claim is there, the issuer has no part in the key.
		same := sub1 == sub2 && org1 == org2 && route1 == route2 && (issuer1 == issuer2 || sub1 == "" && org1 == "")
		if (a == b) != same {
			t.Errorf("%x and %x", a, b)
		}
		if len(a) > maxKey || len(b) > maxKey {
			t.Errorf("keys of %d and %d bytes", len(a), len(b))
		}
	})
}
