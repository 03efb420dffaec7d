package demo

import (
	"bytes"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"
)

// thumbnailSide is the longest side of a thumbnail, in pixels.
const thumbnailSide = 320

// codec decodes one kind of picture.
type codec struct {
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

// codecs are chosen by the beginning of the file, not by its name. Of a GIF the first frame is decoded.
var codecs = map[string]codec{
	"image/png":  {png.DecodeConfig, png.Decode},
	"image/jpeg": {jpeg.DecodeConfig, jpeg.Decode},
	"image/gif":  {gif.DecodeConfig, gif.Decode},
	"image/webp": {webp.DecodeConfig, webp.Decode},
}

// safely runs a decoder over untrusted bytes: a panic becomes an error.
func safely[T any](decode func(io.Reader) (T, error), r io.Reader) (decoded T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("demo: the decoder panicked: %v", p)
		}
	}()
	return decode(r)
}

// encodeThumbnail returns the picture at thumbnail size, and its content type: JPEG, or PNG if parts of the
// picture are transparent.
func encodeThumbnail(picture image.Image) ([]byte, string, error) {
	width, height := thumbnailSize(picture.Bounds().Dx(), picture.Bounds().Dy())
	small := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.BiLinear.Scale(small, small.Bounds(), picture, picture.Bounds(), draw.Src, nil)
	var out bytes.Buffer
	if !small.Opaque() {
		err := png.Encode(&out, small)
		return out.Bytes(), "image/png", err
	}
	err := jpeg.Encode(&out, small, &jpeg.Options{Quality: 82})
	return out.Bytes(), "image/jpeg", err
}

// thumbnailSize fits the sides, both positive, into a thumbnail. A small picture stays as it is.
func thumbnailSize(width, height int) (int, int) {
	longest := max(width, height)
	if longest <= thumbnailSide {
		return width, height
	}
	return max(1, width*thumbnailSide/longest), max(1, height*thumbnailSide/longest)
}
