package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStepUp(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	acr := StepUp{ACR: []string{"gold", "silver"}}
	both := StepUp{AMR: Requirement{All: []string{"pwd", "otp"}}}
	second := StepUp{AMR: Requirement{Any: []string{"otp", "hwk"}}}
	fresh := StepUp{MaxAuthAge: 5 * time.Minute}
	for _, c := range []struct {
		name   string
		s      StepUp
		claims string
		detail string // "" for good enough
	}{
		{"nothing asked", StepUp{}, `{}`, ""},
		{"acr", acr, `{"acr":"silver"}`, ""},
		{"other acr", acr, `{"acr":"bronze"}`, `acr is "bronze", want one of [gold, silver]`},
		{"no acr", acr, `{}`, "acr is missing"},
		{"acr of another type", acr, `{"acr":["gold"]}`, `acr is ["gold"]`},
		{"amr", both, `{"amr":["otp","pwd"]}`, ""},
		{"half of amr", both, `{"amr":["pwd"]}`, `amr is ["pwd"], missing otp`},
		{"any amr", second, `{"amr":["pwd","hwk"]}`, ""},
		{"no second factor", second, `{"amr":["pwd"]}`, "missing any of otp, hwk"},
		{"amr is no string", second, `{"amr":"otp"}`, `amr is "otp"`},
		{"amr of lists", second, `{"amr":[["otp"],1,null]}`, "missing any of"},
		{"fresh", fresh, `{"auth_time":999700}`, ""},
		{"fresh, with a fraction", fresh, `{"auth_time":999700.5}`, ""},
		{"a little ahead", fresh, `{"auth_time":1000059}`, ""},
		{"stale", fresh, `{"auth_time":999699}`, "auth_time is 999699, want at most 5m0s ago"},
		{"far ahead", fresh, `{"auth_time":1000061}`, "auth_time is 1000061"},
		{"very far ahead", fresh, `{"auth_time":1e300}`, "auth_time is 1e300"},
		{"no auth_time", fresh, `{"iat":999999}`, "auth_time is missing"},
		{"auth_time of another type", fresh, `{"auth_time":"999999"}`, `auth_time is "999999"`},
		{"auth_time past numbers", fresh, `{"auth_time":1e400}`, "auth_time is 1e400"},
	} {
		got := c.s.Check(mustClaims(t, c.claims), now)
		switch {
		case got == nil:
			if c.detail != "" {
				t.Errorf("%s: good enough; want %q", c.name, c.detail)
			}
		case c.detail == "" || !strings.Contains(got.Detail, c.detail):
			t.Errorf("%s: %q, want %q", c.name, got.Detail, c.detail)
		case !slices.Equal(got.ACRValues, c.s.ACR) || got.MaxAge != c.s.MaxAuthAge:
			t.Errorf("%s: challenge %+v", c.name, got)
		}
	}
	// One challenge names all that is asked for, so that one round is enough.
	got := StepUp{ACR: []string{"gold"}, MaxAuthAge: time.Minute}.Check(mustClaims(t, `{"acr":"gold"}`), now)
	if got == nil || got.MaxAge != time.Minute || !slices.Equal(got.ACRValues, []string{"gold"}) {
		t.Errorf("%+v", got)
	}
}
