package main

import (
	"archive/tar"
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTheKernelOfAPackageAndItsModules(t *testing.T) {
	t.Parallel()
	var unpack []string
	for _, program := range [][]string{{"cpio"}, {"busybox", "cpio"}} {
		if _, err := exec.LookPath(program[0]); err == nil {
			unpack = append(program, "-id")
		}
	}
	if unpack == nil {
		t.Skip("nothing here reads a cpio archive")
	}
	deb := func(names ...string) *tar.Reader {
		var text bytes.Buffer
		w := tar.NewWriter(&text)
		for _, name := range names {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(name))}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, name); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return tar.NewReader(&text)
	}
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	var archive bytes.Buffer
	err := pickKernel(deb("./boot/config-6", "./boot/vmlinuz-6", "./lib/9p.ko.xz", "./lib/virtio.ko", "./lib/virtio_net.ko", "./doc/9p"), kernel, &archive)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(kernel); err != nil || string(text) != "./boot/vmlinuz-6" {
		t.Errorf("%q %v", text, err)
	}
	if err := cpioMember(&archive, "TRAILER!!!", 0, nil); err != nil {
		t.Fatal(err)
	}
	into := t.TempDir()
	cmd := exec.Command(unpack[0], unpack[1:]...)
	cmd.Dir, cmd.Stdin = into, &archive
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	files, err := os.ReadDir(into)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for name, want := range map[string]string{"01-virtio.ko": "./lib/virtio.ko", "09-9p.ko.xz": "./lib/9p.ko.xz"} {
		if text, err := os.ReadFile(filepath.Join(into, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
	if err := pickKernel(deb("./lib/virtio.ko"), kernel, io.Discard); err == nil {
		t.Error("a package without a kernel is taken")
	}
}

func TestSettingsForAGuest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args            []string
		rounds, seconds int
		cases           string
	}{
		{nil, 1, 2, "pass-through,one-token,many-tokens,first-rs256,first-es256,first-eddsa"},
		{[]string{"-rounds", "3"}, 3, 2, "pass-through,one-token,many-tokens,first-rs256,first-es256,first-eddsa"},
		{[]string{"-cases", "tls", "-seconds", "9"}, 1, 9, "tls"},
	} {
		var s settings
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		flags.IntVar(&s.rounds, "rounds", 7, "")
		flags.IntVar(&s.seconds, "seconds", 7, "")
		flags.IntVar(&s.unique, "unique", 7, "")
		flags.StringVar(&s.cases, "cases", "", "")
		if err := flags.Parse(test.args); err != nil {
			t.Fatal(err)
		}
		if err := s.forGuest(flags); err != nil || s.rounds != test.rounds || s.seconds != test.seconds || s.cases != test.cases || s.unique != 6000 {
			t.Errorf("%v: %v %+v", test.args, err, s)
		}
	}
	if err := (&settings{grow: true}).forGuest(flag.NewFlagSet("", flag.ContinueOnError)); err == nil || !strings.Contains(err.Error(), "compares peers") {
		t.Error(err)
	}
}

func TestKeysThatAreHandedIn(t *testing.T) {
	t.Parallel()
	made, err := newSigners()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := made.save(file); err != nil {
		t.Fatal(err)
	}
	read, err := readSigners(file)
	if err != nil || !read.rsa.Equal(made.rsa) || !read.ec.Equal(made.ec) || !read.ed.Equal(made.ed) {
		t.Error(read, err)
	}
	if _, err := readSigners(file + "-not"); err == nil {
		t.Error("a file that is not there is taken")
	}
}

func TestProcessorTimeIsThatOfEndedThreads(t *testing.T) {
	spent := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			t.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	start := spent()
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		defer close(ended)
		for spent()-start < 50*time.Millisecond {
			_ = strings.Repeat("x", 1000)
		}
	}()
	<-ended
	before := spent()
	got, err := processorTime([]int{os.Getpid()})
	after := spent() + 2*time.Microsecond // two times that getrusage cut off
	if err != nil || got < before || got > after {
		t.Errorf("%v, which is not from %v to %v (%v)", got, before, after, err)
	}
	if _, err := processorTime([]int{1 << 25}); err == nil {
		t.Error("a process that is not there has taken time")
	}
}

// fakeEmulator puts a script in the place of QEMU.
func fakeEmulator(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, emulator), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestWhatAGuestSaysLast(t *testing.T) {
	fakeEmulator(t, `for n in 1 2 3 4 5 6 7 8 9 10 11; do echo line $n; done; echo no disk >&2; exit 3`)
	var out strings.Builder
	r := &rig{ctx: t.Context(), out: &out, dir: t.TempDir()}
	said, err := r.boot("kernel", "initramfs")
	if err == nil || strings.Count(said, "\n") != 9 || !strings.HasPrefix(said, "line 3\n") || !strings.HasSuffix(said, "no disk") {
		t.Errorf("%v: %s", err, said)
	}
	if !strings.Contains(out.String(), "guest: line 1\n") {
		t.Errorf("the guest's lines are not told: %s", out.String())
	}
}

func TestAStoppedGuestEnds(t *testing.T) {
	fakeEmulator(t, `echo I am up; exec sleep 3601.5`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &rig{ctx: ctx, out: stopping{"I am up", cancel}, dir: t.TempDir()}
	if _, err := r.boot("kernel", "initramfs"); err == nil {
		t.Error("it ended well")
	}
	if left := leftOver(t, "3601.5"); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	k := func(f float64) *float64 { return &f }
	got := counts([]benchCase{{Name: "some"}, {Name: "absent"}}, []peer{{Name: "gatehouse"}, {Name: "nginx"}, {Name: "haproxy"}}, []result{
		{Case: "some", Peer: "gatehouse", Instructions: k(30)}, {Case: "some", Peer: "gatehouse", Instructions: k(10)},
		{Case: "some", Peer: "gatehouse", Instructions: k(20)}, {Case: "some", Peer: "nginx", Instructions: k(5)},
	})
	want := [][]string{{"some", "gatehouse", "10.0 / 20.0 / 30.0", "1.00"}, {"some", "nginx", "5.00", "4.00"}}
	if !slices.EqualFunc(got.Rows, want, slices.Equal) {
		t.Errorf("%q", got.Rows)
	}
}
