//go:build image

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const megabyte = 1_000_000

// TestImageIsSmallAndHoldsNothingElse: no shell, no tool, nothing that is not needed.
func TestImageIsSmallAndHoldsNothingElse(t *testing.T) {
	layers := built.layers(t)
	var files []string
	for _, layer := range layers {
		walk(t, layer, func(name string, _ []byte) { files = append(files, name) })
	}
	slices.Sort(files)
	if want := []string{"etc/ssl/certs/ca-certificates.crt", "gatehouse"}; !slices.Equal(files, want) {
		t.Errorf("it holds %v, want %v", files, want)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	unpacked, err := w.Write(bytes.Join(layers, nil))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB, compressed %.1f MB", float64(unpacked)/megabyte, float64(packed.Len())/megabyte)
	if unpacked > 40*megabyte || packed.Len() > 15*megabyte {
		t.Errorf("%d bytes, compressed %d; want at most 40 and 15 MB", unpacked, packed.Len())
	}
}

func TestImageSaysWhatItIs(t *testing.T) {
	text, err := built.run("image", "inspect", built.name)
	if err != nil {
		t.Fatal(err)
	}
	var found []struct {
		Config struct {
			User, StopSignal string
			Labels           map[string]string
			Entrypoint, Cmd  []string
			ExposedPorts     map[string]struct{}
		}
		Healthcheck struct{ Test []string }
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil || len(found) != 1 {
		t.Fatalf("%v\n%s", err, text)
	}
	c := found[0].Config
	if c.User != "65532:65532" || c.StopSignal != "SIGTERM" && c.StopSignal != "15" {
		t.Errorf("user %q, stop signal %q", c.User, c.StopSignal)
	}
	if c.Labels["org.opencontainers.image.version"] != "v1.2.3" || c.Labels["org.opencontainers.image.revision"] != "0123456789abcdef" || c.Labels["org.opencontainers.image.licenses"] != "Apache-2.0" {
		t.Errorf("labels %v", c.Labels)
	}
	if health := strings.Join(found[0].Healthcheck.Test, " "); !strings.Contains(health, "/gatehouse healthcheck") || strings.HasPrefix(health, "CMD-SHELL") {
		t.Errorf("health check %q", health)
	}
	out, err := built.run("run", "--rm", "--network", "none", built.name, "--version")
	if err != nil || !strings.HasPrefix(out, "gatehouse version v1.2.3, revision 0123456789abcdef, go1.") {
		t.Errorf("--version: %q, %v", out, err)
	}
}

// TestSameSourceGivesTheSameBinary builds once more, and once outside of
// any container, in another directory.
func TestSameSourceGivesTheSameBinary(t *testing.T) {
	again, err := built.build(hostPlatform, "again")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "gatehouse")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "nodemo",
		"-ldflags=-s -w -X main.version=v1.2.3 -X main.revision=0123456789abcdef", "-o", out, "../../cmd/gatehouse")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	outside, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := sha256.Sum256(built.binary(t)), sha256.Sum256(again.binary(t)), sha256.Sum256(outside)
	if first != second || first != third {
		t.Errorf("three builds of one source: %x, %x, %x", first, second, third)
	}
}

func TestImageForOtherMachines(t *testing.T) {
	for platform, machine := range map[string]elf.Machine{"linux/amd64": elf.EM_X86_64, "linux/arm64": elf.EM_AARCH64} {
		image := built
		if platform != hostPlatform {
			var err error
			if image, err = built.build(platform, "other"); err != nil {
				t.Fatal(err)
			}
		}
		said, err := image.run("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", image.name)
		if err != nil || strings.TrimSpace(said) != platform {
			t.Errorf("the image says %q, want %s; %v", said, platform, err)
		}
		program, err := elf.NewFile(bytes.NewReader(image.binary(t)))
		if err != nil {
			t.Fatal(err)
		}
		if program.Machine != machine {
			t.Errorf("%s has a program for %v", platform, program.Machine)
		}
		if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 || program.Section(".interp") != nil {
			t.Errorf("%s: not static: %v, %v", platform, libraries, err)
		}
	}
}

// layers are the image's archives of files, as a registry would pack them.
func (i *image) layers(t *testing.T) (layers [][]byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	if _, err := i.run("save", "--format", "docker-archive", "-o", path, i.name); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	walk(t, saved, func(name string, content []byte) {
		if strings.HasSuffix(name, ".tar") {
			layers = append(layers, content)
		}
	})
	return layers
}

func (i *image) binary(t *testing.T) (program []byte) {
	t.Helper()
	for _, layer := range i.layers(t) {
		walk(t, layer, func(name string, content []byte) {
			if name == "gatehouse" {
				program = content
			}
		})
	}
	if program == nil {
		t.Fatal("no program in the image")
	}
	return program
}

// walk visits the regular files of an archive.
func walk(t *testing.T, archive []byte, visit func(name string, content []byte)) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.FileInfo().Mode().Type() == fs.FileMode(0) {
			visit(strings.TrimPrefix(h.Name, "./"), content)
		}
	}
}
