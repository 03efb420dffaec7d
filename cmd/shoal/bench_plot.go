package main

import (
	"fmt"
	"html"
	"math"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The plot's size, and the edges of the area that the curve is in.
const (
	plotWidth, plotHeight                    = 800, 440
	plotLeft, plotRight, plotTop, plotBottom = 76, 770, 64, 380
	plotPoints                               = 400 // that the curve is drawn through
)

// minPower is the power of ten of the shortest time on an axis, a microsecond in nanoseconds.
const minPower = 3

// powerNames are the powers of ten from there to beyond the longest time that is measured.
var powerNames = [...]string{"1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s", "1000 s"}

// plotHead begins the picture, with colours for light and dark.
const plotHead = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img"
 font-family="system-ui, sans-serif" font-size="13">
<title>Latency by percentile</title>
<desc>%s</desc>
<style>
svg { background: #fff } text { fill: #222 } .grid { stroke: #ddd }
.curve { stroke: #0a6cc2; fill: none; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
svg { background: #14181d } text { fill: #dde3ea } .grid { stroke: #333b45 } .curve { stroke: #58b0ff }
}
</style>
`

// latencyPlot draws times over their percentiles as an SVG that needs nothing else. Both axes are logarithmic:
// to the right each step is ten times rarer, so that the worst is seen as well as the usual.
func latencyPlot(times *hdrhistogram.Histogram, caption string) string {
	p := &plot{times: times, nines: 1}
	for math.Pow(10, p.nines) < float64(times.TotalCount()) && p.nines < 6 {
		p.nines++
	}
	p.low, p.high = decades(float64(times.Min()), float64(times.Max()))
	fmt.Fprintf(&p.b, plotHead, plotWidth, plotHeight, html.EscapeString(caption))
	p.text(plotLeft, 26, "start", "17", "Latency by percentile")
	p.text(plotLeft, 46, "start", "12", caption)
	p.xAxis()
	p.yAxis()
	p.curve()
	p.b.WriteString("</svg>\n")
	return p.b.String()
}

// plot is a drawing in progress. The axes go from percentile 0 to a number of nines, and from low to high in
// powers of ten of nanoseconds.
type plot struct {
	b         strings.Builder
	times     *hdrhistogram.Histogram
	nines     float64
	low, high float64
}

// decades returns the powers of ten around two times.
func decades(least, most float64) (low, high float64) {
	low = math.Floor(power(least))
	return low, max(math.Ceil(power(most)), low+1)
}

// power returns the decimal logarithm of a time of at least a microsecond.
func power(nanoseconds float64) float64 { return max(math.Log10(max(nanoseconds, 1)), minPower) }

// x is where a percentile is that leaves one in 10^nines above it.
func (p *plot) x(nines float64) float64 {
	return plotLeft + nines/p.nines*(plotRight-plotLeft)
}

func (p *plot) y(nanoseconds float64) float64 {
	share := (power(nanoseconds) - p.low) / (p.high - p.low)
	return plotBottom - share*(plotBottom-plotTop)
}

func (p *plot) xAxis() {
	for _, percentile := range []float64{0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999} {
		nines := -math.Log10(1 - percentile/100)
		if nines > p.nines+0.01 {
			break
		}
		x := p.x(nines)
		fmt.Fprintf(&p.b, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", x, plotTop, x, plotBottom)
		p.text(x, plotBottom+20, "middle", "12", fmt.Sprintf("%g %%", percentile))
	}
	p.text((plotLeft+plotRight)/2, plotBottom+44, "middle", "13", "percentile of received messages")
}

func (p *plot) yAxis() {
	for power := p.low; power <= p.high; power++ {
		y := p.y(math.Pow(10, power))
		fmt.Fprintf(&p.b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", plotLeft, y, plotRight, y)
		p.text(plotLeft-8, y+4, "end", "12", powerNames[int(power)-minPower])
	}
}

func (p *plot) curve() {
	if p.times.TotalCount() == 0 {
		p.text((plotLeft+plotRight)/2, (plotTop+plotBottom)/2, "middle", "14", "no messages were received")
		return
	}
	p.b.WriteString(`<polyline class="curve" points="`)
	for i := range plotPoints + 1 {
		nines := p.nines * float64(i) / plotPoints
		at := p.times.ValueAtQuantile(100 * (1 - math.Pow(10, -nines)))
		fmt.Fprintf(&p.b, "%.1f,%.1f ", p.x(nines), p.y(float64(at)))
	}
	p.b.WriteString(`"/>` + "\n")
}

func (p *plot) text(x, y float64, anchor, size, text string) {
	fmt.Fprintf(&p.b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%s">%s</text>`+"\n",
		x, y, anchor, size, html.EscapeString(text))
}
