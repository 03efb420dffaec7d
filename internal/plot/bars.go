package plot

// Bars is a chart with a bar for each system.
type Bars struct {
	// Unit is the title of the axis, and Key names the colours.
	Unit string
	Key  []Colour
	Rows []Row // from the top
}

// Colour is a colour, as CSS has it, and its meaning.
type Colour struct{ Name, Colour string }

// Row is a system with its bar.
type Row struct {
	Name, Colour string
	Bar          Spread
}

const (
	barHeight  = 15
	rowHeight  = barHeight + 11
	axisHeight = 44
	rowNames   = 130 // left of the bars
)

func (b Bars) height() float64 { return float64(len(b.Rows)*rowHeight + axisHeight) }

func (b Bars) draw(c *canvas, in box) {
	at := in.right
	for i := len(b.Key) - 1; i >= 0; i-- {
		c.text("faint", "end", at, 26, b.Key[i].Name)
		at -= float64(len(b.Key[i].Name))*6 + 16
		c.bar(b.Key[i].Colour, box{at, 17, at + 9, 26})
		at -= 16
	}
	least, most := extent(func(yield func(Spread) bool) {
		for _, r := range b.Rows {
			yield(r.Bar)
		}
	})
	a := Values(b.Unit, least, most)
	in.left, in.bottom = in.left+rowNames, in.bottom-axisHeight
	c.below(in, a)
	for i, r := range b.Rows {
		top := in.top + float64(i*rowHeight+(rowHeight-barHeight)/2)
		c.text("row", "end", in.left-8, top+barHeight/2+4, r.Name)
		c.spreadBar(in, a, top, r)
	}
}

// spreadBar draws one bar with its spread and its value.
func (c *canvas) spreadBar(in box, a Axis, top float64, r Row) {
	s, middle := r.Bar, top+barHeight/2
	c.bar(r.Colour, box{in.left, top + 1, in.x(a, s.Median), top + barHeight - 1})
	if s.N > 1 {
		c.line("spread", in.x(a, s.Min), middle, in.x(a, s.Max), middle)
		for _, v := range []float64{s.Min, s.Max} {
			c.line("spread", in.x(a, v), middle-2.5, in.x(a, v), middle+2.5)
		}
	}
	c.text("value", "start", in.x(a, max(s.Median, s.Max))+5, middle+4, Scaled(s.Median))
}
