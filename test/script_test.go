package test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// durations differ from run to run, and so does what is printed of them.
var durations = regexp.MustCompile(`\b\d+(\.\d+)?(ns|µs|ms|s)\b|(time="|"duration": ?)[\d.e-]+`)

// TestScripts holds what commands print against golden files: each script in
// testdata/script is a story with its files. UPDATE=1 writes what cmp compares
// with anew.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+env.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// untimed FROM TO copies a file, or what was printed (stdout), with
			// durations replaced by DURATION.
			"untimed": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: untimed FROM TO")
				}
				text := durations.ReplaceAllString(ts.ReadFile(args[0]), "${3}DURATION")
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
			},
		},
	})
}
