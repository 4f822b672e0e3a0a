// Package examples proves docs/examples: each document is decoded strictly into the
// types of Kubernetes or Compose, what refers to something finds it, and every
// routes.yaml passes gatehouse check. It is a module of its own, for its
// dependencies' sake.
package examples

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const examples = "../../docs/examples/"

// binary is the gateway, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gatehouse-examples-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "gatehouse")
	if out, err := exec.Command("go", "build", "-C", "../..", "-tags", "nodemo", "-pgo=off", "-o", binary, "./cmd/gatehouse").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// checks runs gatehouse check on a routes.yaml. A warning is a fault here.
func checks(t *testing.T, what, routes string, env ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(path, []byte(routes), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "check", "--config", path)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "warning:") {
		t.Errorf("gatehouse check of the routes.yaml of %s: %v\n%s", what, err, out)
	}
}

// understands says whether the gateway knows the command and all of its flags:
// with --help after them it reads them, and does nothing.
func understands(t *testing.T, what string, args []string) {
	t.Helper()
	if out, err := exec.Command(binary, append(args, "--help")...).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "Serve ") {
		t.Errorf("%s: gatehouse %v: %v\n%s", what, args, err, out)
	}
}
