//go:build keycloak

// Package keycloak proves the gateway against a real Keycloak, from outside:
// it builds the binary and imports nothing of the gateway's. make test-keycloak
// fetches Keycloak and runs it; without the build tag there is nothing here.
//
// Files named harness_* are the stage, one prop each.
package keycloak

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the gateway, built once with the race detector.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gatehouse-keycloak-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "gatehouse")
	if out, err := exec.Command("go", "build", "-race", "-pgo=off", "-o", binary, "../../cmd/gatehouse").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build ../../cmd/gatehouse: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
