package report

import (
	"bytes"
	"image/color"

	stdfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// pictureFrame is the frame that all charts share.
type pictureFrame struct{ title, subtitle, origin string }

// Sizes, in points.
const (
	width      = 800
	headHeight = 64
	footHeight = 26
	sideMargin = 14
)

// Colours of texts.
var (
	ink   = color.NRGBA{0x21, 0x25, 0x29, 0xff}
	faint = color.NRGBA{0x6c, 0x75, 0x7d, 0xff}
	grid  = color.NRGBA{0xe3, 0xe6, 0xe9, 0xff}
)

// styled returns a text style.
func styled(size font.Length, c color.Color, x text.XAlignment, y text.YAlignment, bold bool) text.Style {
	f := font.From(plot.DefaultFont, size)
	f.Variant = "Sans"
	if bold {
		f.Weight = stdfont.WeightBold
	}
	return text.Style{Color: c, Font: f, XAlign: x, YAlign: y, Handler: plot.DefaultTextHandler}
}

// drawn returns the SVG of a pictureFrame. paint draws the contents, of the given height in points, into the room for it.
func (s pictureFrame) drawn(height vg.Length, paint func(whole, room draw.Canvas)) ([]byte, error) {
	canvas := vgsvg.New(width, headHeight+footHeight+height)
	whole := draw.New(canvas)
	whole.SetColor(color.White)
	whole.Fill(whole.Rectangle.Path())

	top, bottom := whole.Max.Y, whole.Min.Y
	left := whole.Min.X + sideMargin
	whole.FillText(styled(17, ink, text.XLeft, text.YTop, true), vg.Point{X: left, Y: top - 12}, s.title)
	whole.FillText(styled(10.5, faint, text.XLeft, text.YTop, false), vg.Point{X: left, Y: top - 36}, s.subtitle)
	whole.FillText(styled(9, faint, text.XLeft, text.YBottom, false), vg.Point{X: left, Y: bottom + 8}, s.origin)
	paint(whole, draw.Crop(whole, sideMargin, -sideMargin, footHeight, -headHeight))

	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	// The viewer's machine draws the font and seldom has it: name others with the same widths.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")), nil
}
