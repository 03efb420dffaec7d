package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Size of the chart and of each of its panels, in pixels.
const (
	chartWidth  = 860
	panelHeight = 120
	panelGap    = 28
	margin      = 70
)

// draw writes a chart of the measurements in a file that -csv has written: a panel for each resource.
func draw(name string, out io.Writer) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	rows, err := csv.NewReader(file).ReadAll()
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if len(rows) < 3 {
		return fmt.Errorf("%s has no measurements", name)
	}
	columns := make([][]float64, len(rows[0]))
	for i, row := range rows[1:] {
		for j, text := range row {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return fmt.Errorf("%s, line %d: %w", name, i+2, err)
			}
			columns[j] = append(columns[j], value)
		}
	}
	panels := []struct {
		title  string
		column int
		unit   float64
	}{
		{"clients", 1, 1}, {"subscriptions", 2, 1}, {"goroutines", 3, 1}, {"heap, MB", 4, 1 << 20}, {"descriptors", 5, 1},
		{"p99, ms", 7, 1},
	}
	var b strings.Builder
	height := len(panels)*(panelHeight+panelGap) + panelGap
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", chartWidth, height)
	end := columns[0][len(columns[0])-1]
	for i, p := range panels {
		top := panelGap + i*(panelHeight+panelGap)
		most := 0.0
		for _, v := range columns[p.column] {
			most = max(most, v/p.unit)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%.4g</text>`+"\n",
			margin, top-6, p.title, margin-6, top+10, most)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">0</text>`+"\n", margin-6, top+panelHeight)
		fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#999"/>`+"\n", margin, top, top+panelHeight, chartWidth-10)
		var points []string
		for j, v := range columns[p.column] {
			x := margin + columns[0][j]/end*(chartWidth-margin-10)
			y := float64(top+panelHeight) - v/p.unit/max(most, 1e-9)*panelHeight
			points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="#0b6e99" stroke-width="1.5"/>`+"\n", strings.Join(points, " "))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%.0f minutes</text>`+"\n</svg>\n", chartWidth-10, height-8, end/60)
	_, err = io.WriteString(out, b.String())
	return err
}
