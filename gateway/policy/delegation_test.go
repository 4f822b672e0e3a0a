package policy

import (
	"testing"

	"gatehouse/gateway/token"
)

func TestActor(t *testing.T) {
	older := NewActorClaims(token.MustPath("act.sub"), token.MustPath("impersonator.id"), token.MustPath("/https:~1~1x.example~1by"))
	for _, c := range []struct {
		name   string
		claims string
		acting bool
		want   string
	}{
		{"nobody", `{"iss":"i","sub":"bob"}`, false, ""},
		{"null", `{"act":null}`, false, ""},
		{"act", `{"iss":"i","sub":"bob","act":{"sub":"svc"}}`, true, "svc of i"},
		{"act of another issuer", `{"iss":"i","act":{"sub":"svc","iss":"j"}}`, true, "svc of j"},
		{"the outermost counts", `{"iss":"i","act":{"sub":"svc","act":{"sub":"admin"}}}`, true, "svc of i"},
		{"none but a nested one", `{"iss":"i","act":{"act":{"sub":"admin"}}}`, true, "somebody who is not named"},
		{"no iss", `{"act":{"sub":"svc"}}`, true, "svc"},
		{"iss of another type", `{"iss":"i","act":{"sub":"svc","iss":["i"]}}`, true, "somebody who is not named"},
		{"iss null", `{"iss":"i","act":{"sub":"svc","iss":null}}`, true, "somebody who is not named"},
		{"sub of another type", `{"iss":"i","act":{"sub":["svc"]}}`, true, "somebody who is not named"},
		{"act is a string", `{"iss":"i","act":"svc"}`, true, "somebody who is not named"},
		{"act is a list", `{"iss":"i","act":[{"sub":"svc"}]}`, true, "somebody who is not named"},
		{"act is empty", `{"iss":"i","act":{}}`, true, "somebody who is not named"},
		{"older", `{"iss":"i","impersonator":{"id":7}}`, true, "7 of i"},
		{"older, by URL", `{"iss":"i","https://x.example/by":"eve"}`, true, "eve of i"},
		{"older, empty", `{"iss":"i","https://x.example/by":""}`, false, ""},
		{"older, of another type", `{"iss":"i","impersonator":{"id":true}}`, true, "somebody who is not named"},
		{"older, not as expected", `{"iss":"i","impersonator":"eve"}`, true, "somebody who is not named"},
		{"older, with other members", `{"iss":"i","impersonator":{"enabled":false}}`, false, ""},
		{"act before older", `{"iss":"i","impersonator":{"id":"eve"},"act":{"sub":"svc"}}`, true, "svc of i"},
	} {
		actor, acting := older.Find(mustClaims(t, c.claims))
		if acting != c.acting || acting && actor.String() != c.want {
			t.Errorf("%s: got %s, %v; want %s, %v", c.name, actor, acting, c.want, c.acting)
		}
	}
}

func TestDelegation(t *testing.T) {
	only := Delegation{Actors: []Actor{{Issuer: "https://j", Subject: "svc"}, {Subject: "helpdesk"}}}
	for _, c := range []struct {
		name   string
		d      Delegation
		claims string
		ok     bool
	}{
		{"allow", Delegation{}, `{"iss":"i","act":"?"}`, true},
		{"deny, nobody acts", Delegation{Deny: true}, `{"iss":"i"}`, true},
		{"deny", Delegation{Deny: true}, `{"iss":"i","act":{"sub":"svc"}}`, false},
		{"deny somebody", Delegation{Deny: true}, `{"iss":"i","act":7}`, false},
		{"only, nobody acts", only, `{"iss":"i"}`, true},
		{"only", only, `{"iss":"i","act":{"iss":"https://j","sub":"svc"}}`, true},
		{"only, of the issuer itself", only, `{"iss":"https://j","act":{"sub":"svc"}}`, true},
		{"only, of another issuer", only, `{"iss":"i","act":{"sub":"svc"}}`, false},
		{"only, own", only, `{"iss":"i","act":{"sub":"helpdesk"}}`, true},
		{"only, own by name", only, `{"iss":"i","act":{"sub":"helpdesk","iss":"i"}}`, true},
		{"only, not own", only, `{"iss":"i","act":{"sub":"helpdesk","iss":"https://j"}}`, false},
		{"only, without iss at all", only, `{"act":{"sub":"helpdesk"}}`, true},
		{"only, another", only, `{"iss":"https://j","act":{"sub":"eve","act":{"sub":"svc"}}}`, false},
		{"only, somebody", Delegation{Actors: []Actor{{Issuer: "i"}}}, `{"iss":"i","act":{}}`, false},
	} {
		detail, ok := c.d.Check(ActorClaims{}.Find(mustClaims(t, c.claims)))
		if ok != c.ok || ok != (detail == "") {
			t.Errorf("%s: %v, %q", c.name, ok, detail)
		}
	}
}
