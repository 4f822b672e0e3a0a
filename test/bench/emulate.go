package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	emulator       = "qemu-system-x86_64"
	providerInside = "127.0.0.1:18099" // known before the guest starts, for tokens name it
	patience       = 3 * time.Hour     // with a guest
)

// forGuest are the settings where the command line says nothing else: a guest is
// some fifty times slower than this machine, and what it counts repeats.
func (s *settings) forGuest(flags *flag.FlagSet) error {
	if s.soak || s.grow || s.footprint {
		return errors.New("-emulate compares peers, and nothing else")
	}
	fewer := map[string]string{"rounds": "1", "seconds": "2", "unique": "6000", "cases": "pass-through,one-token,many-tokens,first-rs256,first-es256,first-eddsa"}
	if s.quick {
		fewer["cases"] = "many-tokens"
	}
	flags.Visit(func(given *flag.Flag) { delete(fewer, given.Name) })
	for name, value := range fewer {
		if err := flags.Set(name, value); err != nil {
			return err
		}
	}
	s.many = 1500
	return nil
}

// emulated measures the peers in a machine that QEMU emulates, one instruction
// of which takes one nanosecond of its own time (-icount shift=0): the processor
// time of a process there is the number of its instructions.
func (r *rig) emulated(cases []benchCase, peers []peer) error {
	if runtime.GOARCH != "amd64" {
		return errors.New("-emulate runs the programs of this machine in an emulated amd64, and this is another")
	}
	// Signing would take the guest longer than all the rest.
	for _, c := range cases {
		warm := c
		if c.Once {
			warm.Once, warm.Tokens = false, "one-"+c.Alg
		}
		for _, c := range []benchCase{c, warm} {
			if _, err := r.tokens(c); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(r.build("bench", "./test/bench"), r.build("guest", "./test/bench/guest")); err != nil {
		return err
	}
	cache := filepath.Join(r.root, "test", "bench", "results", "kernel")
	deb, err := r.kernelPackage(cache)
	if err != nil {
		return err
	}
	kernel, initramfs := filepath.Join(cache, "vmlinuz"), filepath.Join(cache, "initramfs")
	if err := unpackKernel(deb, kernel, initramfs, filepath.Join(r.dir, "guest")); err != nil {
		return fmt.Errorf("%s: %w", deb, errors.Join(err, os.Remove(deb))) // it may have come in part
	}
	said, err := r.boot(kernel, initramfs)
	if err != nil {
		return fmt.Errorf("the guest: %w; it ended with:\n%s", err, said)
	}
	files, err := filepath.Glob(filepath.Join(r.dir, "peers-*.json"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("the guest left no results; it ended with:\n%s", said)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return err
	}
	var got struct{ Results []result }
	if err := json.Unmarshal(text, &got); err != nil {
		return fmt.Errorf("the guest's results: %w", err)
	}
	r.counted = "counted in QEMU under " + strings.TrimSuffix(filepath.Base(deb), "_amd64.deb")
	t := counts(cases, peers, got.Results)
	r.say("\n%s", t.markdown())
	return r.keep("instructions", got.Results, []table{t}, "")
}

// kernelPackage downloads Debian's kernel, which is not installed, unless it is there.
func (r *rig) kernelPackage(cache string) (string, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	pattern := filepath.Join(cache, "linux-image-*.deb")
	if found, _ := filepath.Glob(pattern); len(found) > 0 {
		return found[0], nil
	}
	text, err := exec.CommandContext(r.ctx, "apt-cache", "depends", "linux-image-amd64").Output()
	_, name, known := strings.Cut(string(text), "Depends: ")
	if err != nil || !known {
		return "", fmt.Errorf("apt tells no kernel (linux-image-amd64); on Debian, apt-get update may help: %w", errors.Join(err, r.ctx.Err()))
	}
	name, _, _ = strings.Cut(name, "\n")
	r.say("downloading %s", name)
	download := exec.CommandContext(r.ctx, "apt-get", "download", name)
	download.Dir = cache
	if text, err := download.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w: %s", name, err, text)
	}
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download %s left %q", name, found)
	}
	return found[0], nil
}

// boot runs the guest until it turns itself off, and returns the end of what it
// says. It reads the files of this machine, writes those of this run, and has
// no network.
func (r *rig) boot(kernel, initramfs string) (said string, err error) {
	ctx, cancel := context.WithTimeoutCause(r.ctx, patience, fmt.Errorf("it took more than %v", patience))
	defer cancel()
	args := strings.Fields("-M q35 -nodefaults -display none -serial stdio -nic none -no-reboot -m 2G -smp 1 -accel tcg -icount shift=0,sleep=off -cpu max,-la57,-erms" +
		" -device virtio-9p-pci,fsdev=host,mount_tag=host -device virtio-9p-pci,fsdev=share,mount_tag=share")
	// What follows -- is the first process's.
	args = append(args, "-kernel", kernel, "-initrd", initramfs, "-append", fmt.Sprintf(
		"console=ttyS0 quiet mitigations=off tsc=reliable panic=-1 -- -inside=/tmp/bench -results=/mnt -rounds=%d -seconds=%d -cases=%s -peers=%s",
		r.rounds, r.seconds, r.cases, r.peers),
		"-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
		"-fsdev", "local,id=share,path="+r.dir+",security_model=none")
	qemu := exec.CommandContext(ctx, emulator, args...)
	qemu.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C reaches it through us
	console, err := qemu.StdoutPipe()
	if err != nil {
		return "", err
	}
	qemu.Stderr = qemu.Stdout
	r.say("starting the guest, which is some fifty times slower")
	if err := qemu.Start(); err != nil {
		return "", err
	}
	var last []string
	for lines := bufio.NewScanner(console); lines.Scan(); {
		r.say("guest: %s", lines.Text())
		last = append(last[max(0, len(last)-9):], lines.Text())
	}
	err = qemu.Wait()
	return strings.Join(last, "\n"), errors.Join(context.Cause(ctx), err)
}

// counts is the table of what the guest counted.
func counts(cases []benchCase, peers []peer, results []result) table {
	t := table{Title: "Instructions", About: "Thousand instructions a request, in user mode and in the kernel: least, median, most",
		Head: []string{"case", "peer", "kinstr", peers[0].Name + " ÷ it"}}
	for _, c := range cases {
		first := column(of(results, c.Name, peers[0].Name), instructionsOf)
		for _, p := range peers {
			if mine := column(of(results, c.Name, p.Name), instructionsOf); len(mine) > 0 {
				t.Rows = append(t.Rows, []string{c.Name, p.Name, spread(mine), ratio(first, mine)})
			}
		}
	}
	return t
}
