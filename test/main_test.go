// Package test proves the gateway from outside. It builds the binary, starts it
// as a process with a routes.yaml, and talks to it over sockets; behind it
// stand recording backends, a real Redis and a real identity provider. It
// imports nothing of the gateway's.
//
// Files named harness_* are the stage, one prop each; every other file is the
// stories of one room of the house.
package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the gateway, built once, with the race detector.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if len(os.Args) == 3 && os.Args[1] == memberCommand {
		return serveAsMember(os.Args[2])
	}
	dir, err := os.MkdirTemp("", "gatehouse-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "gatehouse")
	if out, err := exec.Command("go", "build", fmt.Sprintf("-race=%v", !veryLarge), "-pgo=off", "-o", binary, "../cmd/gatehouse").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build ../cmd/gatehouse: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
