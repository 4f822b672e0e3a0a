package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// instructions are what processes executed in user mode and in the kernel.
type instructions struct{ User, Kernel float64 }

const events = "instructions:u,instructions:k"

// counters says why instructions cannot be counted here; nil if they can.
func counters(ctx context.Context, dir string) error {
	program, err := exec.LookPath("perf")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "perf-probe")
	if out, err := exec.CommandContext(ctx, program, "stat", "-x,", "-e", events, "-o", file, "--", "true").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %.300s", err, out)
	}
	_, err = readCounters(file)
	return err
}

// counted puts perf before a command, to count what the processes execute
// until it ends.
func counted(pids []int, file string, command []string) []string {
	var list []string
	for _, pid := range pids {
		list = append(list, strconv.Itoa(pid))
	}
	return append([]string{"perf", "stat", "-x,", "-e", events, "-p", strings.Join(list, ","), "-o", file, "--"}, command...)
}

// readCounters reads what perf stat -x, wrote: a line for each event, with the
// count first and the event's name third.
func readCounters(file string) (instructions, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return instructions{}, err
	}
	var got instructions
	found := 0
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Split(line, ",")
		if len(fields) < 3 || !strings.HasPrefix(fields[2], "instructions:") {
			continue
		}
		n, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return instructions{}, fmt.Errorf("%s is %s", fields[2], fields[0])
		}
		if found++; strings.HasPrefix(fields[2], "instructions:u") {
			got.User = n
		} else {
			got.Kernel = n
		}
	}
	if found != 2 {
		return instructions{}, fmt.Errorf("perf tells no instructions: %.300s", text)
	}
	return got, nil
}
