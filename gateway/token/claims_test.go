package token

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func mustParse(t testing.TB, payload string) Claims {
	t.Helper()
	c, err := ParseClaims([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseClaims(t *testing.T) {
	c := mustParse(t, ` { "s": "a\u00e9\n\"", "n": -1.50e+2, "t": true, "f": false, "z": null, "e": "",
		"a": [1, "x", [ ], {"y": 2}], "o": {"b c": { } , "b": 1} , "": 7 } `)
	for _, want := range []struct {
		name string
		kind Kind
		text string
		json string
	}{
		{"s", String, "aé\n\"", ""},
		{"n", Number, "-1.50e+2", ""},
		{"t", Bool, "true", ""},
		{"f", Bool, "false", ""},
		{"z", Null, "", ""},
		{"e", String, "", ""},
		{"a", Array, "", `[1,"x",[],{"y":2}]`},
		{"o", Object, "", `{"b c":{},"b":1}`},
		{"", Number, "7", ""},
		{"S", Missing, "", ""},
		{"missing", Missing, "", ""},
	} {
		v := c.Get(want.name)
		if v.Kind() != want.kind || v.Text() != want.text || v.JSON() != want.json {
			t.Errorf("%s: %s %q %q", want.name, v.Kind(), v.Text(), v.JSON())
		}
	}
	var names []string
	for name := range c.All() {
		names = append(names, name)
	}
	if got := strings.Join(names, ","); got != "s,n,t,f,z,e,a,o," {
		t.Errorf("order: %s", got)
	}
	for range c.All() { // leaving early must not panic
		break
	}
	if f, ok := c.Get("n").Float(); f != -150 || !ok {
		t.Errorf("%v %v", f, ok)
	}
	if items := slices.Collect(c.Get("a").Items()); len(items) != 4 || items[3].Member("y").Text() != "2" {
		t.Errorf("%v", items)
	}
	var zero Claims
	if zero.Get("x").Kind() != Missing || zero.Lookup(MustPath("x")).Kind() != Missing {
		t.Error("the zero Claims hold something")
	}
	for range zero.All() {
		t.Error("the zero Claims hold something")
	}
}

func TestWith(t *testing.T) {
	for _, text := range []string{`{}`, `{"sub":"a","o":{"iss":["x"]}}`, ` {"esc":"\u0041\n","last":[1,{"a":2}]} `} {
		c := mustParse(t, text)
		var before []string
		for name := range c.All() {
			before = append(before, name)
		}
		const value = `https://id.example/"x"\`
		more := c.With("iss", value).With("empty", "")
		var after []string
		for name, v := range more.All() {
			after = append(after, name)
			if old := c.Get(name); old.Kind() != Missing && (old.Kind() != v.Kind() || old.Text() != v.Text() || old.JSON() != v.JSON()) {
				t.Errorf("%s: %s was %q, and is %q", text, name, old.Text(), v.Text())
			}
		}
		if !slices.Equal(after, append(before, "iss", "empty")) {
			t.Errorf("%s: %v", text, after)
		}
		if v := more.Get("iss"); v.Kind() != String || v.Text() != value || c.Get("iss").Kind() != Missing {
			t.Errorf("%s: iss is %s %q, before %s", text, v.Kind(), v.Text(), c.Get("iss").Kind())
		}
		if v := more.Get("empty"); v.Kind() != String || v.Text() != "" {
			t.Errorf("%s: empty is %s %q", text, v.Kind(), v.Text())
		}
	}
	if v := (Claims{}).With("iss", "x").Get("iss"); v.Text() != "x" {
		t.Errorf("of no claims: %q", v.Text())
	}
}

// TestParseClaimsKeepsNothing: the caller may reuse its buffer.
func TestParseClaimsKeepsNothing(t *testing.T) {
	payload := []byte(`{"sub":"alice","esc":"a\tb","o":{"k":"v"},"n":12}`)
	c, err := ParseClaims(payload)
	if err != nil {
		t.Fatal(err)
	}
	for i := range payload {
		payload[i] = 'X'
	}
	if c.Get("sub").Text() != "alice" || c.Get("esc").Text() != "a\tb" || c.Get("o").JSON() != `{"k":"v"}` || c.Get("n").Text() != "12" {
		t.Fatal("the claims changed with the buffer")
	}
}

func TestParseClaimsRefuses(t *testing.T) {
	nest := func(n int) string { return `{"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	mustParse(t, nest(MaxDepth-1))
	for _, payload := range []string{
		``, ` `, `null`, `1`, `"x"`, `"\n"`, `[]`, `[{}]`, `{`, `}`, `{}{}`, `{} x`, `{},`, `{}` + "\x00", "\ufeff{}",
		`{"a":1,}`, `{"a"}`, `{"a":}`, `{a:1}`, `{'a':1}`, `{"a":1 "b":2}`, `{1:2}`, `{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":0x1}`, `{"a":NaN}`, `{"a":Infinity}`,
		`{"a":tru}`, `{"a":TRUE}`, `{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `{"a":"\ud800"}`, `{"a":"` + "\xff" + `"}`, `{"` + "\xc0\x80" + `":1}`,
		`{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `{"x":{"a":1,"a":2}}`, `{"x":[{"a":1,"b":1,"a":2}]}`, `{/**/}`, `{"a":1}//`,
		nest(MaxDepth), nest(10000), strings.Repeat(`{"a":`, 10000), strings.Repeat("[", 1<<20),
	} {
		if _, err := ParseClaims([]byte(payload)); err == nil {
			t.Errorf("accepted: %.60q", payload)
		} else if strings.Contains(err.Error(), "xff") || len(err.Error()) > 100 {
			t.Errorf("the error shows the token's bytes: %v", err)
		}
	}
}

func TestFloat(t *testing.T) {
	c := mustParse(t, `{"ok":1e308,"huge":1e400,"minus":-1e400,"tiny":1e-400,"text":"1"}`)
	for name, want := range map[string]bool{"ok": true, "huge": false, "minus": false, "tiny": true, "text": false, "missing": false} {
		if _, ok := c.Get(name).Float(); ok != want {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

func TestKindString(t *testing.T) {
	if got := fmt.Sprint(Missing, Null, Bool, Number, String, Array, Object); got != "missing null boolean number string array object" {
		t.Error(got)
	}
}

// FuzzParseClaims: encoding/json is laxer, so whatever is accepted here it
// must accept too, and read the same.
func FuzzParseClaims(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":[1,-2.5e3,"x\u00e9\\",null,true,{"b":{}}],"":""}`, `{"exp":1e400}`, `{"a":1,"a":2}`, `{"a":"\ud83d\ude00"}`, `[]`, `{"a":"` + "\xff" + `"}`, ` { "a" : [ ] } `, `"\n"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := bytes.Clone(payload)
		c, err := ParseClaims(payload)
		if !bytes.Equal(before, payload) {
			t.Fatal("the payload was changed")
		}
		if err != nil {
			return
		}
		dec := json.NewDecoder(bytes.NewReader(payload))
		dec.UseNumber()
		var want map[string]any
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if _, err := dec.Token(); err != io.EOF {
			t.Fatalf("something follows: %v", err)
		}
		if got := plain(t, c.root()); !reflect.DeepEqual(got, any(want)) {
			t.Fatalf("%v, encoding/json reads %v", got, want)
		}
		for name := range c.All() {
			if name != "" && !strings.ContainsAny(name, "./~") {
				if c.Lookup(MustPath(name)).Kind() != c.Get(name).Kind() {
					t.Fatalf("the path %q leads elsewhere", name)
				}
			}
		}
	})
}

// plain turns a value into what encoding/json makes of it, and reads its JSON
// text again on the way.
func plain(t *testing.T, v Value) any {
	switch v.Kind() {
	case Bool:
		return v.Text() == "true"
	case Number:
		return json.Number(v.Text())
	case String:
		return v.Text()
	case Array:
		out := []any{}
		for item := range v.Items() {
			out = append(out, plain(t, item))
		}
		again(t, v)
		return out
	case Object:
		out := map[string]any{}
		for name, item := range v.Members() {
			out[name] = plain(t, item)
		}
		again(t, v)
		return out
	}
	return nil
}

func again(t *testing.T, v Value) {
	if !json.Valid([]byte(v.JSON())) {
		t.Fatalf("JSON() is none: %q", v.JSON())
	}
}
