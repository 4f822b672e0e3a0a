package config

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// maxIncluded is how long a file that ${file:…} names may be.
const maxIncluded = 1 << 20

const referenceForms = "want ${env:NAME}, ${env:NAME:-default} or ${file:path}, or $$ for a dollar sign"

// substitute replaces the references in one scalar. An error tells of the
// reference, never of a value. Nothing in a value that was put in is replaced
// in turn.
func (r *reader) substitute(s string) (string, []part, error) {
	if !strings.Contains(s, "$") {
		return s, nil, nil
	}
	var b strings.Builder
	var parts []part
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			b.WriteString(s)
			return b.String(), parts, nil
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case strings.HasPrefix(s, "$$"):
			b.WriteByte('$')
			s = s[2:]
		case strings.HasPrefix(s, "${"):
			end := strings.IndexByte(s, '}')
			if end < 0 {
				return "", nil, fmt.Errorf("a ${ is not closed; %s", referenceForms)
			}
			value, err := r.resolve(s[2:end])
			if err != nil {
				return "", nil, err
			}
			b.WriteString(value)
			parts = append(parts, part{s[:end+1], value})
			s = s[end+1:]
		default:
			b.WriteByte('$')
			s = s[1:]
		}
	}
}

// resolve returns what the inside of one ${…} stands for.
func (r *reader) resolve(reference string) (string, error) {
	kind, arg, _ := strings.Cut(reference, ":")
	switch kind {
	case "env":
		name, fallback, hasFallback := strings.Cut(arg, ":-")
		if !isEnvName(name) || strings.Contains(fallback, "${") {
			break
		}
		// As in a shell, the default stands in for an empty variable too.
		switch value, ok := r.env(name); {
		case ok && (value != "" || !hasFallback):
			return value, nil
		case hasFallback:
			return fallback, nil
		}
		return "", fmt.Errorf("the environment variable %s is not set; set it, or give a default: ${env:%s:-default}", name, name)
	case "file":
		if arg == "" {
			break
		}
		value, err := readIncluded(r.resolvePath(arg))
		if err != nil {
			return "", fmt.Errorf("${%s}: %w", reference, err)
		}
		return value, nil
	}
	return "", fmt.Errorf("${%s} is no reference; %s", reference, referenceForms)
}

// readIncluded returns the file's text without the newline at its end.
func readIncluded(path string) (string, error) {
	f, err := open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIncluded+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxIncluded {
		return "", errors.New("the file is longer than 1 MiB")
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}

// resolvePath starts a relative path of a file that is read at the
// configuration's directory.
func (r *reader) resolvePath(path string) string {
	path = r.fromDir(path)
	r.reads(path)
	return path
}

// fromDir does so for a file that the gateway itself writes: no change of it is
// one of the configuration.
func (r *reader) fromDir(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.dir, path)
	}
	return path
}

func isEnvName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && !isLetter(c) && (i == 0 || !isDigit(c)) {
			return false
		}
	}
	return s != ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
