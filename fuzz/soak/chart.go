package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/shoal-go/shoal/internal/plot"
)

// panelHeight is the height of the chart of one resource, in pixels.
const panelHeight = 200

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
	minutes := columns[0]
	for i := range minutes {
		minutes[i] /= 60
	}
	var charts []plot.Chart
	for _, p := range panels {
		l := plot.Lines{
			Height: panelHeight, X: plot.Values("minutes", 0, minutes[len(minutes)-1]), Y: plot.Axis{Title: p.title},
			Curves: make([]plot.Curve, 1),
		}
		for i, v := range columns[p.column] {
			l.Curves[0].Points = append(l.Curves[0].Points, plot.Point{X: minutes[i], Y: plot.Single(v / p.unit)})
		}
		charts = append(charts, l)
	}
	_, err = io.WriteString(out, plot.SVG(plot.Caption{Title: "Soak", Subtitle: name}, charts...))
	return err
}
