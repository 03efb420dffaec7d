package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.5: "0.5", 9.996: "10", 12.34: "12.3", 999.6: "1 k", 1500: "1.5 k", 999_600: "1 M", 3.21e6: "3.21 M",
	} {
		if got := Scaled(v); got != want {
			t.Errorf("Scaled(%v) = %q, want %q", v, got, want)
		}
	}
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", -100: "-100", math.MinInt64: "-9,223,372,036,854,775,808",
	} {
		if got := Grouped(n); got != want {
			t.Errorf("Grouped(%d) = %q, want %q", n, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0.00", 12.34: "12.3", 123.4: "123", 1234.5: "1,235"} {
		if got := Short(v); got != want {
			t.Errorf("Short(%v) = %q, want %q", v, got, want)
		}
	}
	for n, want := range map[int64]string{999: "999 ns", 1234: "1.23 µs", 45_600_000: "45.6 ms", 123_000_000_000: "123 s"} {
		if got := Duration(n); got != want {
			t.Errorf("Duration(%d) = %q, want %q", n, got, want)
		}
	}
	if got := Round(10_000_000); got != "10 ms" {
		t.Errorf("Round = %q", got)
	}
}

func TestSpread_Text(t *testing.T) {
	for want, values := range map[string][]float64{"–": nil, "2.00": {2}, "3.00 (1.00–9.00)": {9, 1, 2, 4}, "2.00 (1.00–9.00)": {9, 1, 2}} {
		if got := SpreadOf(values).Text(Short); got != want {
			t.Errorf("the spread of %v is written %q, want %q", values, got, want)
		}
	}
}

func TestParameter_LabelsWhatFits(t *testing.T) {
	for _, c := range []struct {
		logarithmic bool
		values      []float64
		want        string
	}{
		{true, []float64{10, 1000, 1024, 5000}, "10 1,000  5,000"}, // a label without room is left out
		{true, []float64{10, 20, 50, 100, 200, 500, 1000, 2000}, "10 100 1,000"},
		{false, []float64{1, 2, 4}, "1 2 4"},
	} {
		var labels []string
		for _, tick := range Parameter("", c.values, c.logarithmic, Grouped[float64]).Ticks {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != c.want {
			t.Errorf("the ticks for %v are %s, want %s", c.values, got, c.want)
		}
	}
}

// parse fails unless a document is XML, and returns its texts.
func parse(t *testing.T, svg string) string {
	t.Helper()
	var texts []string
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return strings.Join(texts, "|")
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if text, ok := token.(xml.CharData); ok {
			texts = append(texts, string(text))
		}
	}
}

// A chart has each text and value, and values that lie far apart are on a logarithmic axis.
func TestSVG_Bars(t *testing.T) {
	bars := Bars{
		Unit: "ms", Key: []Colour{{"peer", "#abc"}},
		Rows: []Row{{"a<b", "#abc", Spread{3, 2, 1, 3}}, {"c", "#def", Spread{1, 6, 6, 6}}},
	}
	texts := parse(t, SVG(Caption{"Title & more", "sub", "origin"}, bars))
	for _, want := range []string{"Title & more", "sub", "origin", "a<b", "|2|", "|6|", "peer", "|ms|"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is missing in %s", want, texts)
		}
	}
	bars.Rows[0].Bar = Spread{1, 600, 600, 600}
	if texts = parse(t, SVG(Caption{}, bars)); !strings.Contains(texts, "ms (logarithmic)") {
		t.Errorf("values that lie far apart are not on a logarithmic axis: %s", texts)
	}
}

func TestSVG_Lines(t *testing.T) {
	l := Lines{
		X: Parameter("clients", []float64{1, 10, 100}, true, Grouped[float64]), Y: Axis{Title: "ns"},
		Curves: []Curve{
			{"one", []Point{{1, Spread{3, 2, 1, 3}}, {10, Spread{3, 2.5, 2, 3}}, {100, Spread{1, 3, 3, 3}}}},
			{"two", []Point{{1, Spread{1, 1, 1, 1}}, {100, Spread{1, 3.01, 3.01, 3.01}}}},
		},
		Marks: []Mark{{20, "inside"}, {200, "outside"}},
	}
	svg := SVG(Caption{Title: "t"}, l, Lines{X: l.X})
	texts := parse(t, svg)
	for _, want := range []string{"one  3", "two  3.01", "inside", "clients (logarithmic)", "|ns|"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is missing in %s", want, texts)
		}
	}
	if strings.Contains(texts, "outside") || strings.Count(svg, "<polyline") != 2 || strings.Contains(svg, "NaN") {
		t.Errorf("the chart is\n%s", svg)
	}
}
