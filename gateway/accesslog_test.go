package gateway

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page names each field of a request's line, and none that is not written.
func TestAccessLogIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("accesslog.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| field | |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	documented := map[string]bool{}
	for line := range strings.Lines(table) {
		names, _, _ := strings.Cut(line[1:], "|")
		for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(names, -1) {
			documented[name[1]] = true
		}
	}
	written := []string{"time", "level", "msg"}
	for _, name := range regexp.MustCompile(`slog\.\w+\("(\w+)"`).FindAllStringSubmatch(string(code), -1) {
		written = append(written, name[1])
	}
	for _, name := range written {
		if !documented[name] {
			t.Errorf("docs/operating.md does not tell of %s", name)
		}
	}
	for name := range documented {
		if !slices.Contains(written, name) {
			t.Errorf("docs/operating.md tells of %s, which is not written", name)
		}
	}
}
