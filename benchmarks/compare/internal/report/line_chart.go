package report

import (
	"cmp"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// lineChart is a line chart of a figure over one parameter.
type lineChart struct {
	pictureFrame
	along  axis
	unit   string
	curves []curve
	marks  []mark
}

// Sizes of a lineChart, in points.
const (
	drawingHeight = 360
	unitHeight    = 18
	nameWidth     = 130 // right of the lines, for their names
	nameHeight    = 14
	dotRadius     = 2.6
)

// colours are those of the lines, in order.
func colours() []color.NRGBA {
	return []color.NRGBA{
		{0x0b, 0x72, 0x85, 0xff}, {0xd9, 0x77, 0x06, 0xff}, {0x86, 0x8e, 0x96, 0xff}, {0x5f, 0x3d, 0xc4, 0xff},
	}
}

// lineChart returns the chart of a sweep.
func (d Data) lineChart(s sweep, g graph) lineChart {
	all := lineChart{along: s.along, unit: g.unit, curves: d.curves(s, g)}
	if len(all.curves) == 0 {
		return all
	}
	first := d.swept(s)[0]
	if g.marks != nil {
		all.marks = g.marks(first.Provenance)
	}
	all.pictureFrame = pictureFrame{g.title, "medians; the upright lines are the least and the most", originOf(first)}
	return all
}

// svg draws it.
func (d lineChart) svg() ([]byte, error) {
	return d.drawn(drawingHeight, func(whole, room draw.Canvas) {
		unit := d.unit + scaleOf(d.extent()).note
		room.FillText(styled(11, ink, text.XLeft, text.YTop, false), vg.Point{X: room.Min.X, Y: room.Max.Y + 6}, unit)
		d.plot().Draw(draw.Crop(room, 0, -nameWidth, 0, -unitHeight))
	})
}

// plot returns the axes and the lines between them.
func (d lineChart) plot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	x, y := d.along.scale(d.values()), scaleOf(d.extent())
	p.X.Label.Text = d.along.title + x.note
	p.X.Min, p.X.Max, p.X.Scale, p.X.Tick.Marker = x.min, x.max, x.normalizer, plot.ConstantTicks(x.ticks)
	p.Y.Min, p.Y.Max, p.Y.Scale, p.Y.Tick.Marker = y.min, y.max, y.normalizer, plot.ConstantTicks(y.ticks)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.Padding, a.Padding = 5, 8
		a.LineStyle.Color, a.Tick.LineStyle.Color = grid, grid
	}
	p.X.Label.TextStyle = styled(11, ink, text.XCenter, text.YBottom, false)
	p.X.Tick.Label = styled(10.5, faint, text.XCenter, text.YTop, false)
	p.Y.Tick.Label = styled(10.5, faint, text.XRight, text.YCenter, false)
	p.Add(d)
	return p
}

// values are those of the parameter, in order.
func (d lineChart) values() []float64 {
	var all []float64
	for _, c := range d.curves {
		for _, p := range c.points {
			all = append(all, p.x)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// extent is the range of the vertical axis.
func (d lineChart) extent() (least, most float64) {
	least = math.Inf(1)
	for _, c := range d.curves {
		for _, p := range c.points {
			least, most = min(least, p.y.min), max(most, p.y.max)
		}
	}
	return least, most
}

// Plot draws the grid, the marks, the lines and their names. It makes a lineChart a plot.Plotter.
func (d lineChart) Plot(canvas draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&canvas)
	thin := draw.LineStyle{Color: grid, Width: 0.7}
	for _, tick := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		canvas.StrokeLine2(thin, canvas.Min.X, y(tick.Value), canvas.Max.X, y(tick.Value))
	}
	for _, m := range d.marks {
		if m.x > p.X.Min && m.x < p.X.Max {
			dashed := draw.LineStyle{Color: faint, Width: 0.7, Dashes: []vg.Length{3, 3}}
			canvas.StrokeLine2(dashed, x(m.x), canvas.Min.Y, x(m.x), canvas.Max.Y)
			canvas.FillText(styled(10, faint, text.XLeft, text.YTop, false), vg.Point{X: x(m.x) + 4, Y: canvas.Max.Y - 2}, m.text)
		}
	}
	for i, c := range d.curves {
		c.paint(canvas, x, y, colours()[i%len(colours())])
	}
	d.names(canvas, y)
}

// paint draws one line with its dots and their spreads.
func (c curve) paint(canvas draw.Canvas, x, y func(float64) vg.Length, colour color.Color) {
	var way []vg.Point
	for _, p := range c.points {
		at := vg.Point{X: x(p.x), Y: y(p.y.median)}
		way = append(way, at)
		canvas.StrokeLine2(draw.LineStyle{Color: colour, Width: 1}, at.X, y(p.y.min), at.X, y(p.y.max))
		canvas.DrawGlyph(draw.GlyphStyle{Color: colour, Radius: dotRadius, Shape: draw.CircleGlyph{}}, at)
	}
	canvas.StrokeLines(draw.LineStyle{Color: colour, Width: 1.6}, way)
}

// names writes the lines' names and last values right of their ends, moved apart where they would meet.
func (d lineChart) names(canvas draw.Canvas, y func(float64) vg.Length) {
	type name struct {
		text   string
		height vg.Length
		colour color.Color
	}
	var all []name
	for i, c := range d.curves {
		last := c.points[len(c.points)-1].y.median
		all = append(all, name{c.name + "  " + scaled(last), y(last), colours()[i%len(colours())]})
	}
	slices.SortFunc(all, func(a, b name) int { return cmp.Compare(b.height, a.height) })
	for i, n := range all {
		if i > 0 {
			all[i].height = min(n.height, all[i-1].height-nameHeight)
		}
		at := vg.Point{X: canvas.Max.X + 10, Y: all[i].height + 1}
		canvas.FillText(styled(11, n.colour, text.XLeft, text.YCenter, true), at, n.text)
	}
}
