package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "gatehouse/"

// arrows are who may import whom inside the module (docs: the house). Parts
// stand without gateway/internal/.
var arrows = map[string][]string{
	"cmd/gatehouse":               {"gateway", "gateway/config", "cmd/gatehouse/internal/demo"},
	"cmd/gatehouse/internal/demo": {"gateway", "gateway/config"},
	"gateway": {"gateway/config", "gateway/policy", "gateway/token", "gateway/internal/route", "gateway/internal/issuer",
		"gateway/internal/revoke", "gateway/internal/limit", "gateway/internal/inject", "gateway/internal/upstream",
		"gateway/internal/socket"},
	"gateway/config":            {},
	"gateway/token":             {},
	"gateway/policy":            {"gateway/token"},
	"gateway/internal/route":    {},
	"gateway/internal/issuer":   {"gateway/token"},
	"gateway/internal/revoke":   {"gateway/token"},
	"gateway/internal/limit":    {"gateway/token"},
	"gateway/internal/inject":   {"gateway/token"},
	"gateway/internal/upstream": {"gateway/internal/inject", "gateway/internal/socket"},
	"gateway/internal/socket":   {},
	"test":                      {},
	"test/bench":                {},
	"test/bench/guest":          {},
}

// keepers are the only importers of modules that must be easy to leave.
var keepers = map[string]string{
	"github.com/lestrrat-go/jwx/": "gateway/internal/issuer",
	"gopkg.in/yaml.v3":            "gateway/config",
	"cel.dev/":                    "gateway/policy",
	"github.com/google/cel-go":    "gateway/policy",
	"github.com/miekg/dns":        "gateway/internal/upstream",
}

// pkg is what go list tells of a package.
type pkg struct {
	Dir, ImportPath                    string
	GoFiles, TestGoFiles, XTestGoFiles []string
	IgnoredGoFiles                     []string
	Imports, TestImports, XTestImports []string
}

// faults returns what is wrong with the arrows of these packages.
func faults(packages []pkg) []string {
	var found []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := arrows[name]
		if !known {
			found = append(found, fmt.Sprintf("%s is no room of the house", name))
			continue
		}
		imports := p.Imports
		if name == "test" {
			imports = slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		}
		for _, path := range imports {
			if to, ours := strings.CutPrefix(path, module); ours && !slices.Contains(allowed, to) {
				found = append(found, fmt.Sprintf("%s imports %s", name, to))
			}
		}
		for prefix, keeper := range keepers {
			for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				if strings.HasPrefix(path, prefix) && name != keeper {
					found = append(found, fmt.Sprintf("%s imports %s, which only %s may", name, path, keeper))
				}
			}
		}
		for _, word := range strings.Split(name, "/") {
			if slices.Contains([]string{"util", "utils", "common", "helpers", "misc", "shared"}, word) {
				found = append(found, fmt.Sprintf("%s has a name that says nothing", name))
			}
		}
	}
	return found
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,GoFiles,TestGoFiles,XTestGoFiles,IgnoredGoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestArrows(t *testing.T) {
	t.Parallel()
	packages := list(t)
	for _, fault := range faults(packages) {
		t.Error(fault)
	}
	if len(packages) != len(arrows) {
		t.Errorf("%d packages, %d in the table", len(packages), len(arrows))
	}
}

// TestBrokenArrowsAreFound shows that the check can fail.
func TestBrokenArrowsAreFound(t *testing.T) {
	t.Parallel()
	for _, c := range []pkg{
		{ImportPath: module + "gateway/token", Imports: []string{module + "gateway/config"}},
		{ImportPath: module + "gateway/internal/limit", Imports: []string{module + "gateway/internal/revoke"}},
		{ImportPath: module + "gateway/config", Imports: []string{"github.com/lestrrat-go/jwx/v2/jwk"}},
		{ImportPath: module + "gateway/internal/issuer", TestImports: []string{"gopkg.in/yaml.v3"}},
		{ImportPath: module + "gateway", Imports: []string{"cel.dev/cel-go/cel"}},
		{ImportPath: module + "test", TestImports: []string{module + "gateway/token"}},
		{ImportPath: module + "gateway/util"},
	} {
		if len(faults([]pkg{c})) == 0 {
			t.Errorf("nothing is wrong with %+v", c)
		}
	}
}

func TestEveryPackageHasOneDocComment(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		var documented []string
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil {
				documented = append(documented, name)
			}
		}
		if len(documented) != 1 {
			t.Errorf("%s has %d doc comments, want 1: %v", p.ImportPath, len(documented), documented)
		}
	}
}
