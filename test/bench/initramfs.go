package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// modules are what Debian's kernel needs to reach the files of the machine
// around it, in the order in which they are loaded. Some are part of the kernel
// in other versions.
var modules = []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "netfs", "fscache", "9pnet", "9pnet_virtio", "9p", "overlay"}

// unpackKernel takes a kernel out of Debian's package of it and writes it to a
// file, and the archive from which it starts (initramfs) to another: a first
// process and the modules.
func unpackKernel(deb, kernel, initramfs, first string) (err error) {
	archive, err := os.Create(initramfs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	program, err := os.ReadFile(first)
	if err != nil {
		return err
	}
	if err := cpioMember(archive, "init", 0o100755, program); err != nil {
		return err
	}
	files := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	files.Stderr = os.Stderr
	pipe, err := files.StdoutPipe()
	if err != nil {
		return err
	}
	if err := files.Start(); err != nil {
		return err
	}
	return errors.Join(pickKernel(tar.NewReader(pipe), kernel, archive), files.Wait(), cpioMember(archive, "TRAILER!!!", 0, nil))
}

// pickKernel reads a package's files to their end.
func pickKernel(files *tar.Reader, kernel string, archive io.Writer) error {
	found := false
	for {
		file, err := files.Next()
		if errors.Is(err, io.EOF) {
			if !found {
				return errors.New("the package holds no kernel")
			}
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Base(file.Name)
		module, packing, isModule := strings.Cut(name, ".ko")
		order := slices.Index(modules, module)
		isKernel := strings.HasPrefix(name, "vmlinuz-")
		if !isKernel && !(isModule && order >= 0) {
			continue
		}
		content, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		if isKernel {
			found, err = true, os.WriteFile(kernel, content, 0o644)
		} else {
			err = cpioMember(archive, fmt.Sprintf("%02d-%s.ko%s", order, module, packing), 0o100644, content)
		}
		if err != nil {
			return err
		}
	}
}

// cpioMember writes a file into an archive of the format that the kernel reads
// (newc, Documentation/driver-api/early-userspace/buffer-format.rst of Linux).
// The last one is empty and named TRAILER!!!.
func cpioMember(w io.Writer, name string, mode int, content []byte) error {
	size := len(content)
	_, err := fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00%s%s%s",
		0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name, padding(110+len(name)+1), content, padding(size))
	return err
}

// padding fills up to a multiple of four.
func padding(n int) string { return strings.Repeat("\x00", -n&3) }
