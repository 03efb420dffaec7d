package plot

// Bars is a chart with a row for each system, of one bar or a few.
type Bars struct {
	// Unit is the title of the axis.
	Unit string
	// Legend names the bars of a row, and Key the colours. "": without a name.
	Legend []string
	Key    []Colour
	Rows   []Row // from the top
}

// Colour is a colour, as CSS has it, and its meaning.
type Colour struct{ Name, Colour string }

// Row is a system with its bars, as many as the legend has.
type Row struct {
	Name, Colour string
	Bars         []Spread
}

const (
	barHeight  = 15
	rowGap     = 11
	axisHeight = 44
	rowNames   = 130 // left of the bars
)

func (b Bars) rowHeight() float64 { return float64(len(b.Legend)*barHeight + rowGap) }

func (b Bars) height() float64 { return float64(len(b.Rows))*b.rowHeight() + axisHeight }

func (b Bars) draw(c *canvas, in box) {
	at := in.right
	for i := len(b.Key) - 1; i >= 0; i-- {
		c.text("faint", "end", at, 26, b.Key[i].Name)
		at -= float64(len(b.Key[i].Name))*6 + 16
		c.bar(b.Key[i].Colour, 1, box{at, 17, at + 9, 26})
		at -= 16
	}
	least, most := extent(func(yield func(Spread) bool) {
		for _, r := range b.Rows {
			for _, bar := range r.Bars {
				yield(bar)
			}
		}
	})
	a := Values(b.Unit, least, most)
	in.left, in.bottom = in.left+rowNames, in.bottom-axisHeight
	c.below(in, a)
	for i, r := range b.Rows {
		top := in.top + float64(i)*b.rowHeight() + rowGap/2
		c.text("row", "end", in.left-8, top+float64(len(r.Bars)*barHeight)/2+4, r.Name)
		for j, bar := range r.Bars {
			c.spreadBar(in, a, top+float64(j*barHeight), bar, r.Colour, 1/(1+0.6*float64(j)), b.Legend[j])
		}
	}
}

// spreadBar draws one bar with its spread and its value.
func (c *canvas) spreadBar(in box, a Axis, top float64, s Spread, colour string, opacity float64, name string) {
	c.bar(colour, opacity, box{in.left, top + 1, in.x(a, s.Median), top + barHeight - 1})
	middle := top + barHeight/2
	if s.N > 1 {
		c.line("spread", in.x(a, s.Min), middle, in.x(a, s.Max), middle)
		for _, v := range []float64{s.Min, s.Max} {
			c.line("spread", in.x(a, v), middle-2.5, in.x(a, v), middle+2.5)
		}
	}
	label := Scaled(s.Median)
	if name != "" {
		label = name + " " + label
	}
	c.text("value", "start", in.x(a, max(s.Median, s.Max))+5, middle+4, label)
}
