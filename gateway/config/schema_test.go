package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

func compiled(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("file:///schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("file:///schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance is a YAML text as an editor shows it to a validator; ok is false for
// what is no YAML, or has a key twice.
func instance(t *testing.T, text []byte) (v any, ok bool) {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, false
	}
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	v, err = jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v, true
}

// structural are the faults that one value shows, so that an editor can.
var structural = regexp.MustCompile(`unknown key|needs the key|want one of|is the only value|want true or false|want a whole number|want a duration with|is an empty list|is an empty string|is an empty map; want|` +
	`want a map of keys|; want a list|is (a number|true or false); want a string|has no value|; want a duration$`)

func TestSchema(t *testing.T) {
	s := compiled(t, Schema())
	for _, dir := range []string{"ok", "warning", "fault"} {
		files, err := filepath.Glob("testdata/" + dir + "/*.yaml")
		if err != nil || len(files) == 0 {
			t.Fatal(err, files)
		}
		checked := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			v, ok := instance(t, text)
			faulty := dir == "fault"
			switch base := filepath.Base(file); {
			case !ok, faulty && !shows(text, structural), strings.HasPrefix(base, "env-"): // what a reference stands for is not known
				continue
			case base == "amr-empty.yaml": // the list is that of privileges, where [] means something
				continue
			}
			checked++
			if err := s.Validate(v); (err != nil) != faulty {
				t.Errorf("%s: %v", file, err)
			}
		}
		t.Logf("%s: %d of %d files", dir, checked, len(files))
		if dir == "fault" && checked < 80 {
			t.Errorf("only %d faulty files were looked at", checked)
		}
	}
}

// shows says whether a faulty file has a fault of that kind in itself.
func shows(text []byte, kind *regexp.Regexp) bool {
	for line := range strings.SplitSeq(string(text), "\n") {
		if want, ok := strings.CutPrefix(line, "# want: "); ok && !strings.Contains(want, ".yaml:") && kind.MatchString(want) {
			return true
		}
	}
	return false
}

func TestSchemaTakesTheReferencesExamples(t *testing.T) {
	s := compiled(t, Schema())
	doc, err := os.ReadFile("../../docs/routes.yaml.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(doc, -1) {
		text := block[1]
		if !regexp.MustCompile(`(?m)^routes:`).Match(text) {
			text = append(bytes.Clone(text), "routes:\n  - match: /\n    public: true\n    upstream: http://127.0.0.1:9000\n"...)
		}
		if v, ok := instance(t, text); !ok {
			t.Errorf("no YAML:\n%s", text)
		} else if err := s.Validate(v); err != nil {
			t.Errorf("%v\nin\n%s", err, text)
		}
	}
	for _, file := range []string{"../../routes.yaml", "../../cmd/gatehouse/smallest.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := instance(t, text); !ok || s.Validate(v) != nil {
			t.Errorf("%s: %v", file, s.Validate(v))
		}
	}
}

func TestPolicySchema(t *testing.T) {
	s := compiled(t, PolicySchema())
	good, err := filepath.Glob("../../policies/*.yaml")
	if err != nil || len(good) == 0 {
		t.Fatal(err, good)
	}
	for _, file := range append(good, "testdata/ok/policies/whole.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := instance(t, text); !ok || s.Validate(v) != nil {
			t.Errorf("%s: %v", file, s.Validate(v))
		}
	}
	for _, bad := range []string{
		"allow: []\ntests: [{expect: deny}]",
		"allow: [{method: GET}]",
		"allow: [{methode: GET}]\ntests: [{expect: deny}]",
		"allow: [{claims: {a: [1]}}]\ntests: [{expect: deny}]",
		"allow: [{not: {any: [{methode: GET}]}}]\ntests: [{expect: deny}]",
		"allow: [{method: GET}]\ntests: [{expect: denied}]",
		"allow: [{method: GET}]\ntests: [{expect: deny, claims: [a]}]",
	} {
		if v, _ := instance(t, []byte(bad)); s.Validate(v) == nil {
			t.Errorf("validates:\n%s", bad)
		}
	}
}

// Every key says what it is, which editors show.
func TestEveryKeyIsDescribed(t *testing.T) {
	var walk func(at reflect.Type)
	seen := map[reflect.Type]bool{}
	walk = func(at reflect.Type) {
		switch at.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(at.Elem())
		case reflect.Struct:
			if seen[at] {
				return
			}
			seen[at] = true
			for i := range at.NumField() {
				if f := at.Field(i); f.Tag.Get("yaml") != "" {
					if f.Tag.Get("doc") == "" {
						t.Errorf("%s.%s has no doc tag", at.Name(), f.Name)
					}
					walk(f.Type)
				}
			}
		}
	}
	walk(reflect.TypeFor[fileConfig]())
	walk(reflect.TypeFor[filePolicy]())
}
