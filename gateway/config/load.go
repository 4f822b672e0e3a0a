package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"syscall"

	"gopkg.in/yaml.v3"
)

// MaxBytes is how long a configuration file may be: room for some ten thousand routes.
const MaxBytes = 4 << 20

// Options are what reading a file takes from around it.
type Options struct {
	Env func(name string) (string, bool) // the environment; nil: os.LookupEnv
	// Reads is told of each file that the configuration names, before it is read
	// here or by whoever uses the configuration; nil: nobody asks.
	Reads func(path string)
}

// Load reads the file at path as [Parse] does. The error is a [Faults], or that
// of reading the file.
func Load(path string, o Options) (*Config, []Fault, error) {
	if o.Reads != nil {
		o.Reads(path)
	}
	data, err := readLimited(path)
	if err != nil {
		return nil, nil, err
	}
	return Parse(path, data, o)
}

// readLimited returns at most one byte more of a file than one may have.
func readLimited(path string) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxBytes+1))
}

// open opens a file to read. A named pipe that nobody writes to is empty: to wait
// for one would end all reloading, and keep serve from ending.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// Parse reads the text of a configuration. file is its name, for positions, and
// relative paths in it start at its directory. The error is a [Faults] with
// everything that is wrong; without one, the faults returned beside the
// configuration are warnings: what is allowed, yet probably not meant.
func Parse(file string, data []byte, o Options) (*Config, []Fault, error) {
	if o.Env == nil {
		o.Env = os.LookupEnv
	}
	root, fault := document(file, data, "issuers and routes")
	if fault != nil {
		return nil, nil, Faults{*fault}
	}
	if o.Reads == nil {
		o.Reads = func(string) {}
	}
	r := newReader(file, o)
	var f fileConfig
	r.pos[""] = r.place(root)
	r.value(root, "", reflect.ValueOf(&f).Elem(), "")
	cfg := r.config(&f)
	if err := append(r.faults, r.policyFaults...).Err(); err != nil {
		return nil, nil, err
	}
	return cfg, cfg.warnings(), nil
}

func newReader(file string, o Options) *reader {
	return &reader{
		source: source{file: file, pos: map[string]Pos{}, written: map[string]written{}},
		dir:    filepath.Dir(file),
		env:    o.Env,
		reads:  o.Reads,
		bad:    map[string]bool{},
		types:  map[reflect.Type]map[string]int{},
		hints:  1 << 16,
	}
}

// document returns the root of the one YAML document that data must be, which
// holds at least what need says.
func document(file string, data []byte, need string) (*yaml.Node, *Fault) {
	fault := func(line, column int, format string, args ...any) (*yaml.Node, *Fault) {
		return nil, &Fault{Pos{file, line, column}, fmt.Sprintf(format, args...)}
	}
	if len(data) > MaxBytes {
		return fault(1, 1, "the file is longer than %d MiB", MaxBytes>>20)
	}
	docs, err := documents(data)
	switch {
	case err != nil:
		line := syntaxLine(data, err)
		return fault(line, 1, "%s%s", syntaxMessage(err), syntaxHint(err, data, line))
	case len(docs) == 0 || isNull(docs[0].Content[0]) && len(docs) == 1:
		return fault(1, 1, "the file is empty; it needs at least %s", need)
	case len(docs) > 1:
		return fault(docs[1].Line, docs[1].Column, "a second YAML document begins here; a configuration is one document")
	}
	return docs[0].Content[0], nil
}

// documents returns the first two documents of data; a mistake anywhere in
// them is an error.
func documents(data []byte) (docs []*yaml.Node, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for len(docs) < 2 {
		doc := new(yaml.Node)
		if err := dec.Decode(doc); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
	return docs, nil
}

// syntaxLine finds the line of a syntax error. The YAML library names the line
// where the surrounding block begins, off by one at times; the fault itself is
// in the shortest run of lines that fails in the same way.
func syntaxLine(data []byte, err error) int {
	lines := slices.Collect(bytes.Lines(data))
	ends := make([]int, len(lines)+1)
	for i, line := range lines {
		ends[i+1] = ends[i] + len(line)
	}
	message := syntaxMessage(err)
	return max(1, sort.Search(len(lines), func(n int) bool {
		_, err := documents(data[:ends[n]])
		return err != nil && syntaxMessage(err) == message
	}))
}

// syntaxMessage is what the YAML library says, without its "yaml: line 3:".
func syntaxMessage(err error) string {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if _, after, ok := strings.Cut(rest, ": "); ok {
			message = after
		}
	}
	return message
}

// syntaxHint is for the mistakes that are made most.
func syntaxHint(err error, data []byte, line int) string {
	lines := slices.Collect(bytes.Lines(data))
	switch {
	case line <= len(lines) && bytes.HasPrefix(bytes.TrimLeft(lines[line-1], " "), []byte("\t")):
		return "; YAML indents with spaces, never with tabs"
	case strings.Contains(err.Error(), "',' or"):
		return "; inside { } and [ ] a value that holds a brace, as {id} does, must be in quotes; better write one key a line"
	case strings.Contains(err.Error(), "did not find expected"):
		return "; does the indentation match that of the lines above?"
	}
	return ""
}
