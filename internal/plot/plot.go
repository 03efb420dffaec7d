// Package plot draws charts as SVG documents that need nothing else, and writes the numbers in them and in tables.
package plot

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Caption holds the texts around a chart.
type Caption struct{ Title, Subtitle, Origin string }

// Spread summarises measurements of one figure: their number, median, least and greatest value.
type Spread struct {
	N                int
	Median, Min, Max float64
}

// Single returns a value that summarises nothing.
func Single(v float64) Spread { return Spread{Median: v, Min: v, Max: v} }

// SpreadOf summarises values.
func SpreadOf(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return Spread{}
	}
	return Spread{n, (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}

// Text writes the median, and the least and greatest value where there are several. "–": nothing was measured.
func (s Spread) Text(write func(float64) string) string {
	switch s.N {
	case 0:
		return "–"
	case 1:
		return write(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", write(s.Median), write(s.Min), write(s.Max))
}

// Chart is one of Bars and Lines.
type Chart interface {
	height() float64
	draw(c *canvas, in box)
}

// Sizes, in pixels.
const (
	width      = 800
	headHeight = 64
	footHeight = 26
	sideMargin = 14
)

// style has the colours, for a light and a dark background.
const style = `<style>
svg { background: #fff } text { fill: #212529; font: 11px 'Liberation Sans', Arial, Helvetica, sans-serif }
text.title { font-size: 17px; font-weight: 700 } text.faint { fill: #6c757d } text.name { font-weight: 700 }
.grid { stroke: #e3e6e9; stroke-width: 0.7 } .spread { stroke: #212529 } .mark { stroke: #6c757d; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
svg { background: #14181d } text { fill: #dde3ea } text.faint { fill: #98a2ad } .grid { stroke: #333b45 } .spread { stroke: #dde3ea }
}
</style>
`

// SVG draws charts one below the other.
func SVG(caption Caption, charts ...Chart) string {
	height := float64(headHeight + footHeight)
	for _, chart := range charts {
		height += chart.height()
	}
	c := &canvas{}
	fmt.Fprintf(&c.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" role="img">`+"\n<title>%s</title>\n%s",
		width, height, html.EscapeString(caption.Title), style)
	c.text("title", "start", sideMargin, 26, caption.Title)
	c.text("faint", "start", sideMargin, 46, caption.Subtitle)
	c.text("faint", "start", sideMargin, height-8, caption.Origin)
	top := float64(headHeight)
	for _, chart := range charts {
		chart.draw(c, box{sideMargin, top, width - sideMargin, top + chart.height()})
		top += chart.height()
	}
	c.b.WriteString("</svg>\n")
	return c.b.String()
}

// box is a part of the picture.
type box struct{ left, top, right, bottom float64 }

// x and y return the position of a value on an axis that spans the box.
func (b box) x(a Axis, v float64) float64 { return b.left + a.at(v)*(b.right-b.left) }
func (b box) y(a Axis, v float64) float64 { return b.bottom - a.at(v)*(b.bottom-b.top) }

// canvas is a picture in progress.
type canvas struct{ b strings.Builder }

func (c *canvas) text(class, anchor string, x, y float64, text string) {
	if text != "" {
		fmt.Fprintf(&c.b, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, anchor, x, y, html.EscapeString(text))
	}
}

func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&c.b, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (c *canvas) bar(colour string, b box) {
	fmt.Fprintf(&c.b, `<rect fill="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n",
		colour, b.left, b.top, max(b.right-b.left, 0), b.bottom-b.top)
}

// below writes an axis with its grid at the lower edge of a box.
func (c *canvas) below(in box, a Axis) {
	for _, tick := range a.Ticks {
		c.line("grid", in.x(a, tick.Value), in.top, in.x(a, tick.Value), in.bottom)
		c.text("faint", "middle", in.x(a, tick.Value), in.bottom+16, tick.Label)
	}
	c.text("unit", "middle", (in.left+in.right)/2, in.bottom+34, a.Title)
}
