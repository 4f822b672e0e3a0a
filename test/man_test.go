package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestManualPages: one for the program and each command, with the time of the
// source in it and not that of the build.
func TestManualPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command("go", "run", "-tags", "man,nodemo", "../cmd/gatehouse", "man", dir)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1767225600")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pages, err := filepath.Glob(dir + "/*.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gatehouse", "gatehouse-serve", "gatehouse-check", "gatehouse-healthcheck", "gatehouse-completion-bash"} {
		if !slices.Contains(pages, filepath.Join(dir, name+".1")) {
			t.Errorf("no page %s.1 among %v", name, pages)
		}
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"Jan 2026"`, ".SH NAME", ".SH SYNOPSIS"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no %s", page, want)
			}
		}
	}
	if status, out := command(t, "", "man", dir); status == 0 {
		t.Errorf("the program itself carries the pages: %s", out)
	}
}
