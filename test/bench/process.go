package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that was started here, in a process group of its own, so that
// a Ctrl-C reaches it through us alone and none of its children is left over.
type process struct {
	cmd    *exec.Cmd
	output string // file of what it writes
	exited chan struct{}
}

// launch starts a program that writes to a file.
func launch(cmd *exec.Cmd, output string) (*process, error) {
	// Whoever cuts the file shorter while the program runs must not leave a hole.
	file, err := os.OpenFile(output, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, output, make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// stop ends the process and its children.
func (p *process) stop() {
	_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what is left of its group
	<-p.exited
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// said returns the end of what the process wrote.
func (p *process) said() string {
	text, _ := os.ReadFile(p.output)
	return string(text[max(0, len(text)-2000):])
}

// tree returns the process and all of its descendants.
func (p *process) tree() []int {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for _, child := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(child); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// processorTime is the user and system time of the processes, of threads that
// have ended, too: the CPU-time clock of each (clock_getcpuclockid(3)).
func processorTime(pids []int) (time.Duration, error) {
	const exact = 2 // to the nanosecond (CPUCLOCK_SCHED, include/linux/posix-timers_types.h of Linux)
	var total time.Duration
	for _, pid := range pids {
		var spent unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|exact), &spent); err != nil {
			return 0, fmt.Errorf("the processor time of process %d: %w", pid, err)
		}
		total += time.Duration(spent.Nano())
	}
	return total, nil
}

// resident is the memory of the processes together (VmRSS), in bytes. What
// they share counts for each.
func resident(pids []int) (int64, error) {
	var total int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return 0, err
		}
		pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
		if err != nil {
			return 0, err
		}
		total += pages * int64(os.Getpagesize())
	}
	return total, nil
}
