package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is one of the report.
type table struct {
	Title, About string
	Head         []string
	Rows         [][]string
}

// markdown is the table for the docs and for the terminal.
func (t table) markdown() string {
	width := make([]int, len(t.Head))
	all := append([][]string{t.Head}, t.Rows...)
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "### %s\n\n%s.\n\n", t.Title, t.About)
	line := func(row []string, fill string) {
		for i, cell := range row {
			space := strings.Repeat(fill, width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				text.WriteString("| " + cell + space + " |")
			} else {
				text.WriteString(" " + space + cell + " |")
			}
		}
		text.WriteByte('\n')
	}
	line(t.Head, " ")
	rule := make([]string, len(t.Head))
	rule[0] = strings.Repeat("-", width[0])
	for i := 1; i < len(rule); i++ {
		rule[i] = strings.Repeat("-", width[i]-1) + ":"
	}
	line(rule, "-")
	for _, row := range t.Rows {
		line(row, " ")
	}
	return text.String()
}

// column returns a value of each of the results that have one, sorted.
func column(results []result, value func(result) *float64) []float64 {
	var all []float64
	for _, r := range results {
		if v := value(r); v != nil {
			all = append(all, *v)
		}
	}
	slices.Sort(all)
	return all
}

func instructionsOf(r result) *float64 { return r.Instructions }
func addedOf(r result) *float64        { return r.Added }
func cpuOf(r result) *float64          { return &r.CPU }
func perSecondOf(r result) *float64    { return &r.PerSecond }
func p50Of(r result) *float64          { return &r.P50 }
func p99Of(r result) *float64          { return &r.P99 }
func firstOf(r result) *float64        { return &r.First }

func idleOf(r result) *float64   { return mebibytes(r.Idle) }
func loadedOf(r result) *float64 { return mebibytes(r.Loaded) }

func mebibytes(n int64) *float64 {
	m := float64(n) / (1 << 20)
	return &m
}

// median of sorted numbers.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is the least, the median and the most, of one value itself.
func spread(sorted []float64) string {
	if len(sorted) < 2 {
		return middle(sorted)
	}
	return number(sorted[0]) + " / " + number(median(sorted)) + " / " + number(sorted[len(sorted)-1])
}

// middle is the median.
func middle(sorted []float64) string {
	if len(sorted) == 0 {
		return "–"
	}
	return number(median(sorted))
}

// number writes three digits, or the whole part.
func number(f float64) string {
	switch {
	case f >= 100 || f <= -100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10 || f <= -10:
		return fmt.Sprintf("%.1f", f)
	default:
		return fmt.Sprintf("%.2f", f)
	}
}

// ratio is that of two medians.
func ratio(ours, theirs []float64) string {
	if len(ours) == 0 || len(theirs) == 0 || median(theirs) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", median(ours)/median(theirs))
}

// of returns the results of one peer in one case.
func of(results []result, c, peer string) []result {
	var some []result
	for _, r := range results {
		if r.Case == c && r.Peer == peer {
			some = append(some, r)
		}
	}
	return some
}

// compare makes a table for each case. The last columns compare the case's
// first peer, Gatehouse, with each.
func compare(cases []benchCase, peers []peer, results []result) []table {
	var tables []table
	for _, c := range cases {
		t := table{Title: c.Name, About: strings.ToUpper(c.About[:1]) + c.About[1:], Head: []string{"peer", "kinstr", "CPU µs", "requests/s", "p50 µs", "p99 µs"}}
		if c.Paced {
			t.Head = append(t.Head, "p50 added µs")
		}
		t.Head = append(t.Head, "MiB idle", "MiB loaded", "first 200 ms")
		var first []result
		for _, p := range peers {
			mine := of(results, c.Name, p.Name)
			if len(mine) == 0 {
				continue
			}
			if first == nil {
				first = mine
				t.Head = append(t.Head, p.Name+" ÷ it: kinstr", "CPU")
			}
			row := []string{p.Name, spread(column(mine, instructionsOf)), spread(column(mine, cpuOf)),
				middle(column(mine, perSecondOf)), middle(column(mine, p50Of)), middle(column(mine, p99Of))}
			if c.Paced {
				row = append(row, middle(column(mine, addedOf)))
			}
			t.Rows = append(t.Rows, append(row, middle(column(mine, idleOf)), middle(column(mine, loadedOf)), middle(column(mine, firstOf)),
				ratio(column(first, instructionsOf), column(mine, instructionsOf)), ratio(column(first, cpuOf), column(mine, cpuOf))))
		}
		if len(t.Rows) > 0 {
			tables = append(tables, t)
		}
	}
	return tables
}

// replaceBetween puts text between the two comments of that name in a page.
func replaceBetween(page, name, text string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	before, rest, found := strings.Cut(string(old), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s has no place for the tables: %s%s", page, begin, end)
	}
	return os.WriteFile(page, []byte(before+begin+text+end+after), 0o644)
}
