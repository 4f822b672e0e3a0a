package main

import (
	"fmt"
	"html"
	"strings"
)

// panel is a part of a chart: bars of one unit.
type panel struct {
	title, unit string
	bars        []bar
}

type bar struct {
	label string
	value float64
}

// svg draws panels under each other. Each has a scale of its own.
func svg(panels []panel) string {
	const (
		width, left, right = 760, 180, 90
		line, gap          = 20, 34
	)
	var body strings.Builder
	y := 10
	for _, p := range panels {
		y += gap
		fmt.Fprintf(&body, `<text x="10" y="%d" font-weight="bold">%s (%s)</text>`+"\n", y-10, html.EscapeString(p.title), html.EscapeString(p.unit))
		most := 0.0
		for _, b := range p.bars {
			most = max(most, b.value)
		}
		for i, b := range p.bars {
			length := 0.0
			if most > 0 {
				length = max(0, b.value) / most * (width - left - right)
			}
			colour := "#9aa5b1"
			if strings.HasPrefix(b.label, "gatehouse") || i == 0 && most == b.value && len(p.bars) == 1 {
				colour = "#2f6fde"
			}
			fmt.Fprintf(&body, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%s</text>`+"\n",
				left-8, y+line-6, html.EscapeString(b.label), left, y+3, length, line-6, colour, float64(left)+length+6, y+line-6, number(b.value))
			y += line
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="#fff"/>
%s</svg>
`, width, y+16, body.String())
}

// comparisonChart shows the medians of each case: instructions where they were
// counted, else processor time.
func comparisonChart(cases []benchCase, peers []peer, results []result) string {
	value, unit := instructionsOf, "thousand instructions a request"
	if len(column(results, instructionsOf)) == 0 {
		value, unit = cpuOf, "CPU µs a request"
	}
	var panels []panel
	for _, c := range cases {
		p := panel{title: c.About, unit: unit}
		for _, peer := range peers {
			if found := column(of(results, c.Name, peer.Name), value); len(found) > 0 {
				p.bars = append(p.bars, bar{peer.Name, median(found)})
			}
		}
		if len(p.bars) > 0 {
			panels = append(panels, p)
		}
	}
	return svg(panels)
}
