package report

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
)

// chart is a horizontal bar for each system, or a few.
type chart struct {
	pictureFrame
	unit   string
	legend []string // a name for each bar of a row
	rows   []row    // from the top
}

type row struct {
	name string
	kind systems.Kind
	bars []spread // as many as the legend has
}

// Sizes, in points.
const (
	axisHeight = 55
	barHeight  = 15
	rowGap     = 11
)

// Colours of the kinds of systems.
func fillOf(kind systems.Kind) color.NRGBA {
	switch kind {
	case systems.Own:
		return color.NRGBA{0x0b, 0x72, 0x85, 0xff}
	case systems.Yardstick:
		return color.NRGBA{0xad, 0xb5, 0xbd, 0xff}
	}
	return color.NRGBA{0xe8, 0x9b, 0x4c, 0xff}
}

// svg draws the chart.
func (c chart) svg() ([]byte, error) {
	return c.drawn(axisHeight+vg.Length(len(c.rows))*c.rowHeight(), func(whole, room draw.Canvas) {
		key(whole)
		c.plot().Draw(room)
	})
}

// key explains the colours in the upper right corner.
func key(canvas draw.Canvas) {
	style := styled(10.5, faint, text.XRight, text.YCenter, false)
	x, y := canvas.Max.X-sideMargin, canvas.Max.Y-21
	for _, kind := range []struct {
		of   systems.Kind
		name string
	}{{systems.Yardstick, "limit"}, {systems.Peer, "peer"}, {systems.Own, "this project"}} {
		const side, gap = 9, 5
		canvas.FillText(style, vg.Point{X: x, Y: y + 1}, kind.name)
		x -= style.Width(kind.name) + gap + side
		square := vg.Rectangle{Min: vg.Point{X: x, Y: y - side/2}, Max: vg.Point{X: x + side, Y: y + side/2}}
		canvas.SetColor(fillOf(kind.of))
		canvas.Fill(square.Path())
		x -= 3 * gap
	}
}

func (c chart) rowHeight() vg.Length { return vg.Length(len(c.legend))*barHeight + rowGap }

// plot returns the axes and the bars between them.
func (c chart) plot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	s := c.scale()
	p.X.Label.Text = c.unit + s.note
	p.X.Label.Padding = 5
	p.X.Label.TextStyle = styled(11, ink, text.XCenter, text.YBottom, false)
	p.X.Tick.Label = styled(10.5, faint, text.XCenter, text.YTop, false)
	p.X.LineStyle.Color, p.X.Tick.LineStyle.Color = grid, grid
	p.Y.Tick.Label = styled(12, ink, text.XRight, text.YCenter, false)
	p.Y.LineStyle.Width, p.Y.Tick.LineStyle.Width, p.Y.Tick.Length = 0, 0, 0
	p.Y.Padding = 6

	var names []plot.Tick
	for i, r := range c.rows {
		names = append(names, plot.Tick{Value: float64(-i), Label: r.name})
	}
	p.Y.Tick.Marker = plot.ConstantTicks(names)
	p.Y.Min, p.Y.Max = -float64(len(c.rows))+0.5, 0.5

	p.X.Min, p.X.Max, p.X.Scale, p.X.Tick.Marker = s.min, s.max, s.normalizer, plot.ConstantTicks(s.ticks)
	p.Add(c)
	return p
}

// Plot draws the grid and the bars. It makes a chart a plot.Plotter.
func (c chart) Plot(canvas draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&canvas)
	for _, tick := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		canvas.StrokeLine2(draw.LineStyle{Color: grid, Width: 0.7}, x(tick.Value), canvas.Min.Y, x(tick.Value), canvas.Max.Y)
	}
	for i, r := range c.rows {
		middle := y(float64(-i))
		for j, bar := range r.bars {
			top := middle + barHeight*(vg.Length(len(r.bars))/2-vg.Length(j))
			c.bar(canvas, x, bar, top, shade(fillOf(r.kind), j), c.legend[j])
		}
	}
}

// shade makes the colour of a row's further bars lighter.
func shade(c color.NRGBA, j int) color.NRGBA {
	for range j {
		c.R, c.G, c.B = c.R+(255-c.R)/3, c.G+(255-c.G)/3, c.B+(255-c.B)/3
	}
	return c
}

// bar draws one bar with its spread and its value.
func (c chart) bar(
	canvas draw.Canvas, x func(float64) vg.Length, s spread, top vg.Length, fill color.Color, name string,
) {
	end := x(s.median)
	body := vg.Rectangle{Min: vg.Point{X: canvas.Min.X, Y: top - barHeight + 1}, Max: vg.Point{X: end, Y: top - 1}}
	canvas.SetColor(fill)
	canvas.Fill(body.Path())
	middle := (body.Min.Y + body.Max.Y) / 2
	if s.n > 1 {
		line := draw.LineStyle{Color: ink, Width: 1}
		canvas.StrokeLine2(line, x(s.min), middle, x(s.max), middle)
		for _, v := range []float64{s.min, s.max} {
			canvas.StrokeLine2(line, x(v), middle-2.5, x(v), middle+2.5)
		}
	}
	label := scaled(s.median)
	if name != "" {
		label = name + " " + label
	}
	at := vg.Point{X: max(end, x(s.max)) + 5, Y: middle + 1}
	canvas.FillText(styled(10.5, ink, text.XLeft, text.YCenter, false), at, label)
}

// extent is the range of the axis.
func (c chart) extent() (least, most float64) {
	least, most = math.Inf(1), 0
	for _, r := range c.rows {
		for _, b := range r.bars {
			least, most = min(least, b.min), max(most, b.max)
		}
	}
	return least, most
}
