package test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// chromium is a browser; see page/browse.js.
type chromium struct {
	*process
	asked int
}

// newChromium starts one. make test-page installs what it needs.
func newChromium(t *testing.T) *chromium {
	t.Helper()
	if os.Getenv("GATEHOUSE_TEST_PAGE") == "" {
		t.Skip("a browser is started by make test-page alone")
	}
	c := &chromium{process: launch(t, "node", "page/browse.js")}
	t.Cleanup(func() { // before launch's own, which would leave the browser behind
		_ = c.stdin.Close()
		c.exit(t)
	})
	c.output.says(t, `{"ready":true}`)
	return c
}

// run runs a script of browse.js and returns what it returned.
func (c *chromium) run(t *testing.T, script string, args ...any) any {
	t.Helper()
	c.asked++
	line, err := json.Marshal(map[string]any{"id": c.asked, "script": script, "args": args})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.stdin, string(line)+"\n"); err != nil {
		t.Fatal(err)
	}
	var reply struct {
		Value any
		Error string
	}
	begin := fmt.Sprintf(`{"id":%d,`, c.asked)
	eventually(t, "the browser has done: "+script, func() bool {
		_, rest, _ := strings.Cut(c.output.String(), begin)
		text, _, whole := strings.Cut(rest, "\n")
		return whole && json.Unmarshal([]byte("{"+text), &reply) == nil
	})
	if reply.Error != "" {
		t.Fatalf("the browser: %s\n%s", reply.Error, script)
	}
	return reply.Value
}

// quiet expects that the page caused nothing that it must not.
func (c *chromium) quiet(t *testing.T) {
	t.Helper()
	for _, what := range c.run(t, `return noise()`).([]any) {
		t.Errorf("the page caused %v", what)
	}
}
