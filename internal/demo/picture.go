package demo

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"time"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"

	"github.com/shoal-go/shoal/manager"
)

const (
	// maxPicturePixels and maxPictureBytes bound the decoder's work: a small file can claim to be a huge picture.
	maxPicturePixels = 50_000_000
	maxPictureBytes  = 256 << 20
	// decodeTimeout is how long one picture may be decoded. A hostile one can ask for hours.
	decodeTimeout = 20 * time.Second
)

var errDecodeTimeout = errors.New("demo: the picture takes too long to decode")

// inspect determines the type of a file and, of a picture, its dimensions, and makes a thumbnail. A picture that cannot
// be decoded is described as far as possible.
func (d *Demo) inspect(file *tempFile, rep *manager.Reporter, res *result) *failure {
	_ = rep.Stage(statusWorking, stageInspecting, 80, "Finding out what it is")
	head := make([]byte, 512) // the bytes that DetectContentType reads
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return notStored(err)
	}
	res.Type = http.DetectContentType(head[:n])
	codec, ok := codecs[res.Type]
	if !ok {
		return nil
	}

	d.decoding <- struct{}{} // others hold it for decodeTimeout at most
	defer func() { <-d.decoding }()
	source := &pictureSource{demo: d, file: file, until: time.Now().Add(decodeTimeout)}
	config, err := safely(codec.config, source)
	if err != nil {
		res.Remark = "the picture cannot be read"
		return nil
	}
	res.Width, res.Height = config.Width, config.Height
	if !decodable(config.Width, config.Height, res.Size) {
		res.Remark = "too large for a thumbnail"
		return nil
	}
	source.offset = 0
	return d.preview(codec, source, rep, res)
}

// preview decodes the picture and makes its thumbnail.
func (d *Demo) preview(codec codec, source *pictureSource, rep *manager.Reporter, res *result) *failure {
	_ = rep.Stage(statusWorking, stageDecoding, 88, "Decoding the picture")
	picture, err := safely(codec.decode, io.TeeReader(source, rep.Writer(res.Size)))
	if d.closed.Load() {
		return errStopping
	}
	if err != nil {
		res.Remark = "the picture is damaged"
		if errors.Is(err, errDecodeTimeout) {
			res.Remark = "it takes too long to decode"
		}
		return nil
	}
	_ = rep.Stage(statusWorking, stageThumbnail, 90, "Making a thumbnail")
	res.thumbnail, res.thumbnailType, err = encodeThumbnail(picture)
	if err != nil {
		return &failure{status: http.StatusInternalServerError, text: "The server could not make a thumbnail.", cause: err}
	}
	res.Thumbnail = true
	return nil
}

// decodable reports whether a picture stays within the bounds. Its dimensions are the file's claim.
func decodable(width, height int, size int64) bool {
	return width > 0 && height > 0 && int64(width)*int64(height) <= maxPicturePixels && size <= maxPictureBytes
}

// audit reads the stored copy back and compares its hash with the hash of the received bytes.
func (d *Demo) audit(file *tempFile, rep *manager.Reporter, want received) *failure {
	hash := sha256.New()
	stored := &storedReader{demo: d, section: io.NewSectionReader(file, 0, want.size)}
	_, err := io.Copy(io.MultiWriter(hash, rep.Writer(want.size)), stored)
	switch {
	case d.closed.Load():
		return errStopping
	case err != nil:
		return notStored(err)
	case !bytes.Equal(hash.Sum(nil), want.sha256[:]):
		return notStored(fmt.Errorf("demo: the stored copy of %d bytes has another hash", want.size))
	}
	return nil
}

// storedReader reads a stored file until the demo is closed.
type storedReader struct {
	demo    *Demo
	section io.Reader
}

func (s *storedReader) Read(p []byte) (int, error) {
	if s.demo.closed.Load() {
		return 0, errors.New("demo: closed")
	}
	return s.section.Read(p)
}

// pictureSource reads a stored picture until the demo is closed or its time is over. Decoders that can be kept
// busy by a small file read on while they are, so this bounds them too.
type pictureSource struct {
	demo   *Demo
	file   io.ReaderAt
	offset int64
	until  time.Time
}

func (s *pictureSource) Read(p []byte) (int, error) {
	if s.demo.closed.Load() || time.Now().After(s.until) {
		return 0, errDecodeTimeout
	}
	n, err := s.file.ReadAt(p, s.offset)
	s.offset += int64(n)
	return n, err
}

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
