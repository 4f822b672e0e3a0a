package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// Every example of the reference loads, with the parts that it leaves out.
func TestReferenceExamples(t *testing.T) {
	doc, err := os.ReadFile("../../docs/routes.yaml.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "redis-password"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile("../../policies/heroes.read.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "policies"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "policies", "heroes.read.yaml"), policy, 0o600); err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{
		"REDIS_URL": "redis://127.0.0.1:6379", "REDIS_HOST": "redis", "SEED_PUBLIC_KEY": "PEM",
		"JWT_SECRET": strings.Repeat("s", 32),
	}
	others := map[string]string{
		"issuers":   "issuers:\n  main:\n    issuer: https://id.example.com\n    audiences: any\n",
		"upstreams": "upstreams:\n  heroes:\n    targets: [http://127.0.0.1:9000]\n",
		"limits":    "limits:\n  per_ip:\n    key: [ip]\n    rate: 1/1s\n",
		"routes":    "routes:\n  - match: /\n    public: true\n    upstream: heroes\n",
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(blocks) < 20 {
		t.Fatalf("only %d examples", len(blocks))
	}
	for _, block := range blocks {
		text := block[1]
		for section, other := range others {
			if !regexp.MustCompile(`(?m)^` + section + `:`).MatchString(text) {
				text += other
			}
		}
		_, _, err := Parse(filepath.Join(dir, "routes.yaml"), []byte(text), Options{Env: func(name string) (string, bool) {
			value, ok := environment[name]
			return value, ok
		}})
		if err != nil {
			t.Errorf("%v\nin\n%s", err, block[1])
		}
	}
}

// The reference names every key, and shows each in an example.
func TestReferenceIsWhole(t *testing.T) {
	data, err := os.ReadFile("../../docs/routes.yaml.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	for _, key := range keysOf(reflect.TypeFor[fileConfig](), nil) {
		if !regexp.MustCompile("`([a-z_]+\\.)?"+key+"[`:.]").MatchString(doc) && !strings.Contains(doc, "\n## "+key+"\n") {
			t.Errorf("the reference does not tell of %q", key)
		}
		if !regexp.MustCompile("(?m)^[ -]*" + key + ":").MatchString(doc) {
			t.Errorf("the reference has no example of %q", key)
		}
	}
}
