//go:build image

// Package image proves the container image: it builds the Dockerfile with podman,
// without any registry, and runs the result locked down. It imports nothing of the
// gateway's, needs root, and leaves nothing behind. make test-image installs what
// it needs; without the build tag there is nothing here.
//
// Files named harness_* are the stage, one prop each.
package image

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// built is the image of this machine's architecture, built once.
var built *image

func run(m *testing.M) (status int) {
	stage, err := newPodman()
	if err != nil {
		fmt.Fprintln(os.Stderr, "no image can be built or run here, so NOTHING was tested:", err)
		return 1
	}
	defer func() {
		if err := stage.clean(); err != nil {
			fmt.Fprintln(os.Stderr, "the containers are not cleaned up:", err)
			status = 1
		}
	}()
	if built, err = stage.build(hostPlatform, "gatehouse"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
