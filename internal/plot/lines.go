package plot

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
)

// Lines is a chart of curves over one parameter.
type Lines struct {
	// Height of the chart in pixels. 0: 360.
	Height float64
	X      Axis
	// Y is the vertical axis, whose title stands above it. Without ticks they are chosen for the values.
	Y      Axis
	Curves []Curve
	Marks  []Mark
}

// Curve is a line with its points, from the left. "": without a name.
type Curve struct {
	Name   string
	Points []Point
}

// Point is a value of a curve. One that summarises measurements has a dot.
type Point struct {
	X float64
	Y Spread
}

// Mark is a value of the horizontal axis with a note. Outside the axis it is not drawn.
type Mark struct {
	X    float64
	Text string
}

const (
	unitHeight = 18  // above the curves
	ticksWidth = 60  // left of them
	nameWidth  = 170 // right of them, if they have names
	nameHeight = 14
)

func (l Lines) height() float64 { return cmp.Or(l.Height, 360) }

// colours of the curves, in order.
func colours(i int) string {
	all := [...]string{"#0b7285", "#d97706", "#868e96", "#5f3dc4"}
	return all[i%len(all)]
}

func (l Lines) draw(c *canvas, in box) {
	y := l.Y
	if len(y.Ticks) == 0 {
		least, most := extent(l.points())
		y = Values(l.Y.Title, least, most)
	}
	c.text("unit", "start", in.left, in.top+8, y.Title)
	in.left, in.top, in.bottom = in.left+ticksWidth, in.top+unitHeight, in.bottom-axisHeight
	if slices.ContainsFunc(l.Curves, func(one Curve) bool { return one.Name != "" }) {
		in.right -= nameWidth
	} else {
		in.right -= sideMargin
	}
	c.below(in, l.X)
	for _, tick := range y.Ticks {
		c.line("grid", in.left, in.y(y, tick.Value), in.right, in.y(y, tick.Value))
		c.text("faint", "end", in.left-6, in.y(y, tick.Value)+4, tick.Label)
	}
	for _, m := range l.Marks {
		if m.X > l.X.Least && m.X < l.X.Most {
			c.line("mark", in.x(l.X, m.X), in.top, in.x(l.X, m.X), in.bottom)
			c.text("faint", "start", in.x(l.X, m.X)+4, in.top+10, m.Text)
		}
	}
	for i, curve := range l.Curves {
		c.curve(in, l.X, y, curve, colours(i))
	}
	c.names(in, y, l.Curves)
}

// points yields the values of all curves.
func (l Lines) points() iter.Seq[Spread] {
	return func(yield func(Spread) bool) {
		for _, curve := range l.Curves {
			for _, p := range curve.Points {
				yield(p.Y)
			}
		}
	}
}

func (c *canvas) curve(in box, x, y Axis, curve Curve, colour string) {
	var way strings.Builder
	for _, p := range curve.Points {
		px, py := in.x(x, p.X), in.y(y, p.Y.Median)
		fmt.Fprintf(&way, "%.1f,%.1f ", px, py)
		if p.Y.N > 0 {
			fmt.Fprintf(&c.b, `<circle fill="%s" r="2.6" cx="%.1f" cy="%.1f"/>`+"\n", colour, px, py)
			fmt.Fprintf(&c.b, `<path stroke="%s" d="M%.1f %.1fV%.1f"/>`+"\n", colour, px, in.y(y, p.Y.Min), in.y(y, p.Y.Max))
		}
	}
	fmt.Fprintf(&c.b, `<polyline fill="none" stroke="%s" stroke-width="1.6" points="%s"/>`+"\n", colour, way.String())
}

// names writes the names and last values of the curves right of their ends, moved apart where they would overlap.
func (c *canvas) names(in box, y Axis, curves []Curve) {
	type name struct {
		text   string
		height float64
		colour string
	}
	var all []name
	for i, curve := range curves {
		if curve.Name != "" && len(curve.Points) > 0 {
			last := curve.Points[len(curve.Points)-1].Y.Median
			all = append(all, name{curve.Name + "  " + Scaled(last), in.y(y, last), colours(i)})
		}
	}
	slices.SortFunc(all, func(a, b name) int { return cmp.Compare(a.height, b.height) })
	for i, n := range all {
		if i > 0 {
			all[i].height = max(n.height, all[i-1].height+nameHeight)
		}
		c.bar(n.colour, box{in.right + 8, all[i].height - 4, in.right + 16, all[i].height + 4})
		c.text("name", "start", in.right+20, all[i].height+4, n.text)
	}
}

// extent returns the bounds of values.
func extent(values iter.Seq[Spread]) (least, most float64) {
	least = math.Inf(1)
	for s := range values {
		least, most = min(least, s.Min), max(most, s.Max)
	}
	return least, most
}
