package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// env is the environment of all tests.
func env(name string) (string, bool) {
	value, ok := map[string]string{
		"SECRET": "correct horse battery staple",
		"EMPTY":  "",
		"PORT":   "9009",
		"BYTES":  "4096",
		"KEY":    "-----BEGIN PUBLIC KEY-----",
	}[name]
	return value, ok
}

// Each file of testdata/fault is wrong in one way, and ends with the faults
// that it must give, no more and no fewer, as "# want: LINE:COLUMN: message".
// UPDATE=1 writes what it gives now; read the difference.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/fault/*.yaml")
	if err != nil || len(files) < 90 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			body, _, _ := strings.Cut(string(data), "# want: ")
			var want []string
			for _, m := range regexp.MustCompile(`(?m)^# want: (.*)$`).FindAllStringSubmatch(string(data), -1) {
				want = append(want, m[1])
			}
			cfg, warnings, err := Parse(file, []byte(body), Options{Env: env})
			faults, ok := err.(Faults)
			if !ok || cfg != nil || warnings != nil {
				t.Fatalf("got %v, %v and the error %v, want only faults", cfg, warnings, err)
			}
			var got []string
			for _, f := range faults {
				got = append(got, strings.TrimPrefix(f.Error(), file+":"))
			}
			if os.Getenv("UPDATE") != "" {
				for _, g := range got {
					body += "# want: " + g + "\n"
				}
				if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !slices.Equal(got, want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
			for _, g := range got {
				for _, secret := range []string{"horse", "hidden", "hunter2"} {
					if strings.Contains(g, secret) {
						t.Errorf("the fault shows a secret: %s", g)
					}
				}
			}
		})
	}
}
