// Command guest is the first process of the machine that bench -emulate
// starts. It makes that machine look like the one around it, whose files it may
// read but not write, and runs the bench in it.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the first process of an emulated machine, and turns it off when it is done")
		os.Exit(2)
	}
	err := enter()
	if err == nil {
		bench := exec.Command("/tmp/bench/bench", os.Args[1:]...)
		bench.Stdout, bench.Stderr = os.Stdout, os.Stderr
		bench.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
		err = bench.Run()
	}
	if err != nil {
		fmt.Println("guest:", err)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// enter loads the kernel's modules, puts a layer in memory over the files of
// the machine around this one, makes that the root, and copies to /tmp/bench
// what was handed in at /mnt. What runs works in memory alone: a log that left
// the guest would cost its writer what no other machine asks for it.
func enter() error {
	modules, err := filepath.Glob("/*.ko*") // in the order of their names
	if err != nil {
		return err
	}
	for _, module := range modules {
		if err := load(module); err != nil {
			return fmt.Errorf("%s: %w", module, err)
		}
	}
	for _, dir := range []string{"/upper", "/work", "/host", "/root"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	const shared = "trans=virtio,version=9p2000.L,msize=512000"
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		options              string
	}{
		{"host", "/host", "9p", unix.MS_RDONLY, shared + ",cache=loose"},
		{"layers", "/root", "overlay", 0, "lowerdir=/host,upperdir=/upper,workdir=/work"},
		{"proc", "/root/proc", "proc", 0, ""},
		{"sysfs", "/root/sys", "sysfs", 0, ""},
		{"devices", "/root/dev", "devtmpfs", 0, ""},
		{"memory", "/root/tmp", "tmpfs", 0, ""},
		{"share", "/root/mnt", "9p", 0, shared},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := unix.Chroot("/root"); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := loopback(); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return os.CopyFS("/tmp/bench", os.DirFS("/mnt"))
}

// load loads a module of the kernel, which unpacks it where it is packed.
func load(module string) error {
	file, err := os.Open(module)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	flags := 0
	if filepath.Ext(module) != ".ko" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(file.Fd()), "", flags)
}

// loopback raises the only network that there is.
func loopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo)
}
