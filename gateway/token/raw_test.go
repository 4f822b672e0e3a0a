package token

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestRawHides prints a token in every way that comes to mind; none shows it.
func TestRawHides(t *testing.T) {
	const secret = "eyJhbGciOiJub25lIn0"
	raw := NewRaw(secret)
	if raw.Reveal() != secret || raw.Len() != len(secret) {
		t.Fatal("Reveal does not reveal")
	}
	type inner struct{ raw Raw } // fmt cannot call methods on an unexported field
	values := []any{raw, &raw, []Raw{raw}, map[string]Raw{"x": raw}, struct{ R Raw }{raw}, inner{raw}, &inner{raw}, []inner{{raw}}, fmt.Errorf("%v: %w", raw, errors.New("x"))}
	var out bytes.Buffer
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%10.50s"} {
			fmt.Fprintf(&out, verb, v)
		}
		fmt.Fprintln(&out, v)
		if text, err := json.Marshal(v); err == nil {
			out.Write(text)
		}
		if text, err := xml.Marshal(v); err == nil {
			out.Write(text)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	hex := fmt.Sprintf("%x", secret)
	if s := out.String(); strings.Contains(s, secret) || strings.Contains(strings.ToLower(s), hex) {
		t.Fatal("the token shows")
	} else if !strings.Contains(s, "[redacted token]") {
		t.Fatal("nothing stands in its place")
	}
	if (Raw{}).Reveal() != "" || (Raw{}).Len() != 0 {
		t.Fatal("the zero Raw holds something")
	}
}

func TestError(t *testing.T) {
	var err error = Errorf(InvalidToken, "aud is %q", "x")
	e := (*Error)(nil)
	if !errors.As(err, &e) || e.Reason != InvalidToken || err.Error() != `invalid_token: aud is "x"` {
		t.Fatal(err)
	}
}
