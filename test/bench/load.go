package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// load is what a load tool counted.
type load struct {
	Requests int
	Seconds  float64
	P50, P99 float64 // microseconds
}

// connections is how many clients there are at saturation.
const connections = 64

// wrk returns the command that sends a case's requests.
func (r *rig) wrk(url, tokens string, c benchCase, length time.Duration) ([]string, error) {
	script := filepath.Join(r.dir, "load.lua")
	if !exists(script) {
		text, err := templates.ReadFile("peers/load.lua")
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(script, text, 0o600); err != nil {
			return nil, err
		}
	}
	command := []string{"wrk", "-t1", "-c" + strconv.Itoa(connections), "--latency", "--timeout", "20s",
		fmt.Sprintf("-d%ds", int(length.Seconds())), "-s", script, url, "--", tokens, c.Path, c.Method, strconv.Itoa(c.Body)}
	if c.Once {
		command = append(command, "once")
	}
	return command, nil
}

// h2load returns the command for HTTP/2, which sends one token, and writes a
// line for each request into a log.
func (r *rig) h2load(url, tokens string, c benchCase, length time.Duration) ([]string, error) {
	token, err := os.ReadFile(tokens)
	if err != nil {
		return nil, err
	}
	return []string{"h2load", "-t1", "-c" + strconv.Itoa(connections), "-m1", fmt.Sprintf("-D%d", int(length.Seconds())),
		"--log-file", filepath.Join(r.dir, "h2load.log"), "-H", "authorization: Bearer " + strings.TrimSpace(string(token)), url + c.Path}, nil
}

// press sends a case's requests for a time. With counts it also says what the
// processes executed meanwhile.
func (r *rig) press(s *stand, c benchCase, tokens string, length time.Duration, pids []int, counts *instructions) (load, error) {
	tool := r.wrk
	if c.HTTP2 {
		tool = r.h2load
		_ = os.Remove(filepath.Join(r.dir, "h2load.log"))
	}
	command, err := tool(s.url, tokens, c, length)
	if err != nil {
		return load{}, err
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return load{}, fmt.Errorf("%w: %w", errMissing, err)
	}
	file := filepath.Join(r.dir, "perf")
	if counts != nil {
		command = counted(pids, file, command)
	}
	cmd := exec.CommandContext(r.ctx, command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // perf's child, too
	text, err := cmd.CombinedOutput()
	if err != nil {
		return load{}, errors.Join(r.ctx.Err(), fmt.Errorf("%s: %w: %.1000s", command[0], err, text))
	}
	if counts != nil {
		if *counts, err = readCounters(file); err != nil {
			return load{}, err
		}
	}
	if c.HTTP2 {
		return readH2load(text, filepath.Join(r.dir, "h2load.log"), length)
	}
	return readWrk(text)
}

// readWrk reads the line that load.lua writes when wrk is done.
func readWrk(text []byte) (load, error) {
	var got struct{ Requests, Micros, Refused, Broken, P50, P99 int }
	i := bytes.LastIndexByte(text, '{')
	if i < 0 {
		return load{}, fmt.Errorf("wrk says: %.1000s", text)
	}
	if err := json.Unmarshal(bytes.TrimSpace(text[i:]), &got); err != nil {
		return load{}, fmt.Errorf("wrk says: %.1000s", text)
	}
	if got.Requests == 0 || got.Refused+got.Broken > 0 {
		return load{}, fmt.Errorf("of %d requests %d were refused, and %d broke off", got.Requests, got.Refused, got.Broken)
	}
	return load{got.Requests, float64(got.Micros) / 1e6, float64(got.P50), float64(got.P99)}, nil
}

// readH2load reads the log of h2load: start, status and duration of each
// request, in microseconds, with tabs between them.
func readH2load(text []byte, log string, length time.Duration) (load, error) {
	file, err := os.Open(log)
	if err != nil {
		return load{}, fmt.Errorf("%w: %.1000s", err, text)
	}
	defer func() { _ = file.Close() }()
	var took []float64
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 3 || fields[1] != "200" {
			return load{}, fmt.Errorf("h2load logs %q", lines.Text())
		}
		micros, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			return load{}, err
		}
		took = append(took, micros)
	}
	if len(took) == 0 {
		return load{}, fmt.Errorf("h2load made no request: %.1000s", text)
	}
	slices.Sort(took)
	return load{len(took), length.Seconds(), quantile(took, 0.5), quantile(took, 0.99)}, nil
}

// quantile of sorted numbers.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
