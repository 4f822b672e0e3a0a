package test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// durations differ from run to run, and so does what is printed of them, and
// thumbprints do.
var (
	durations   = regexp.MustCompile(`\b(\d+[hm])*\d+(\.\d+)?(ns|µs|ms|s)\b|(time="|"duration": ?)[\d.e-]+`)
	thumbprints = regexp.MustCompile(`"[\w-]{43}"`)
)

// TestScripts holds what commands print against golden files: each script in
// testdata/script is a story with its files. UPDATE=1 writes what cmp compares
// with anew.
func TestScripts(t *testing.T) {
	t.Parallel()
	store := startRedis(t)
	key := newSigner(t, "ES256", "")
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("REDIS_URL", store.URL)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// sign CLAIMS TOKEN signs the claims in a file; the key's other half
			// is public.pem then.
			"sign": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: sign CLAIMS TOKEN")
				}
				ts.Check(os.WriteFile(ts.MkAbs("public.pem"), []byte(key.pem(t)), 0o600))
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(key.seal(t, `{"alg":"ES256","typ":"JWT"}`, ts.ReadFile(args[0]))), 0o600))
			},
			// untimed FROM TO copies a file, or what was printed (stdout), with
			// durations and thumbprints replaced by their names.
			"untimed": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 2 {
					ts.Fatalf("usage: untimed FROM TO")
				}
				text := durations.ReplaceAllString(ts.ReadFile(args[0]), "${4}DURATION")
				text = thumbprints.ReplaceAllString(text, `"THUMBPRINT"`)
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
			},
		},
	})
}
