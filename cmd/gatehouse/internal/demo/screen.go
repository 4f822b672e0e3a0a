//go:build !nodemo

package demo

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// screen is where the story is told: in colour on a terminal whose user has
// not set NO_COLOR, plainly everywhere else.
type screen struct {
	io.Writer
	colour bool
}

func newScreen(w io.Writer) screen {
	f, ok := w.(*os.File)
	return screen{w, ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))}
}

// printf writes a line. An error is not looked at: nobody is left to tell it to.
func (s screen) printf(format string, args ...any) { _, _ = fmt.Fprintf(s, format+"\n", args...) }

// The colours are SGR parameters (ECMA-48 §8.3.117).
func (s screen) bold(text string) string  { return s.paint("1", text) }
func (s screen) faint(text string) string { return s.paint("2", text) }
func (s screen) red(text string) string   { return s.paint("31", text) }
func (s screen) green(text string) string { return s.paint("32", text) }

func (s screen) paint(sgr, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}
