//go:build image

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

const hostPlatform = "linux/" + runtime.GOARCH

// patience bounds one call of podman; a build from cold caches takes longest.
const patience = 20 * time.Minute

// podman is a private one: images and containers are in a directory of its own.
type podman struct{ dir string }

// It must run as root without systemd, without the right to raise limits, and
// with control groups of either version.
const containersConf = `[containers]
default_ulimits = ["nofile=4096:4096", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
`

// newPodman prepares the directory, and puts stand-ins for what a registry would give.
func newPodman() (*podman, error) {
	dir, err := os.MkdirTemp("", "gatehouse-image-")
	if err != nil {
		return nil, err
	}
	p := &podman{dir}
	storage := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", dir+"/graph", dir+"/run")
	err = errors.Join(
		os.WriteFile(dir+"/containers.conf", []byte(containersConf), 0o600),
		os.WriteFile(dir+"/storage.conf", []byte(storage), 0o600),
	)
	if err == nil {
		err = p.importBuildImage()
	}
	if err == nil {
		err = p.importBackend()
	}
	if err != nil {
		err = errors.Join(err, p.clean())
	}
	return p, err
}

// run calls podman and returns what it printed to standard output.
func (p *podman) run(args ...string) (string, error) { return p.runWithin(patience, args...) }

func (p *podman) runWithin(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return p.output(exec.CommandContext(ctx, "podman", args...))
}

func (p *podman) output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+p.dir+"/containers.conf", "CONTAINERS_STORAGE_CONF="+p.dir+"/storage.conf")
	cmd.WaitDelay = time.Second // conmon may hold the pipes open
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// importBuildImage stands in for the image of Go's tools: a shell, and the
// authorities. Go itself is this machine's, mounted when it builds.
func (p *podman) importBuildImage() error {
	root := p.dir + "/golang"
	if err := os.MkdirAll(root+"/bin", 0o755); err != nil {
		return err
	}
	box, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	for _, applet := range []string{"sh", "mkdir", "cat"} {
		if err := copyFile(box, root+"/bin/"+applet, 0o755); err != nil {
			return err
		}
	}
	authorities, err := filepath.Glob("/usr/share/ca-certificates/mozilla/*.crt")
	if err == nil && len(authorities) == 0 {
		err = errors.New("no authorities in /usr/share/ca-certificates/mozilla")
	}
	if err != nil {
		return err
	}
	var bundle bytes.Buffer
	for _, name := range authorities {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		bundle.Write(text)
	}
	if err := errors.Join(
		os.MkdirAll(root+"/etc/ssl/certs", 0o755),
		os.MkdirAll(root+"/tmp", 0o1777),
		os.WriteFile(root+"/etc/ssl/certs/ca-certificates.crt", bundle.Bytes(), 0o644),
		os.WriteFile(root+"/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644),
	); err != nil {
		return err
	}
	name, err := buildImageName()
	if err != nil {
		return err
	}
	return p.importRoot(root, "docker.io/library/"+name, "PATH=/usr/local/go/bin:/bin", "GOPATH=/go", "GOTOOLCHAIN=local",
		"GOPROXY=off", "HOME=/root", "GOCACHE=/root/.cache/go-build")
}

// buildImageName is the very name that the Dockerfile gives.
func buildImageName() (string, error) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "ARG BUILD_IMAGE="); ok {
			return strings.TrimSpace(name), nil
		}
	}
	return "", errors.New("the Dockerfile has no ARG BUILD_IMAGE")
}

func (p *podman) importBackend() error {
	root := p.dir + "/backend"
	cmd := exec.Command("go", "build", "-tags", "image", "-o", root+"/backend", "./backend")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./backend: %w\n%s", err, out)
	}
	return p.importRoot(root, "localhost/backend")
}

func (p *podman) importRoot(root, name string, env ...string) error {
	archive := root + ".tar"
	if out, err := exec.Command("tar", "-C", root, "-cf", archive, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("tar: %w\n%s", err, out)
	}
	args := []string{"import"}
	for _, e := range env {
		args = append(args, "--change", "ENV "+e)
	}
	_, err := p.run(append(args, archive, name)...)
	return err
}

// image is one that was built from the Dockerfile.
type image struct {
	*podman
	name string
}

// build builds the Dockerfile for a platform, with the network off and nothing
// from any registry. What it writes into this machine's caches is thrown away.
func (p *podman) build(platform, name string) (*image, error) {
	paths, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		return nil, err
	}
	where := strings.Fields(string(paths))
	_, err = p.run("build", "--format", "docker", // OCI's has no HEALTHCHECK
		"--network", "none", "--pull=never", "--layers=false", "--no-cache",
		"--platform", platform, "--build-arg", "BUILDPLATFORM="+hostPlatform, // a podman before 4.4 does not know it
		"--build-arg", "VERSION=v1.2.3", "--build-arg", "REVISION=0123456789abcdef",
		"-v", where[0]+":/usr/local/go:ro", "-v", where[1]+":/go/pkg/mod:O", "-v", where[2]+":/root/.cache/go-build:O",
		"-t", name, "../..")
	return &image{p, name}, err
}

// clean ends every container and takes away all that newPodman made.
func (p *podman) clean() error {
	for range 2 { // the first may leave what it was still stopping
		_, _ = p.runWithin(time.Minute, "rm", "-fa", "-t", "0")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var below []string
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, p.dir+"/") {
			below = append(below, at)
		}
	}
	slices.Sort(below)
	slices.Reverse(below) // what lies deeper first
	for _, at := range below {
		_ = syscall.Unmount(at, syscall.MNT_DETACH)
	}
	return os.RemoveAll(p.dir)
}

func copyFile(from, to string, mode os.FileMode) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, mode)
}
